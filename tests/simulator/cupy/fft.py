from cupy._namespace import fft as _fft

globals().update(_fft)
