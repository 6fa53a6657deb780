"""What happens to a data set before the training: it is split, and its scaling is found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from xpnet.data.checks import check_numbers, host, is_one_hot
from xpnet.data.dataset import Scaling
from xpnet.data.frames import frame_table, is_frame
from xpnet.data.labels import labels_of
from xpnet.data.scans import scan
from xpnet.errors import DataError, UsageError, real, shown, whole
from xpnet.parallel.group import ALONE, Group

__all__ = ["class_weights", "split", "standardize"]


def split(
    t: Any, fraction: float, seed: int | Sequence[int], *, stratify: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of two parts, the second one `fraction` of the whole; both in rising order.

    Parameters
    ----------
    t : array, shape=(N, ...)
        Targets.
    fraction : float in [0, 1)
    seed : int or sequence of int, 0 or more
    stratify : bool
        Divide every class in the same proportion, to within one sample. Then t must be class
        indices or names, shape=(N,) or (N, 1), or one-hot rows, shape=(N, classes).

    Returns
    -------
    rest, part : integer arrays; len(part) is N · fraction, rounded

    Raises
    ------
    UsageError
        The fraction or the seed is out of range.
    DataError
        One of the two would be empty although fraction > 0, or t are no classes to stratify by.

    Examples
    --------
    >>> train, test = split([0, 0, 0, 0, 1, 1, 1, 1], 0.25, seed=0, stratify=True)
    >>> len(train), len(test)
    (6, 2)
    """
    t = host(labels_of(t, "t"), "t")
    if not t.ndim or not len(t):
        raise DataError(f"t: got shape {t.shape}, expected one target a sample")
    fraction = real("fraction", fraction, 0.0, 1.0)
    if isinstance(seed, tuple | list):
        seed = [whole("seed", part) for part in seed]
    else:
        seed = whole("seed", seed)
    random = np.random.default_rng(seed)
    n = len(t)
    hint = "to stratify by; split the targets of a regression with stratify=False"
    classes = _classes(t, hint) if stratify else None
    shuffled = random.permutation(n)
    if fraction == 0.0:
        return np.arange(n), np.arange(0)
    if classes is not None:
        shuffled = shuffled[np.argsort(classes[shuffled], kind="stable")]
    # Along the list ordered by class, take each sample at which the running count that is
    # due passes the next whole number: in every class its share, over all exactly `fraction`.
    due = np.floor(np.arange(n + 1) * fraction + 0.5)
    taken = np.diff(due) > 0
    if not 0 < taken.sum() < n:
        raise DataError(
            f"a part of {fraction} (--test-fraction, --val-fraction) of {n} samples "
            "leaves one side empty"
        )
    return np.sort(shuffled[~taken]), np.sort(shuffled[taken])


def class_weights(
    t: Any, weights: str | Mapping[Any, float] = "balanced", sample_weight: Any = None
) -> np.ndarray:
    r"""How much each sample counts, by its class; for ``sample_weight`` of `xpnet.Trainer.fit`.

    Parameters
    ----------
    t : array, shape=(N,)
        Class indices or names; or one-hot rows, shape=(N, classes), for the number of the column.
    weights : "balanced", or mapping from class to weight
        balanced gives all classes the same total weight: a sample of class c counts
        $N / (k N_c)$, with k classes among the samples and N_c samples of class c; their
        mean is 1. In a mapping, classes without a weight count 1.
    sample_weight : array, shape=(N,), optional
        How often balanced counts each sample; N is then the sum of these weights, and classes of
        weight 0 are left out.

    Returns
    -------
    array, shape=(N,), float64

    Raises
    ------
    UsageError
        `weights` is neither; a weight is negative or not finite; or t lacks a class of the mapping
        while it has one that the mapping lacks: a name is misspelt, then. Where all classes of t
        have a weight, the mapping may have more.
    DataError
        t are no classes.

    Notes
    -----
    The same as ``sklearn.utils.class_weight.compute_sample_weight``. Source: King and Zeng,
    "Logistic regression in rare events data", 2001.

    Examples
    --------
    >>> class_weights(["no", "no", "no", "yes"]).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0]
    """
    t = host(labels_of(t, "t"), "t")
    if not t.ndim or not len(t):
        raise DataError(f"t: got shape {t.shape}, expected one class a sample")
    classes, index = np.unique(_classes(t, "to weigh"), return_inverse=True)
    times = None
    if sample_weight is not None:
        times = host(labels_of(sample_weight, "sample_weight"), "sample_weight")
        if times.shape != index.shape:
            raise DataError(
                f"sample_weight: got shape {times.shape}, expected {index.shape}: one a sample"
            )
        check_numbers(times, "sample_weight")
    if isinstance(weights, str) and weights == "balanced":
        counts = np.bincount(index, times)
        each = counts.sum() / (np.count_nonzero(counts) * np.where(counts, counts, np.inf))
    elif isinstance(weights, Mapping):
        labels = classes.tolist()
        unknown = [label for label in weights if label not in labels]
        if unknown and (rest := [label for label in labels if label not in weights]):
            raise UsageError(
                f"class weights: got one for {shown(unknown[0])}, which is no class of t, and none "
                f"for {shown(rest[0])}; expected the names of the classes"
            )
        each = np.array(
            [real(f"weight of class {shown(c)}", weights.get(c, 1.0), 0.0) for c in labels]
        )
    else:
        raise UsageError(
            f"class weights are {shown(weights)}; expected 'balanced', or a weight for each class: "
            "{0: 1.0, 1: 5.0}"
        )
    result: np.ndarray = each[index]
    return result


