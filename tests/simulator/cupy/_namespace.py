"""`cupy.linalg` and `cupy.fft`: what they share with NumPy's, refused during a capture or not."""

import numpy as np

from cupy._array import _function


def wrap(module, names, blas):
    return {n: _function(n, getattr(module, n), blas) for n in names.split() if hasattr(module, n)}


LINALG = """
cholesky det eigh eigvalsh inv lstsq matrix_power matrix_rank norm pinv qr slogdet solve svd
tensorinv tensorsolve
"""
FFT = """
fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2
rfftfreq rfftn
"""
linalg, fft = wrap(np.linalg, LINALG, True), wrap(np.fft, FFT, False)
