"""The book's MNIST: shapes and dtypes, from small files and from the real ones."""

from __future__ import annotations

import gzip
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.book import mnist
from xpnet.data import catalog
from xpnet.errors import DataError, UsageError

RNG = np.random.default_rng(0)
PARTS = {"train": 30, "t10k": 20}
IMAGES = {part: RNG.integers(0, 256, (n, 28, 28), np.uint8) for part, n in PARTS.items()}
LABELS = {part: np.arange(n, dtype=np.uint8) % 10 for part, n in PARTS.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of the format of MNIST, with random pixels."""
    for part in PARTS:
        for name, values in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part])):
            sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
            content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    return tmp_path


@pytest.mark.parametrize(("normalize", "flatten", "one_hot"), [*product([True, False], repeat=3)])
def test_every_form(normalize: bool, flatten: bool, one_hot: bool, folder: Path) -> None:
    loaded = mnist.load_mnist(normalize, flatten, one_hot, folder=folder)
    for (x, t), part in zip(loaded, PARTS, strict=True):
        n = PARTS[part]
        assert x.shape == ((n, 784) if flatten else (n, 1, 28, 28))
        assert x.dtype == (np.float32 if normalize else np.uint8)
        pixels = IMAGES[part].astype(np.float32) / np.float32(255) if normalize else IMAGES[part]
        np.testing.assert_array_equal(x.reshape(n, 28, 28), pixels)
        assert t.shape == ((n, 10) if one_hot else (n,))
        assert t.dtype == (np.float64 if one_hot else np.uint8)
        expected = np.eye(10)[LABELS[part]] if one_hot else LABELS[part]
        np.testing.assert_array_equal(t, expected)


def test_the_files_are_read_once_and_each_call_has_its_own_arrays(folder: Path) -> None:
    mnist.init_mnist(folder=folder)
    for path in folder.iterdir():
        path.unlink()
    (x, t), _ = mnist.load_mnist(normalize=False, folder=folder)
    x[...], t[...] = 0, 9
    (x, t), _ = mnist.load_mnist(normalize=False, folder=str(folder))
    np.testing.assert_array_equal(x.reshape(-1, 28, 28), IMAGES["train"])
    np.testing.assert_array_equal(t, LABELS["train"])


def test_missing_files_are_named_and_so_is_the_argument(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^folder .*: has no train-images-idx3-ubyte.gz"):
        mnist.load_mnist(folder=tmp_path)
    with pytest.raises(DataError, match=r"^folder .*: is not a folder"):
        mnist.load_mnist(folder=tmp_path / "none")


def test_without_a_folder_the_files_are_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def load(name: str, folder: Any) -> Any:
        asked.append((name, folder))
        return catalog.load(name, folder)

    def unreachable(*_: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr("xpnet.datasets.load", load)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path)
    monkeypatch.setattr("xpnet.data.catalog._received", unreachable)
    mnist._read.cache_clear()
    for call in (mnist.load_mnist, mnist.init_mnist, mnist.download_mnist):
        words = r"not be downloaded .*files as folder=\.\.\., or use"
        with pytest.raises(DataError, match=words) as e:
            call()
        assert "--" not in str(e.value)
    assert asked == [("mnist", None)] * 3


def test_a_path_in_the_place_of_a_switch_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^normalize is '/data'; .*load_mnist\(folder="):
        mnist.load_mnist("/data")  # type: ignore[arg-type]


@pytest.mark.mnist
def test_the_real_files(mnist_dir: Path) -> None:
    (x_train, t_train), (x_test, t_test) = mnist.load_mnist(folder=mnist_dir)
    assert (len(x_train), len(x_test)) == (mnist.train_num, mnist.test_num)
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert t_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert x_train.max() == 1.0
    assert x_train.mean() == pytest.approx(0.1306605, abs=1e-6)  # the well-known mean
    mnist._read.cache_clear()
