"""The programs of examples/book: quick runs on the digits, against closed forms and known order."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

FOLDER = Path(__file__).resolve().parents[1] / "examples/book"
CHAPTERS = sorted(path.stem for path in FOLDER.glob("ch[0-9]*.py"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a chapter as Python does when it is started: its folder is on the path."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "chapter", raising=False)
    state = np.random.get_state()

    def find(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"book_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield find
    np.random.set_state(state)


@pytest.fixture
def run(load: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., Any]:
    """Run a chapter quickly, and hold the pictures it writes against those expected."""

    def start(name: str, pictures: str, *options: str) -> Any:
        results = load(name).main(["--quick", "--out", str(tmp_path), *options])
        assert {path.name for path in tmp_path.iterdir()} == set(pictures.split())
        for path in tmp_path.glob("*.png"):
            assert path.read_bytes().startswith(b"\x89PNG")
            assert path.stat().st_size > 4000, "an empty picture"
        return results

    return start


def test_chapters() -> None:
    assert CHAPTERS == ["ch04", "ch05", "ch06", "ch07", "ch08"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_help(
    name: str, load: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the program does, and the meaning and value of each option."""
    with pytest.raises(SystemExit, match="0"):
        load(name).main(["--help"])
    told = capsys.readouterr().out
    assert f"Chapter {int(name[2:])}: " in told
    assert f"examples/book/{name}.py --out pictures --mnist FOLDER" in told
    assert "default:" in told
    assert "with --quick:" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--mnist", "nowhere"], "--mnist nowhere: no such folder; leave it out"),
        (["--iterations", "0"], "argument --iterations: '0'; expected a whole number above 0"),
        (["--only", "adam"], "unrecognized arguments: --only adam"),
    ],
)
def test_refused(
    options: list[str],
    told: str,
    load: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before any work, in one line."""
    with pytest.raises(SystemExit, match="2"):
        load("ch04").main(options)
    assert told in capsys.readouterr().err


def test_ch04(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = run("ch04", "ch04_gradient.png ch04_descent.png ch04_training.png")
    # The gradient is 2x: a step at rate 0.1 leaves 0.8 of x, and the start is 5 away.
    assert found["distance"] == pytest.approx(5 * 0.8**20, rel=1e-6)
    assert found["gradient check"] < 1e-6
    assert found["first loss"] == pytest.approx(np.log(10), abs=0.1)
    assert found["last loss"] < 1
    assert 0.7 < found["test accuracy"] <= found["training accuracy"]
    assert capsys.readouterr().out.count("wrote ") == 3


def test_ch05(run: Callable[..., Any], tmp_path: Path) -> None:
    found = run("ch05", "ch05_basket.svg ch05_training.png")
    basket = {
        "price": 715.0,
        "dapple": 2.2,
        "dapple_num": 110.0,
        "dorange": 3.3,
        "dorange_num": 165.0,
        "dtax": 650.0,
    }
    assert {name: found[name] for name in basket} == pytest.approx(basket)
    assert found["gradient check"] < 1e-6
    assert 0.85 < found["test accuracy"] <= found["training accuracy"]
    drawing = (tmp_path / "ch05_basket.svg").read_text(encoding="utf-8")
    for number in ("715", "650", "200", "450", "2.2", "3.3", "110", "165"):
        assert f">{number}<" in drawing


def test_ch06_optimizer_paths(run: Callable[..., Any]) -> None:
    found = run("ch06", "ch06_optimizer_paths.png", "--only", "optimizer_paths")["optimizer_paths"]
    # SGD at 0.95: each step leaves 1 - 0.095 of x and turns y into -0.9 y.
    assert found["SGD"] == pytest.approx(np.hypot(7 * 0.905**30, 2 * 0.9**30))
    x, v = np.array([-7.0, 2.0]), np.zeros(2)
    for _ in range(30):
        v = 0.9 * v - 0.1 * x * [0.1, 2.0]
        x = x + v
    assert found["Momentum"] == pytest.approx(np.hypot(*x))
    assert max(found.values()) < 1


def test_ch06_optimizer_losses(run: Callable[..., Any]) -> None:
    """Every other optimizer learns faster than SGD at its usual rate."""
    found = run("ch06", "ch06_optimizer_losses.png", "--only", "optimizer_losses")
    losses = found["optimizer_losses"]
    assert losses["SGD"] < 1.5
    for name in ("Momentum", "AdaGrad", "Adam"):
        assert losses[name] < losses["SGD"] / 2


def test_ch06_activations(run: Callable[..., Any]) -> None:
    """Saturated, all alike, well spread; ReLU fades away unless its weights are He's."""
    pictures = "ch06_activations_sigmoid.png ch06_activations_relu.png"
    spread = run("ch06", pictures, "--only", "activations")["activations"]
    assert spread["sigmoid, std 1"] > 0.4
    assert spread["sigmoid, std 0.01"] < 0.02
    assert 0.05 < spread["sigmoid, Xavier"] < 0.3
    assert spread["ReLU, std 0.01"] < 1e-4
    # Each layer halves the mean square under Xavier's weights and keeps it under He's.
    assert spread["ReLU, He"] / spread["ReLU, Xavier"] == pytest.approx(2**2.5, rel=0.3)


@pytest.mark.slow  # trains deep networks
def test_ch06_initial_losses(run: Callable[..., Any]) -> None:
    found = run("ch06", "ch06_initial_losses.png", "--only", "initial_losses")["initial_losses"]
    assert found["std 0.01"] == pytest.approx(np.log(10), abs=0.02)
    assert found["He"] < found["Xavier"] < found["std 0.01"]


@pytest.mark.slow  # trains deep networks
def test_ch06_batch_normalization(run: Callable[..., Any]) -> None:
    """It learns at most scales of the weights; the plain network at few."""
    found = run("ch06", "ch06_batch_normalization.png", "--only", "batch_normalization")
    learned = found["batch_normalization"]
    assert learned["with"] >= 9
    assert learned["without"] <= 4


@pytest.mark.slow  # trains several networks
def test_ch06_weight_decay(run: Callable[..., Any]) -> None:
    found = run("ch06", "ch06_weight_decay.png", "--only", "weight_decay")["weight_decay"]
    assert found["without weight decay, training"] > 0.98
    assert found["weight decay 0.1, training"] < found["without weight decay, training"]
    assert found["weight decay 0.1, test"] > 0.4


@pytest.mark.slow  # trains several networks
def test_ch06_dropout(run: Callable[..., Any]) -> None:
    found = run("ch06", "ch06_dropout.png", "--only", "dropout")["dropout"]
    plain = found["without dropout, training"] - found["without dropout, test"]
    dropped = found["dropout 0.2, training"] - found["dropout 0.2, test"]
    assert found["without dropout, training"] > 0.98
    assert dropped < plain
    assert found["dropout 0.2, test"] > 0.25


@pytest.mark.slow  # trains several networks
def test_ch06_random_search(run: Callable[..., Any]) -> None:
    """The best trials are those with large rates; the rates run from 1e-6 to 1e-2."""
    found = run("ch06", "ch06_random_search.png", "--only", "random_search")["random_search"]
    assert found["best accuracy"] > 0.4
    assert found["worst accuracy"] < 0.25
    assert 3e-4 < found["lowest rate of the best fifth"] <= 1e-2


def test_ch07(run: Callable[..., Any]) -> None:
    found = run("ch07", "ch07_training.png ch07_filters.png ch07_filtered.png")
    assert found["gradient check"] < 1e-6
    assert found["test accuracy"] > 0.3
    assert found["training accuracy"] > 0.4


def test_ch07_convolves_as_written(load: Callable[[str], ModuleType]) -> None:
    """A filter slides over the image without turning: each value is a sum of products."""
    chapter = load("ch07")
    image = np.arange(30.0).reshape(5, 6) ** 2
    expected = [
        [(image[i : i + 3, j : j + 3] * chapter.SOBEL).sum() for j in range(4)] for i in range(3)
    ]
    np.testing.assert_allclose(chapter.convolve(image, chapter.SOBEL), expected)


def test_ch08(run: Callable[..., Any]) -> None:
    """Half precision moves the probabilities, and hardly an answer."""
    found = run("ch08", "ch08_training.png ch08_mistakes.png ch08_half_precision.png")
    assert found["test accuracy"] > 0.2
    assert found["answers that change"] <= 3
    change = found["test accuracy in half precision"] - found["test accuracy"]
    assert abs(change) <= found["answers that change"] / 300 + 1e-9


@pytest.mark.mnist
def test_ch06_on_mnist(load: Callable[[str], ModuleType], mnist_dir: Path, tmp_path: Path) -> None:
    """The folder of files is read; the options left out are the book's."""
    options = ["--only", "initial_losses", "--iterations", "100", "--mnist", str(mnist_dir)]
    found = load("ch06").main(["--out", str(tmp_path), *options])["initial_losses"]
    assert found["std 0.01"] == pytest.approx(np.log(10), abs=0.02)
    assert found["He"] < found["Xavier"] - 0.2 < found["std 0.01"]
