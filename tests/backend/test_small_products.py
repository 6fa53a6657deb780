"""Products in parts are the products, and images of 2 x 2 windows give to the first of equals."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.backend import numpy as backend
from xpnet.backend import numpy_images


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "shape",
    [(100, 784, 50), (784, 100, 50), (96, 2000, 100), (97, 784, 50), (300, 300, 300), (8, 3, 2)],
)
@pytest.mark.parametrize("turned", [False, True])
def test_products_in_parts(
    shape: tuple[int, int, int], dtype: type, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_small_products", lambda: True)
    rng = np.random.default_rng(0)
    m, k, n = shape
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    if turned:
        a, b = np.asfortranarray(a), np.asfortranarray(b)
    y = backend._matmul(a, b)
    assert y.shape == (m, n)
    assert y.dtype == dtype
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(y, exact, rtol=0, atol=np.finfo(dtype).eps * 40 * np.sqrt(k))


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_first_of_equal_values_gets_the_gradient(size: tuple[int, int], dtype: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (9, 4, *size)).astype(dtype)
    x[0, 0, 0, 0] = np.inf
    y, hint = numpy_images._max_pool(x, (2, 2), (2, 2))
    dout = rng.standard_normal(y.shape).astype(dtype)
    none = ((0, 0), (0, 0))
    dx = numpy_images._max_pool_backward(x, y, hint, dout, (2, 2), (2, 2), none)
    expected = np.zeros_like(x)
    for n, c, i, j in np.ndindex(y.shape):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        assert y[n, c, i, j] == window.max()
        row, column = divmod(int(window.argmax()), 2)
        expected[n, c, 2 * i + row, 2 * j + column] = dout[n, c, i, j]
    np.testing.assert_array_equal(dx, expected)
