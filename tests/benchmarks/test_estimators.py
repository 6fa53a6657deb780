"""The estimators' benchmark: who is compared with whom, what a row says, each part once, tiny."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import simulated

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from benchmarks import estimators, gpu_report, readme, results
from benchmarks.estimator_cases import CASES, GPU_CASES, data_of, named
from benchmarks.results import read
from benchmarks.worker import Failed, Skipped

ROOT = Path(__file__).parents[2]


# -- Cases -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("iris", (150, 4)),
        ("digits", (1797, 64)),
        ("classification", (20_000, 20)),
        ("regression", (20_000, 20)),
        ("text", (2_000, 5_000)),
    ],
)
def test_a_case_has_its_data(name: str, shape: tuple[int, int]) -> None:
    x, y = data_of(CASES[name], "float32")
    assert x.shape == shape
    assert x.dtype == np.float32
    assert len(y) == len(x) if isinstance(x, np.ndarray) else y.shape == (shape[0],)
    again, _ = data_of(CASES[name], "float32")
    assert (x != again).sum() == 0
    if name == "regression":
        assert y.dtype == np.float32
        assert y.std() == pytest.approx(1.0)
    else:
        assert y.dtype.kind == "i"
        assert min(np.bincount(y)) > shape[0] / len(np.unique(y)) / 2


def test_images_are_the_first_of_mnist_or_random(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import estimator_cases

    pixels = np.full((60, 28, 28), 51, dtype=np.uint8)
    data = type("Data", (), {"x": pixels, "t": np.arange(60)})
    monkeypatch.setattr(estimator_cases.xpnet.datasets, "load", lambda name, folder: (data, None))
    case = CASES["mnist-50"]._replace(data="mnist 20")
    x, y = data_of(case, "float64", "folder")
    assert x.shape == (20, 784)
    assert np.all(x == 0.2)
    np.testing.assert_array_equal(y, np.arange(20))
    x, y = data_of(case, "float64")
    assert x.shape == (20, 784)
    assert 0 <= x.min() < x.max() <= 1


def test_every_case_says_what_it_asks() -> None:
    assert set(GPU_CASES) <= set(CASES)
    assert named("predict-iris") == "predict iris, 150 x 4"
    assert named("search") == "GridSearchCV on iris, 24 fits"
    assert named("of another day") == "of another day"
    for case in CASES.values():
        assert case.settings["max_iter"] > 0
        assert set(case.least) in (set(), {"float64", "float32"})


# -- What is compared ------------------------------------------------------------------


def test_fits_that_differ_are_refused() -> None:
    def check(own: list[float], dtype: str = "float64") -> dict[str, float]:
        return estimators.check({"ours": own, "scikit-learn": [2.0, 1.0]}, dtype)

    assert check([2.0, 1.0 + 5e-10])["ours"] == pytest.approx(5e-10, rel=1e-6)
    assert check([2.0, 1.0005], "float32")["ours"] == pytest.approx(5e-4)
    for own in ([2.0, 1.0 + 2e-9], [2.0, float("nan")], [2.002, 1.0]):
        with pytest.raises(Failed, match="ours trains something else: its losses are"):
            check(own)
    with pytest.raises(Failed, match=r"losses are 2\.0e-03 off"):
        check([2.0, 1.002], "float32")
    with pytest.raises(Failed, match="ours has 1 losses, scikit-learn 2"):
        check([2.0])


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker sets variables for its process, which here is that of the tests."""
    for name in ("JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def served(case: str, **setup: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    lane = estimators.Lane(case, "float64", "numpy")._asdict()
    return estimators.serve({**lane, "max_iter": 2, "data_dir": "", **setup})


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_both_sides_do_the_same(own_environment: None) -> None:
    """Fit, search and predict: the losses of scikit-learn's own estimator, from both sides."""
    from sklearn.datasets import load_iris
    from sklearn.model_selection import cross_validate
    from sklearn.neural_network import MLPClassifier

    x, y = load_iris(return_X_y=True)
    fitted = MLPClassifier(max_iter=2, random_state=0).fit(x, y)
    expected = {
        "iris": fitted.loss_curve_,
        "predict-iris": [*fitted.loss_curve_, fitted.score(x, y)],
    }
    for case, losses in expected.items():
        answer = served(case)
        checked = answer({"do": "check"})
        assert list(checked) == ["xpnet numpy", "scikit-learn"]
        for side in checked.values():
            np.testing.assert_allclose(side["losses"], losses, rtol=1e-12)
            assert side["first_ms"] > 0
        assert answer({"do": "prepare", "seconds": 1e-9})["calls"] >= 1
        for name in checked:
            assert answer({"do": "time", "side": name})["value"] > 0
    found = served("search")({"do": "check"})
    first = MLPClassifier((10,), max_iter=2, random_state=0, alpha=1e-5)
    folds = cross_validate(first, x, y, cv=3, scoring=lambda fitted, x, y: fitted.loss_)
    for side in found.values():
        assert len(side["losses"]) == 24
        np.testing.assert_allclose(side["losses"][::8], folds["test_score"], rtol=1e-12)


def test_memory_is_that_of_the_fit(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimator that takes 40 MiB, after data that took 80."""

    def take(mebibytes: int) -> None:
        """Take memory from the system: the heap may have kept some of earlier tests."""
        with mmap.mmap(-1, mebibytes << 20) as fresh:
            for start in range(0, mebibytes << 20, mmap.PAGESIZE):
                fresh[start] = 1

    class Greedy:
        loss_curve_ = (1.0,)

        def fit(self, x: Any, y: Any) -> Greedy:
            take(40)
            return self

    def sides_of(case: Any, setup: dict[str, Any]) -> dict[str, Callable[[], estimators.Side]]:
        take(80)
        return {"greedy": lambda: estimators.Side(Greedy, None, None)}

    monkeypatch.setattr(estimators, "sides_of", sides_of)
    try:
        answer = served("memory-text")
    except Skipped as reason:
        pytest.skip(str(reason))
    found = answer({"do": "memory", "side": "greedy"})
    assert found["losses"] == [1.0]
    assert found["value"] == pytest.approx(40, abs=4)
    assert found["process_mib"] > found["value"]


# -- The command -----------------------------------------------------------------------

TINY = ["--quick", "--rounds", "1", "--seconds", "0.001"]


def test_pairs_are_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "estimators.jsonl"
    words = ["--cases", "predict-iris", "memory-text", "--dtypes", "float64", "--out", str(out)]
    assert estimators.main([*TINY, *words]) == 0
    printed = capsys.readouterr().out
    header, measurements = read(out)
    assert header["benchmark"] == "estimators"
    assert header["data"] == "random"
    assert header["machine"]["versions"]["scipy"]
    ours, theirs = measurements[:2]
    assert ours["case"] == {"case": "predict-iris", "dtype": "float64", "backend": "numpy"}
    assert [ours["contender"], theirs["contender"]] == ["xpnet numpy", "scikit-learn"]
    assert len(ours["values"]) == len(theirs["values"]) == 1
    assert ours["loss_error"] <= 1e-9
    assert [m["unit"] for m in measurements] == ["ms", "ms", "MiB", "MiB"] or "keeps" in printed
    assert "targets met" in printed
    line = next(x for x in printed.splitlines() if x.startswith("predict-iris"))
    ratio = np.median(np.divide(theirs["values"], ours["values"]))
    assert float(line.split()[7]) == pytest.approx(ratio, abs=0.011)


def test_a_case_that_differs_fails_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Off:
        """A process whose iris is off, and whose digits end in the second round."""

        def __init__(self, module: str, setup: dict[str, Any], limit: float) -> None:
            self.case, self.turns = setup["case"], 0
            assert limit == 7.0
            assert setup["max_iter"] == CASES[self.case].settings["max_iter"]

        def ready(self) -> Off:
            return self

        def ask(self, do: str, side: str = "", **question: Any) -> dict[str, Any]:
            asked.append((self.case, do, side))
            if do == "check":
                off = float(self.case == "iris")
                return {
                    "xpnet numpy": {"losses": [1.0 + off], "first_ms": 1.0},
                    "scikit-learn": {"losses": [1.0], "first_ms": 2.0},
                }
            self.turns += 1
            if self.turns == 5:
                raise Failed("its process ended: Killed")
            return {"calls": 1} if do == "prepare" else {"value": float(self.turns)}

        def stop(self) -> None:
            asked.append((self.case, "stop", ""))

    monkeypatch.setattr(estimators, "Worker", Off)
    out = tmp_path / "estimators.jsonl"
    words = ["--cases", "iris", "digits", "--dtypes", "float32", "--limit", "7", "--rounds", "3"]
    assert estimators.main([*words, "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "iris float32 numpy: FAILED, xpnet numpy trains something else" in printed
    assert "digits float32 numpy: FAILED, its process ended: Killed" in printed
    assert asked[:2] == [("iris", "check", ""), ("iris", "stop", "")]
    # In the second round the order is reversed; what was measured before the end stays.
    sides = [side for case, do, side in asked if (case, do) == ("digits", "time")]
    assert sides == ["xpnet numpy", "scikit-learn", "scikit-learn", "xpnet numpy"]
    assert [m["values"] for m in read(out)[1]] == [[2.0], [3.0, 4.0]]
    assert "1.50" in next(x for x in printed.splitlines() if x.startswith("digits   "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cases", "wine"], "--cases wine: expected some of iris, digits"),
        (["--device", "cuda", "--cases", "iris"], "--cases iris: expected some of mnist-60000"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
        (["--data-dir", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimators.main(words) == 2
    assert message in capsys.readouterr().err


def test_an_interrupt_leaves_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "estimators.jsonl"
    words = ["--cases", "predict-iris", "--rounds", "100000", "--seconds", "0.001"]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.estimators", *words, "--out", str(out)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        began = time.monotonic()
        while time.monotonic() - began < 60:
            if out.exists() and sum(len(m["values"]) for m in read(out)[1]) > 4:
                break
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert f"wrote {out}: 2 measurements so far" in printed
    assert "FAILED" not in printed
    a, b = (m["values"] for m in read(out)[1])
    assert min(len(a), len(b)) >= 2
    assert abs(len(a) - len(b)) <= 1


# -- The pages and the GPU's report ----------------------------------------------------


def made_up(path: Path, case: str, contender: str, ours: float, theirs: float, **more: Any) -> None:
    machine = {
        "gpu": {"name": "Some GPU", "driver": "1.2", "memory": "1"}, "date": "2026-01-02",
        "versions": {"numpy": "9"}, "cpu": "CPU", "cores": 3, "instructions": ["avx"],
        "python": "3", "blas": [], "variables": {},
    }  # fmt: skip
    lines: list[dict[str, Any]] = [{"benchmark": "estimators", "rounds": 2, "machine": machine}]
    for dtype, slower in (("float64", 2.0), ("float32", 1.0)):
        fields = {"case": case, "dtype": dtype, "backend": contender.split()[1].strip(","), **more}
        for name, value in ((contender, ours), ("scikit-learn", theirs)):
            value *= slower if name == contender else 2.0
            times = {"q1": value, "median": value, "q3": value, "values": [value, value]}
            m = {"case": fields, "contender": name, "unit": "ms", "first_ms": 1500.0, **times}
            lines.append(m)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text if not path.exists() else path.read_text() + text.split("\n", 1)[1])


def test_the_page_shows_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert readme.estimators_section() == []
    made_up(tmp_path / "estimators-2026-01-01.jsonl", "iris", "xpnet numpy", 1.0, 9.0)
    path = tmp_path / "estimators-2026-01-02.jsonl"
    made_up(path, "iris", "xpnet numpy", 10.0, 12.5)
    made_up(path, "mnist-60000", "xpnet jax", 1000.0, 3000.0)
    text = "\n".join(readme.estimators_section())
    assert text.startswith("## Beside scikit-learn\n\n")
    assert "2026-01-02, 3 cores of an CPU" in text
    # In float64 1.25 is enough; in float32 2.5.
    row = "| fit iris, 150 x 4, numpy | 20.0 | 1.25 (1.25 to 1.25) | 1.20 | 10.0 | 2.50"
    assert row in text
    assert "| fit MNIST 60,000, jax | 2,000.0 | 3.00" in text
    assert "takes 1.5 s in float64, 1.5 s in float32." in text
    assert "On one Some GPU" not in text
    folder = tmp_path / "gpu-2026-01-02"
    made_up(
        folder / "estimators.jsonl", "mnist-256", "xpnet cupy, data on cuda", 10.0, 11.0,
        device="cuda",
    )  # fmt: skip
    text = "\n".join(readme.estimators_section())
    assert "On one Some GPU, beside scikit-learn on 3 cores of its host" in text
    # A GPU's speed has no target.
    assert "200, cupy, data on cuda | 20.0 | 1.10 (1.10 to 1.10) |  | 10.0 | 2.20" in text
    made_up(path, "digits", "xpnet numpy", 10.0, 10.0)
    assert "| **1.00** (1.00 to 1.00) | 1.10 |" in "\n".join(readme.estimators_section())


def test_the_gpus_report_has_the_estimators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "estimators.jsonl"
    made_up(path, "mnist-60000", "xpnet jax", 10.0, 30.0, device="cuda")
    assert gpu_report.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Some GPU, driver 1.2; ; 2026-01-02\n")
    words = printed.splitlines()[-1].split()
    assert words[:10] == [
        "mnist-60000", "float32", "xpnet", "jax", "10.0", "60.0", "ms", "6.00", "6.00", "6.00",
    ]  # fmt: skip
    assert printed.endswith("(the first one, which compiles: 1,500 ms)\n")


def test_a_simulated_gpu_is_measured(tmp_path: Path) -> None:
    """NumPy's data, and data that lies there."""
    code = """if True:
    from benchmarks import estimator_cases, estimators
    small = estimator_cases.CASES["iris"]._replace(settings={"max_iter": 2})
    estimators.CASES["classification"] = small
    setup = estimators.Lane("classification", "float32", "cupy", "cuda")._asdict()
    answer = estimators.serve({**setup, "max_iter": 2, "data_dir": ""})
    checked = answer({"do": "check"})
    losses = {name: side["losses"] for name, side in checked.items()}
    print(*estimators.check(losses, "float32"), sep="|")
    """
    found = simulated("-W", "ignore", "-c", code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "xpnet cupy|xpnet cupy, data on cuda|scikit-learn"
