"""The book's helpers: loops in plain Python, published numbers, and other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet.book import util

RNG = np.random.default_rng(0)


def test_smooth_curve_of_squares() -> None:
    """The numbers were computed once by the book's own function."""
    smooth = util.smooth_curve(np.arange(20.0) ** 2)
    first = [7.699053929045, 8.699053929045, 11.699053929045, 16.699053929045, 23.699053929045]
    np.testing.assert_allclose(smooth[:5], first, rtol=1e-12)
    np.testing.assert_allclose(smooth[5:15], first[0] + np.arange(5.0, 15.0) ** 2, rtol=1e-12)
    assert smooth.shape == (20,)


@pytest.mark.parametrize("n", [*range(13), 200])
def test_smooth_curve_keeps_length_and_levels(n: int) -> None:
    np.testing.assert_allclose(util.smooth_curve([2.5] * n), np.full(n, 2.5), rtol=1e-12)
    curve = RNG.standard_normal(n)
    smooth = util.smooth_curve(curve.tolist())
    assert smooth.shape == (n,)
    if n > 2:
        assert smooth.std() < curve.std()


def test_smooth_curve_of_a_few_values_by_hand() -> None:
    a, b = 1.0, 2.2795853023360673  # the Kaiser window of three values: I0(0), I0(2), I0(0)
    expected = np.array([a * 5 + b * 1 + a * 5, a * 1 + b * 5 + a * 3, a * 5 + b * 3 + a * 3])
    np.testing.assert_allclose(util.smooth_curve([1, 5, 3]), expected / (a + b + a), rtol=1e-12)


def test_smooth_curve_of_losses_on_a_device(library: Library) -> None:
    losses = [library.asarray(np.asarray(v, np.float32)) for v in range(15)]
    np.testing.assert_allclose(util.smooth_curve(losses), util.smooth_curve(np.arange(15.0)))


def test_smooth_curve_refuses_a_table() -> None:
    with pytest.raises(
        ValueError, match=r"x has shape \(3, 4\); expected one number after another"
    ):
        util.smooth_curve(np.ones((3, 4)))


@pytest.mark.parametrize("shape", [(10,), (10, 3), (10, 2, 3), (10, 1, 2, 2)])
def test_shuffle_dataset_draws_as_the_book(library: Library, shape: tuple[int, ...]) -> None:
    x, t = RNG.uniform(size=shape).astype(np.float32), np.arange(10)
    np.random.seed(7)
    order = np.random.permutation(10)
    after = np.random.rand()
    np.random.seed(7)
    shuffled, targets = util.shuffle_dataset(library.asarray(x), library.asarray(t))
    assert np.random.rand() == after
    np.testing.assert_array_equal(library.to_numpy(shuffled), x[order])
    np.testing.assert_array_equal(library.to_numpy(targets), order)


def test_shuffle_dataset_refuses_other_targets() -> None:
    with pytest.raises(ValueError, match="3 samples and 4 targets"):
        util.shuffle_dataset(np.ones((3, 2)), np.ones(4))


def test_conv_output_size_is_a_float() -> None:
    assert [util.conv_output_size(*a) for a in ((28, 5), (28, 2, 2), (7, 3, 1, 1))] == [24, 14, 7]
    assert isinstance(util.conv_output_size(28, 5), float)
    assert util.conv_output_size(28, 3, stride=2) == 13.5


CASES = [
    # (N, C, H, W), filter, stride, pad
    ((2, 3, 7, 7), (5, 5), 1, 0),
    ((1, 1, 4, 6), (2, 3), 1, 1),
    ((2, 2, 5, 5), (2, 2), 2, 0),
    ((2, 1, 6, 5), (3, 3), 2, 1),
    ((1, 2, 5, 7), (1, 2), 3, 2),
]


def each_place(shape: Any, kernel: Any, stride: int, pad: int) -> Any:
    """Yield (row, column) of the matrix and the place in the padded images, one by one."""
    n, c, h, w = shape
    oh, ow = ((s + 2 * pad - k) // stride + 1 for s, k in zip((h, w), kernel, strict=True))
    for row, (i, y, x) in enumerate(np.ndindex(n, oh, ow)):
        for column, (j, dy, dx) in enumerate(np.ndindex(c, *kernel)):
            yield (row, column), (i, j, y * stride + dy, x * stride + dx)


@pytest.mark.parametrize(("shape", "kernel", "stride", "pad"), CASES)
def test_im2col_and_col2im_place_by_place(
    library: Library, shape: Any, kernel: Any, stride: int, pad: int
) -> None:
    edges = [(0, 0), (0, 0), (pad, pad), (pad, pad)]
    images = RNG.standard_normal(shape).astype(np.float32)
    around = np.pad(images, edges)
    table = dict(each_place(shape, kernel, stride, pad))
    col = np.zeros(np.max([*table], axis=0) + 1, np.float32)
    back = RNG.standard_normal(col.shape).astype(np.float32)
    added = np.zeros(around.shape)
    for at, place in table.items():
        col[at] = around[place]
        added[place] += back[at]

    found = util.im2col(library.asarray(images), *kernel, stride, pad)
    assert type(found) is type(library.asarray(images))
    np.testing.assert_array_equal(library.to_numpy(found), col)
    found = util.col2im(library.asarray(back), shape, *kernel, stride, pad)
    inside = added[:, :, pad : pad + shape[2], pad : pad + shape[3]]
    np.testing.assert_allclose(library.to_numpy(found), inside, rtol=1e-5, atol=1e-6)
    assert library.to_numpy(found).dtype == np.float32


def test_im2col_of_the_book() -> None:
    col = util.im2col(np.ones((10, 3, 7, 7)), 5, 5)
    assert col.shape == (90, 75)
    assert col.dtype == np.float64
    assert util.im2col(np.ones((1, 1, 3, 3), np.uint8), 2, 2).dtype == np.float64


def test_a_filter_that_does_not_fit_is_refused() -> None:
    words = "a filter of 5 x 5 does not fit into images of 3 x 3 with pad=0"
    with pytest.raises(ValueError, match=words):
        util.im2col(np.ones((1, 1, 3, 3)), 5, 5)
    with pytest.raises(ValueError, match=words):
        util.col2im(np.ones((1, 25)), (1, 1, 3, 3), 5, 5)
    with pytest.raises(ValueError, match=r"col has shape \(3, 4\); expected \(4, 4\)"):
        util.col2im(np.ones((3, 4)), (1, 1, 3, 3), 2, 2)
    with pytest.raises(ValueError, match=r"expected images, \(N, C, H, W\)"):
        util.im2col(np.ones((3, 3)), 2, 2)


def test_star_import_gives_what_scripts_lean_on() -> None:
    names: dict[str, Any] = {}
    exec("from xpnet.book.util import *", names)
    assert names["np"] is np
    assert {"smooth_curve", "shuffle_dataset", "conv_output_size", "im2col"} < names.keys()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((2, 2, 0), "stride is 0; expected a whole number, 1 or more"),
        ((2, 2, 1, -1), "pad is -1; expected a whole number, 0 or more"),
        ((0, 2), "filter_h is 0; expected a whole number, 1 or more"),
        ((2, 2.5), "filter_w is 2.5; expected a whole number, 1 or more"),
    ],
)
def test_settings_of_columns_that_are_none(settings: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        util.im2col(np.ones((1, 1, 4, 4)), *settings)
    with pytest.raises(ValueError, match=words):
        util.col2im(np.ones((9, 4)), (1, 1, 4, 4), *settings)


def test_images_of_three_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected four sizes"):
        util.col2im(np.ones((9, 4)), (1, 4, 4), 2, 2)
