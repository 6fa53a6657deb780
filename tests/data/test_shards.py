"""Data in several files: which rows they have, in which order, and who reads which file."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ranks import on_ranks
from xpnet import Trainer, mlp, optim
from xpnet.backend.select import select
from xpnet.data import Shards, select_rows
from xpnet.data import dataset as dataset_module
from xpnet.data.checks import check_features
from xpnet.data.loader import Feed, lane_order
from xpnet.data.preparation import default_scaling, standardize
from xpnet.data.shards import files_of
from xpnet.datasets import load_file
from xpnet.errors import DataError, UsageError, XpnetError
from xpnet.trainer.resume import digest
from xpnet.trainer.share import Share

SIZES = (13, 1, 40, 7, 22, 5, 30, 9, 11, 20, 2)  # of files 0 to 10


def save(folder: Path, x: np.ndarray, t: np.ndarray) -> Path:
    ends = np.cumsum(SIZES)[:-1]
    for k, (part, labels) in enumerate(zip(np.split(x, ends), np.split(t, ends), strict=True)):
        np.save(folder / f"part-{k}.npy", part)
        np.save(folder / f"labels-{k}.npy", labels)
    return folder


def made(folder: Path, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    x = (np.random.default_rng(0).normal(size=(sum(SIZES), 4)) * 30).astype(dtype)
    t = (x.astype(float).sum(axis=1) > 0).astype(np.int64)
    save(folder, x, t)
    return x, t


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "CHUNK_BYTES", 3 * 4 * 8)  # three rows


# -- Reading -------------------------------------------------------------------------------


def test_files_are_one_array_in_natural_order(tmp_path: Path) -> None:
    x, t = made(tmp_path)
    data = load_file(tmp_path / "part-*.npy", labels=tmp_path / "labels-*.npy")
    assert isinstance(data.x, Shards)
    assert (data.x.shape, data.x.dtype, data.x.nbytes) == (x.shape, x.dtype, x.nbytes)
    assert [path.name for path in data.x.paths] == [f"part-{k}.npy" for k in range(11)]
    np.testing.assert_array_equal(data.x[:], x)
    np.testing.assert_array_equal(data.t, t)
    revived = pickle.loads(pickle.dumps(data.x))
    for index in (slice(5, 60), slice(12, 14), slice(13, 14), slice(50, 5, -7), slice(9, 3), -1, 77,
                  np.array([159, 0, 13, 13, -160]), [1], np.zeros((2, 0), int),
                  np.array([[1, 70], [90, 14]])):  # fmt: skip
        np.testing.assert_array_equal(data.x[index], x[index])
        np.testing.assert_array_equal(revived[index], x[index])
    rows = select_rows(data.x, np.array([150, 3, 20]))
    np.testing.assert_array_equal(select_rows(rows, np.array([2, 0]))[:], x[[20, 150]])
    for wrong in ([160], [-161], (0, 1.5), [True]):
        with pytest.raises(IndexError):
            data.x[wrong]
    with pytest.raises(TypeError, match="not read as a whole"):
        np.asarray(data.x)


def test_a_folder_and_a_list_name_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "t").mkdir()
    for k in (10, 9, 2):
        np.save(tmp_path / "x" / f"{k}.npy", np.full((2, 1, 3, 3), k, np.uint8))
        np.save(tmp_path / "t" / f"{k}.npy", np.arange(2))
    folder = load_file(tmp_path / "x", labels=tmp_path / "t")
    assert folder.x[::2][:, 0, 0, 0].tolist() == [2, 9, 10]
    assert folder.x.dtype == np.uint8
    assert folder.scaling.scale == 1 / 255
    given = [tmp_path / "x" / f"{k}.npy" for k in (10, 2)]
    np.save(tmp_path / "all.npy", np.arange(4))
    listed = load_file(given, labels=tmp_path / "all.npy")
    assert listed.x[::2][:, 0, 0, 0].tolist() == [10, 2]
    assert listed.t.tolist() == [0, 1, 2, 3]


def test_a_name_with_brackets_that_exists_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("x,y\n1,0\n2,1\n")
    assert files_of(tmp_path / "a[1].csv") is None
    assert len(load_file(tmp_path / "a[1].csv")) == 2


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.data.shards.MOST_MAPPED", 2)
    x, _ = made(tmp_path)
    shards = Shards(files_of(tmp_path / "part-*.npy") or [])
    np.testing.assert_array_equal(shards[np.arange(160)[::-1]], x[::-1])
    assert shards._mapped.cache_info().currsize == 2


# -- Refusals ------------------------------------------------------------------------------


def swap(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / name, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: swap(f, "part-3.npy", np.zeros((7, 5))), r"part-3\.npy: got samples of shape "
         r"\(5,\), float64; expected \(4,\), float64, as in .*part-0\.npy"),
        (lambda f: swap(f, "part-3.npy", np.zeros((7, 4), "f4")), r"part-3\.npy: .* float32; exp"),
        (lambda f: swap(f, "part-4.npy", np.zeros((0, 4))), r"part-4\.npy: got no samples"),
        (lambda f: swap(f, "part-0.npy", np.zeros((3, 0))), r"part-0\.npy: .*without values"),
        (lambda f: swap(f, "part-2.npy", np.float64(3)), r"part-2\.npy: got a single value"),
        (lambda f: swap(f, "labels-5.npy", np.arange(4)), r"labels-5\.npy: got 4 labels for the 5 "
         r"samples of .*part-5\.npy"),
        (lambda f: swap(f, "labels-5.npy", np.zeros((5, 2))), r"labels-5\.npy: got labels of shape "
         r"\(2,\), float64; expected \(\), int64"),
        (lambda f: (f / "labels-7.npy").unlink(), "got 10 files of labels for 11 files of samples"),
        (lambda f: (f / "part-7.csv").write_text("1,2"), "has part-7.csv .*expected .npy files on"),
        (lambda f: (f / "part-3.npy").write_bytes(b"\x93NUMPY"), r"part-3\.npy: is not an NPY"),
        (lambda f: [p.unlink() for p in f.glob("part-*")], r"part-\*: the pattern has no \.npy"),
        (lambda f: swap(f, "part-6.npy", np.full((30, 4), np.nan)), r"part-\*: row 88, column 0: "
         "got nan, expected a finite number"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    made(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_file(tmp_path / "part-*", labels=tmp_path / "labels-*")
    assert "\n" not in str(caught.value)


def test_other_kinds_in_several_files_are_refused(tmp_path: Path) -> None:
    for name in ("a-1.csv", "a-2.csv"):
        (tmp_path / name).write_text("x,y\n1,0\n2,1\n")
    with pytest.raises(DataError, match=r"a-\*\.csv: .*has a-1\.csv .*join tables"):
        load_file(tmp_path / "a-*.csv")
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    np.save(tmp_path / "t1.npy", np.arange(4))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="several files for samples in one"):
        load_file(tmp_path / "x.npy", labels=tmp_path / "t*.npy")
    with pytest.raises(DataError, match=r"the folder has no \.npy"):
        load_file(tmp_path / "empty", labels="t")


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_is_cut_is_not_read(tmp_path: Path, mapped: bool) -> None:
    made(tmp_path)
    shards = Shards(files_of(tmp_path / "part-*.npy") or [])
    if mapped:
        shards[20:21]
    with open(tmp_path / "part-2.npy", "r+b") as file:
        file.truncate(200)
    shards[0:14]
    with pytest.raises(DataError, match=r"part-2\.npy: (has 200 bytes now|got 72 bytes of val)"):
        shards[[15]]


# -- The order -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch"), [(10, 4), (12, 4), (3, 5), (5, 5), (1, 1), (97, 10), (7, 1)]
)
def test_lanes_hold_each_row_once(n: int, batch: int) -> None:
    parts = lane_order(n, batch, seed=1, epoch=2)
    assert sorted(np.concatenate([part.ravel() for part in parts])) == list(range(n))
    assert [part.shape for part in parts] == [
        shape for shape in ((n // batch, batch), (1, n % batch)) if 0 not in shape
    ]
    if n >= batch:
        lanes = parts[0]
        edges = [n * k // batch for k in range(batch + 1)]
        for lane, first, end in zip(lanes.T, edges, edges[1:], strict=False):
            assert first <= lane.min() <= lane.max() < end
    again = lane_order(n, batch, seed=1, epoch=2)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_a_lane_is_in_uniformly_random_order() -> None:
    """Two lanes, of 3 and 4 rows: 6 orders of the one, 24 of the other, all alike often."""
    drawn = [lane_order(7, 2, seed, epoch) for seed in range(60) for epoch in range(80)]
    short = Counter(tuple(full[:, 0]) for full, _ in drawn)
    long = Counter((*full[:, 1], last[0, 0]) for full, last in drawn)
    for counts, orders, limit in ((short, 6, 20.5), (long, 24, 49.7)):  # chi-square at 0.999
        assert len(counts) == orders
        expected = len(drawn) / orders
        assert sum((c - expected) ** 2 / expected for c in counts.values()) < limit


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize(("n", "batch"), [(160, 16), (157, 10), (159, 12)])
def test_a_rank_opens_its_own_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, n: int, batch: int
) -> None:
    for k in range(40):
        np.save(tmp_path / f"part-{k}.npy", np.full((4, 2), k * 1.0))
    opened: set[int] = set()
    real = Shards._map
    monkeypatch.setattr(Shards, "_map", lambda x, k: (opened.add(k), real(x, k))[1])
    feed = Feed(select("cpu", "numpy", "float64"), "float64")
    seen = []
    for rank in range(size):
        x = Shards(files_of(tmp_path / "part-*.npy") or [])
        data = select_rows(x, np.arange(n)), np.zeros(n)
        opened.clear()
        full, *last = lane_order(n, batch, 0, 0)
        list(feed.shards(data, full[:, Share(rank, size, batch, list).rows]))
        lanes = Share(rank, size, batch, list).rows
        edges = [n * k // batch for k in (lanes.start, lanes.stop)]
        assert opened <= set(range(edges[0] // 4, (edges[1] - 1) // 4 + 1))
        seen.append(len(opened))
        for rest in last:  # at most one lane further
            rows = rest[:, Share(rank, size, rest.shape[1], list).rows]
            margin = -(-n // batch) + 1
            if rest.shape[1] >= size:
                assert edges[0] - margin <= rows.min() <= rows.max() < edges[1] + margin
    assert sum(seen) <= 40 + size - 1


# -- Scans that ranks share ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["files", "file", "memory", "bytes", "images"])
@pytest.mark.usefixtures("small_chunks")
def test_scalings_found_by_ranks_are_those_of_one_process(tmp_path: Path, kind: str) -> None:
    x, _ = made(tmp_path, "uint8" if kind == "bytes" else "float64")
    if kind == "bytes":
        x, _ = made(tmp_path, "uint8")
    np.save(tmp_path / "whole.npy", x)
    given: Any = {"memory": x, "file": np.load(tmp_path / "whole.npy", mmap_mode="r")}.get(kind)
    if given is None:
        given = Shards(files_of(tmp_path / "part-*.npy") or [])
    images = kind == "images"
    alone = default_scaling(given, images=images)
    for size in (1, 2, 3, 7):
        found = on_ranks(size, lambda group: default_scaling(given, images=images, group=group))
        for scaling in found:
            if alone is None:
                assert scaling is None
            else:
                assert all((np.asarray(a) == b).all() for a, b in zip(alone, scaling, strict=True))
    exact = standardize(x)
    np.testing.assert_allclose(exact.shift, x.astype(float).mean(axis=0), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(
        standardize(given).scale, 1 / x.astype(float).std(axis=0), rtol=1e-13
    )


@pytest.mark.usefixtures("small_chunks")
def test_each_rank_scans_its_part_and_all_get_the_first_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, t = made(tmp_path)
    x[[151, 93]] = np.inf
    save(tmp_path, x, t)
    read: dict[int, int] = {}

    def work(group: Any) -> str:
        shards = Shards(files_of(tmp_path / "part-*.npy") or [])
        piece = shards._piece

        def counted(start: int, stop: int) -> np.ndarray:
            read[group.rank] = read.get(group.rank, 0) + min(stop, 160) - start
            return piece(start, stop)

        monkeypatch.setattr(shards, "_piece", counted)
        with pytest.raises(DataError) as caught:
            check_features(shards, "x", group)
        return str(caught.value)

    assert set(on_ranks(3, work)) == {"x: row 93, column 0: got inf, expected a finite number"}
    assert sum(read.values()) <= 160
    assert max(read.values()) < 70


@pytest.mark.usefixtures("small_chunks")
def test_a_file_that_one_rank_cannot_read_is_an_error_of_all(tmp_path: Path) -> None:
    made(tmp_path)
    shards = Shards(files_of(tmp_path / "part-*.npy") or [])
    (tmp_path / "part-9.npy").unlink()

    def work(group: Any) -> str:
        trainer = Trainer(mlp([4, 2]), dtype="float64", group=group)
        with pytest.raises(XpnetError) as caught:
            trainer.fit(shards, np.arange(160) % 2)
        return str(caught.value)

    (message,) = set(on_ranks(3, work))
    assert "part-9.npy: does not exist" in message


# -- Training ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [16, 15, 300])
@pytest.mark.usefixtures("small_chunks")
def test_training_from_files_does_not_depend_on_the_number_of_ranks(
    tmp_path: Path, batch: int
) -> None:
    _, t = made(tmp_path)

    def work(group: Any) -> tuple[dict[str, np.ndarray], list[Any]]:
        shards = Shards(files_of(tmp_path / "part-*.npy") or [])
        trainer = Trainer(mlp([4, 6, 2], seed=3), dtype="float64", seed=5, group=group)
        history = trainer.fit(shards, t, epochs=3, batch_size=batch, validation=0.15)
        scores = [(e.train_loss, e.val_loss, e.val_score) for e in history.epochs]
        return trainer.model.to_host(), scores

    ((alone, scores),) = on_ranks(1, work)
    for size in (2, 3):
        for params, measured in on_ranks(size, work):
            np.testing.assert_allclose(measured, scores, rtol=1e-12)
            for name, value in alone.items():
                np.testing.assert_allclose(params[name], value, rtol=1e-12, atol=1e-12)


def test_training_from_files_takes_the_batches_of_lanes(tmp_path: Path) -> None:
    """The same steps by hand: one layer, the loss ½ (y - t)², plain gradient descent."""
    x, _ = made(tmp_path)
    y = x @ np.array([[0.1], [0.2], [-0.1], [0.0]])
    shards = Shards(files_of(tmp_path / "part-*.npy") or [])
    network = mlp([4, 1], loss="squared", seed=1)
    w, b = (np.array(network.params[name], np.float64) for name in ("W1", "b1"))
    trainer = Trainer(network, optim.SGD(1e-4), dtype="float64", scaling=None, target_scaling=None,
                      seed=4)  # fmt: skip
    trainer.fit(shards, y, epochs=2, batch_size=50)
    for epoch in range(2):
        for part in lane_order(160, 50, 4, epoch):
            for rows in part:
                error = x[rows] @ w + b - y[rows]
                w = w - 1e-4 * x[rows].T @ error / len(rows)
                b = b - 1e-4 * error.mean(axis=0)
    found = trainer.model.to_host()
    np.testing.assert_allclose(found["W1"], w, rtol=1e-12)
    np.testing.assert_allclose(found["b1"], b, rtol=1e-12, atol=1e-15)


def test_a_run_from_several_files_is_not_one_from_one_file(tmp_path: Path) -> None:
    x, _ = made(tmp_path)
    shards = Shards(files_of(tmp_path / "part-*.npy") or [])
    assert digest(shards) == [*digest(x), "lanes"]