def _classes(t: np.ndarray, purpose: str) -> np.ndarray:
    """One class a sample, which can be sorted; `purpose` ends the message for other targets."""
    if is_one_hot(t):
        return np.asarray(np.argmax(t, axis=1))
    if t.dtype.kind == "O" and all(isinstance(label, str) for label in t.ravel()):
        t = t.astype(str)
    whole = t.dtype.kind in "buiUS" or (t.dtype.kind == "f" and bool((t == np.floor(t)).all()))
    if t.size != len(t) or not whole:
        raise DataError(
            f"t: got {t.dtype} of shape {t.shape}, expected class indices or one-hot rows {purpose}"
        )
    return t.reshape(len(t))


def standardize(x: Any, name: str = "x", group: Group = ALONE) -> Scaling:
    """The scaling to mean 0 and standard deviation 1 per column, computed in float64.

    A constant column becomes 0, exactly.

    Parameters
    ----------
    x : array, shape=(N, ...), or data frame of numbers
        Features, or the targets of a regression.
    name : str
        What x is called in messages.
    group : Group
        The ranks that share the reading, if x stays in a file.

    Raises
    ------
    DataError
        A value is not a finite number, or so large that its square is infinite.

    Examples
    --------
    >>> import numpy as np
    >>> scaling = standardize(np.array([[10.0, 5.0], [30.0, 5.0]]))
    >>> scaling.shift.tolist(), scaling.scale.tolist()  # the second column is constant
    ([20.0, 5.0], [0.1, 1.0])
    """
    x = host(frame_table(x, name).matrix() if is_frame(x) else x, name)
    mean, deviation = _moments(x, name, group)
    return Scaling(mean, 1.0 / np.where(deviation > 0.0, deviation, 1.0))


LARGEST_COUNT = 100  # in bytes that are no pixels


def default_scaling(
    x: Any, name: str = "x", *, images: bool = False, group: Group = ALONE
) -> Scaling | None:
    """The scaling that features get if you say nothing; None for bytes up to 255, divided later.

    Each column of a table gets mean 0 and standard deviation 1, as by `standardize`. Samples with
    more axes, such as images, have values of one unit: all of them get one mean and one deviation.
    Bytes of which none is above 100 are counts or ages, not the brightness of a pixel.

    Parameters
    ----------
    x : array, shape=(N, ...)
    name : str
        What x is called in messages.
    images : bool
        Rows are images too, pixel after pixel.
    group : Group
        As for `standardize`.

    Raises
    ------
    DataError
        As by `standardize`.

    Examples
    --------
    >>> default_scaling(np.array([[[0.0, 2.0], [2.0, 0.0]]]))
    Scaling(shift=1.0, scale=1.0)
    """
    if x.dtype == np.uint8 and any(scan(x, _has_pixels, group, bool)):
        return None
    if x.ndim <= 2 and not images:
        return standardize(x, name, group)
    mean, deviation = _moments(x, name, group)
    one = float(mean.mean())
    spread = math.sqrt(float((deviation**2 + (mean - one) ** 2).mean()))
    return Scaling(one, 1.0 / (spread or 1.0))


def _has_pixels(part: Iterable[tuple[int, np.ndarray]]) -> bool:
    return any(bool((rows > LARGEST_COUNT).any()) for _, rows in part)


class _Moments(NamedTuple):
    """Number of rows, and the mean and the sum of squared deviations of each column."""

    rows: int = 0
    mean: Any = np.float64(0.0)
    square: Any = np.float64(0.0)

    def and_of(self, other: _Moments) -> _Moments:
        """Join those of two parts without loss (Chan et al., 1979)."""
        delta, total = other.mean - self.mean, self.rows + other.rows
        square = self.square + other.square
        square = square + delta**2 * (self.rows * other.rows / total)
        return _Moments(total, self.mean + delta * (other.rows / total), square)


def _moments(x: Any, name: str, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per column."""
    check_numbers(x, name, group)

    def first_row(part: Iterator[tuple[int, np.ndarray]]) -> np.ndarray:
        return np.asarray(next(part)[1][0], np.float64)

    def moments(part: Iterable[tuple[int, np.ndarray]]) -> _Moments:
        found = _Moments()
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for _, rows in part:
                rows = rows.astype(np.float64) - first
                mean = rows.mean(axis=0)
                here = _Moments(len(rows), mean, ((rows - mean) ** 2).sum(axis=0))
                found = found.and_of(here)
        return found

    # From the first row: a constant column is then 0 to the bit, and so is its deviation.
    first = scan(x, first_row, group, lambda row: True)[0]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        parts = scan(x, moments, group)
        n, mean, square = reduce(_Moments.and_of, parts, _Moments())
        deviation = np.sqrt(square / n)
    if not np.isfinite(deviation).all():
        largest = max(scan(x, _largest, group))
        raise DataError(f"{name}: has values up to {largest:.1e}, too large to scale")
    return first + mean, deviation


def _largest(part: Iterable[tuple[int, np.ndarray]]) -> float:
    return max(float(np.abs(rows.astype(np.float64)).max()) for _, rows in part)
