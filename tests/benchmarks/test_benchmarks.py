"""The harness: its timing, its contenders, its files; each command once, at a tiny size."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    compare,
    gpu_report,
    growth,
    interrupts,
    jax_training,
    machine,
    matmul,
    mnist,
    pictures,
    pytorch_training,
    readme,
    train_step,
)
from benchmarks.contenders import BFLOAT16, CONTENDERS, FLOORS, Contender, Training, reference
from benchmarks.interrupts import orderly
from benchmarks.problems import NETWORKS, STEPS_PER_GRAPH, Case, Epoch, Problem, batches, products
from benchmarks.products import LIBRARIES, Point, Product
from benchmarks.results import Recorder, newest, read, recording
from benchmarks.timing import calls_in, quartiles, ratio, rounds_of, settle
from benchmarks.timing import turns as whose_turn
from benchmarks.worker import Failed, Skipped, Worker
from xpnet.errors import NotCapturedWarning

ROOT = Path(__file__).parents[2]

# -- Timing ----------------------------------------------------------------------------


def test_quartiles_are_numpys() -> None:
    values = [5.0, 1.0, 4.0, 8.0, 2.5]
    found = quartiles(values)
    expected = np.percentile(values, [25, 50, 75])
    np.testing.assert_allclose([found["q1"], found["median"], found["q3"]], expected)
    assert found["values"] == values
    assert quartiles([3.0]) == {"q1": 3.0, "median": 3.0, "q3": 3.0, "values": [3.0]}


def test_a_ratio_is_taken_round_by_round() -> None:
    # A machine that becomes ten times as slow in the middle: the ratio does not notice.
    drift = np.array([1.0, 1.0, 10.0, 10.0, 10.0])
    found = ratio(list(3.0 * drift), list(2.0 * drift))
    assert found["q1"] == found["median"] == found["q3"] == 1.5
    # Broken off in the midst of a round: the rounds that both have count.
    assert ratio([2.0, 4.0, 600.0], [1.0, 2.0])["values"] == [2.0, 2.0]


def test_contenders_take_turns_from_both_ends() -> None:
    turns: list[str] = []

    def turn(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    values = rounds_of({name: lambda name=name: turn(name) for name in "abc"}, 3)
    assert list(whose_turn("abc", 3)) == turns
    assert "".join(turns) == "abccbaabc"
    assert values == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}


def test_a_window_is_filled_after_the_slow_first_calls() -> None:
    asked: list[int] = []

    def measure(calls: int) -> float:
        asked.append(calls)
        return 1.0 if len(asked) < 2 else 1e-4  # compiles, then steady

    assert 200 <= calls_in(0.02, measure) <= 250
    assert asked[0] == 1
    assert asked[-1] * 1e-4 >= 0.02


def test_settling_takes_its_time() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    settle(call, 0.0)
    assert count == 0
    settle(call, 1e-3)
    assert count > 1


# -- Contenders ------------------------------------------------------------------------


def available(name: str) -> None:
    from xpnet.backend.cpu import multiplies_bfloat16

    for word, package in (("torch", "torch"), ("jax", "jax"), ("scikit", "sklearn")):
        if word in name:
            pytest.importorskip(package, reason=f"{package} is not installed")
    if name in BFLOAT16 and not multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    if "compile" in name:
        pytest.skip("torch.compile takes half a minute; the command itself checks its losses")


@pytest.mark.parametrize("name", [name for name in CONTENDERS["cpu"] if name not in FLOORS])
@pytest.mark.parametrize(
    ("activation", "optimizer"), [("sigmoid", "sgd"), ("relu", "adam"), ("tanh", "sgd")]
)
def test_every_contender_trains_the_same_network(
    name: str, activation: str, optimizer: str
) -> None:
    available(name)
    problem = Case("20-8-6-4/10", activation, optimizer).problem()
    # Larger rates: a wrong update would show in a few steps.
    problem = problem._replace(lr=10 * problem.lr)
    order = batches(problem.case, 12)
    expected = reference(problem)(order)
    untrained = reference(problem._replace(lr=0.0))(order)
    epoch = CONTENDERS["cpu"][name](problem)
    lane = train_step.lane_of(problem.case, name)
    error = train_step.check(epoch(order), expected, untrained, lane)
    assert error < (2e-2 if name in BFLOAT16 else 1e-5)
    # And a second call goes on from there.
    order = batches(problem.case, 24)
    twice = CONTENDERS["cpu"][name](problem)
    twice(order[:12])
    losses = twice(order[12:])
    expected = reference(problem)(order)[12:]
    if len(losses) == 1:
        expected = expected.mean(keepdims=True)
    np.testing.assert_allclose(losses, expected, rtol=3e-2 if name in BFLOAT16 else 1e-4)


def test_losses_that_are_off_are_refused() -> None:
    expected, untrained = np.array([2.0, 1.0]), np.array([2.0, 1.1])

    def check(losses: list[float], lane: str = "float32") -> float:
        return train_step.check(losses, expected, untrained, lane)

    assert check([2.0, 1.001]) == pytest.approx(1e-3 / 1.5)
    for losses in ([2.0, 1.1], [2.0, 1.05], [float("nan"), 1.0]):
        with pytest.raises(Failed, match="trains something else: its losses are"):
            check(losses)
    with pytest.raises(Failed):  # which in bfloat16 alone would pass for rounding
        check([2.0, 1.02], "bfloat16")
    assert check([1.5]) == 0.0  # the mean of the epoch
    assert check([2.0, 1.009], "tf32") > 5e-3  # too much for float32
    with pytest.raises(Failed):
        check([2.0, 1.009])


def test_the_floor_is_a_steps_products() -> None:
    assert products([784, 50, 10], 100) == [
        (100, 784, 50), (784, 100, 50), (100, 50, 10), (50, 100, 10), (100, 10, 50),
    ]  # fmt: skip
    assert sum(2 * m * k * n for m, k, n in products(*NETWORKS["S"])) == 2 * 7_990_000
    assert (
        CONTENDERS["cpu"]["floor numpy"](Case("20-4-3/5").problem())(np.zeros((2, 5), int)).size
        == 0
    )


def test_batches_are_a_shuffled_epoch() -> None:
    rows = batches(Case("S"), 700)
    assert rows.shape == (700, 100)
    assert len(np.unique(rows[:600])) == 60_000
    assert not np.array_equal(rows[600:], rows[:100])
    np.testing.assert_array_equal(batches(Case("S"), 50), rows[:50])


@pytest.mark.parametrize("network", ["X", "10/5", "10-0/5", "10-2", "10-2/0", "10-2/60001"])
def test_a_network_that_cannot_be(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--networks", network]) == 2
    assert f"network {network!r}: expected S, M, L, D, or sizes" in capsys.readouterr().err


# -- Contenders of a GPU, without one --------------------------------------------------


def follows(contender: Contender, case: Case, tolerance: float) -> None:
    """In two calls, for the second goes on from the first."""
    problem = case.problem()
    problem = problem._replace(lr=10 * problem.lr)
    order = batches(case, 24)
    epoch = contender(problem)
    losses = np.concatenate([epoch(order[:8]), epoch(order[8:])])
    np.testing.assert_allclose(losses, reference(problem)(order), rtol=tolerance)


@pytest.fixture
def no_capture(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be captured is called at each replay instead; says what was asked of CUDA."""
    calls: list[str] = []

    def warm_up(call: Callable[[], Any]) -> None:
        calls.append("warm-up")
        call()

    def captured(call: Callable[[], Any]) -> Callable[[], None]:
        calls.append("capture")

        def replay() -> None:
            calls.append("replay")
            call()

        return replay

    monkeypatch.setattr(pytorch_training, "_warm_up", warm_up)
    monkeypatch.setattr(pytorch_training, "_captured", captured)
    monkeypatch.setattr(pytorch_training, "STEPS_PER_GRAPH", 8)
    return calls


@pytest.mark.parametrize(
    ("activation", "optimizer", "precision"),
    [("sigmoid", "sgd", "float32"), ("relu", "adam", "tf32"), ("tanh", "sgd", "bfloat16")],
)
def test_pytorchs_graph_trains_the_same_network(
    no_capture: list[str], activation: str, optimizer: str, precision: str
) -> None:
    """The warm-up leaves no trace; many steps to a graph; the rows come from the order."""
    pytest.importorskip("torch", reason="torch is not installed")
    case = Case("20-8-6-4/10", activation, optimizer, precision=precision)
    follows(pytorch_training.graph, case, 3e-2 if precision == "bfloat16" else 1e-4)
    assert no_capture == ["warm-up", "capture", "replay", "replay", "replay"]
    with pytest.raises(ValueError, match="12 steps: expected up to 8, or a multiple of 8"):
        pytorch_training.graph(case.problem())(batches(case, 12))


def test_the_floor_of_a_gpu_is_captured(
    no_capture: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    products_of, multiply = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, out: products_of.append(multiply(*a, out=out)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: no_capture.append("wait"))
    problem = Case("20-4-3/5", device="meta", precision="bfloat16").problem()
    assert pytorch_training.floor(problem)(np.zeros((16, 5), int)).size == 0
    assert no_capture == ["warm-up", "capture", "replay", "replay", "wait"]
    assert len(products_of) == (pytorch_training.WARM_UPS + 16) * 5
    assert {c.dtype for c in products_of} == {torch.bfloat16}


def test_what_is_compiled_and_captured_trains_the_same_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the compiler: `torch.compile` returns what it is given."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def compile(function: Any = None, *, mode: str) -> Any:
        assert mode == "reduce-overhead"
        return function or (lambda function: function)

    steps: list[None] = []
    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(None))
    for optimizer in ("sgd", "adam"):
        case = Case("20-8-6-4/10", "relu", optimizer)
        follows(pytorch_training._compiled_and_captured, case, 1e-4)
    assert len(steps) == 2 * 24


def test_losses_in_float16_are_scaled() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    case = Case("20-8-6-4/10", "tanh", "sgd", precision="float16")
    follows(pytorch_training.eager, case, 1e-2)
    for contender in (pytorch_training.graph, pytorch_training.compiled):
        with pytest.raises(Skipped, match="float16 needs its losses scaled: use pytorch"):
            contender(case.problem())


def test_a_scan_is_unrolled() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    follows(partial(jax_training.scan, unroll=4), Case("20-8-6-4/10", "tanh"), 1e-4)


def test_a_lane_that_an_opponent_lacks_is_skipped() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    problem = Case("20-4-3/5", device="cuda", precision="bfloat16").problem()
    with pytest.raises(Skipped, match="JAX has no autocast: float32 and tf32 only"):
        jax_training.scan(problem)
    problem = Case("20-4-3/5", precision="float8").problem()
    with pytest.raises(Skipped, match="precision 'float8': expected one of"):
        CONTENDERS["cpu"]["xpnet numpy"](problem)


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker sets variables for its process, which here is that of the tests."""
    for name in ("JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_on_a_gpu_steps_come_in_whole_graphs(
    monkeypatch: pytest.MonkeyPatch, own_environment: None
) -> None:
    asked: list[int] = []

    def contender(problem: Problem) -> Epoch:
        def epoch(order: np.ndarray) -> np.ndarray:
            asked.append(len(order))
            return np.zeros(len(order))

        return epoch

    monkeypatch.setitem(CONTENDERS["cuda"], "counted", contender)
    case = Case("20-4-3/5", device="cuda")
    serve = train_step.serve({"case": asdict(case), "contender": "counted"})
    assert len(serve({"do": "check"})["losses"]) == train_step.CHECKED_STEPS
    prepared = serve({"do": "prepare", "seconds": 1e-5})
    assert asked[1] == STEPS_PER_GRAPH
    assert prepared["steps"] % STEPS_PER_GRAPH == 0
    assert prepared["seconds"] > 0
    assert serve({"do": "time"})["seconds"] > 0
    assert serve({"do": "book"})["seconds"] > 0
    assert asked[-1] == train_step.BOOK_STEPS
    assert all(steps % STEPS_PER_GRAPH == 0 for steps in asked[1:])


def test_a_turn_of_one_step_settles(own_environment: None) -> None:
    serve = train_step.serve({"case": asdict(Case("20-4-3/5")), "contender": "xpnet numpy"})
    assert serve({"do": "prepare", "seconds": 1e-9})["steps"] == 1
    assert serve({"do": "time"})["seconds"] > 0


# -- The commands, tiny ----------------------------------------------------------------


def _without(package: str, folder: Path) -> Path:
    """A folder that hides a package from a new process."""
    hidden = folder / "hidden"
    hidden.mkdir()
    text = f"raise ModuleNotFoundError('hidden', name={package!r})"
    (hidden / f"{package}.py").write_text(text)
    return hidden


def test_train_step_measures_and_skips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not in the worker's process.
    monkeypatch.setitem(CONTENDERS["cpu"], "broken", CONTENDERS["cpu"]["book loop"])
    monkeypatch.setenv("PYTHONPATH", str(_without("sklearn", tmp_path)))
    out = tmp_path / "steps.jsonl"
    words = ["--networks", "12-5-3/4", "--rounds", "2", "--seconds", "0.001", "--out", str(out)]
    only = ["--only", "xpnet numpy", "book loop", "broken", "scikit-learn", "floor numpy"]
    assert train_step.main([*words, *only]) == 1
    printed = capsys.readouterr().out
    assert "broken: FAILED, KeyError: 'broken'" in printed
    assert "scikit-learn: skipped, sklearn is not installed" in printed
    header, measurements = read(out)
    assert header["benchmark"] == "train_step"
    assert header["machine"]["cores"] >= 1
    assert [m["contender"] for m in measurements] == ["xpnet numpy", "book loop", "floor numpy"]
    for m in measurements:
        assert m["case"] == {"network": "12-5-3/4", "activation": "sigmoid", "optimizer": "sgd"}
        assert 0 < m["q1"] <= m["median"] <= m["q3"]
        assert m["samples_per_second"] == pytest.approx(4e6 / m["median"], rel=1e-3)
        row = next(line for line in printed.splitlines() if line.startswith(m["contender"] + "  "))
        # Of five digits in the file, printed with one decimal: both round the same number.
        shown = float(row.removeprefix(m["contender"]).split()[0])
        assert shown == pytest.approx(m["median"], rel=1e-4, abs=0.05001)
    assert measurements[0]["loss_error"] < 1e-5
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert pictures.main([str(out), str(tmp_path)]) == 0
    assert (tmp_path / "train-step-sigmoid-sgd.png").stat().st_size > 5000


class Inside:
    """A worker within this process, that fails when it is told to."""

    def __init__(self, module: str, setup: dict[str, Any], limit: float) -> None:
        self.name = setup["contender"]
        self.serve = train_step.serve(setup)
        self.asked: list[str] = []

    def ready(self) -> Inside:
        return self

    def ask(self, **question: Any) -> dict[str, Any]:
        self.asked.append(question["do"])
        if self.name == "book loop" and self.asked.count("time") == 3:
            raise Failed("gave no answer within 1 s")
        return self.serve(question)

    def kill(self) -> None:
        pass

    stop = kill


def test_what_was_measured_stays(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    own_environment: None,
) -> None:
    """At any moment, in the file; also of a contender that hangs in the midst of the rounds."""
    out, moments = tmp_path / "steps.jsonl", []
    wrote = Recorder.write

    def write(recorder: Recorder) -> None:
        wrote(recorder)
        moments.append(
            [(m["contender"], len(m["values"]), m.get("provisional", False)) for m in read(out)[1]]
        )

    ours = CONTENDERS["cpu"]["xpnet numpy"]

    def unfused(problem: Problem) -> Epoch:
        training = ours(problem)
        assert isinstance(training, Training)
        training.trainer.feed.backend.fallbacks.extend(2 * ["f is not fused: it sums"])
        return training

    monkeypatch.setattr(Recorder, "write", write)
    monkeypatch.setattr(train_step, "Worker", Inside)
    monkeypatch.setattr(train_step, "BASELINE", "book loop")
    monkeypatch.setitem(CONTENDERS["cpu"], "xpnet numpy", unfused)
    words = ["--networks", "12-5-3/4", "--rounds", "3", "--seconds", "0.0001", "--out", str(out)]
    assert train_step.main([*words, "--only", "xpnet numpy", "book loop"]) == 1
    printed = capsys.readouterr().out
    assert "book loop: FAILED, gave no answer within 1 s" in printed
    assert "xpnet numpy is slower than it could be: these functions (1)" in printed
    assert "are not fused\n  f is" in printed
    x, book = "xpnet numpy", "book loop"
    assert moments == [
        [],
        [(x, 1, True)],
        [(x, 1, True), (book, 1, True)],
        [(x, 1, False), (book, 1, True)],
        [(x, 1, False), (book, 1, False)],
        # Here the order is reversed, and the third turn of the loop does not end.
        [(x, 2, False), (book, 1, False)],
        [(x, 3, False), (book, 1, False)],
    ]
    _, (ours_measured, theirs) = read(out)
    assert ours_measured["fallbacks"] == ["f is not fused: it sums"]
    assert "fallbacks" not in theirs
    faster = theirs["values"][0] / ours_measured["values"][0]
    assert ours_measured["times_pytorch"] == pytest.approx(faster, rel=1e-3)


def test_a_step_that_is_not_captured_fails(
    monkeypatch: pytest.MonkeyPatch, own_environment: None
) -> None:
    def contender(problem: Problem) -> Epoch:
        def epoch(order: np.ndarray) -> np.ndarray:
            warnings.warn("cannot capture this step", NotCapturedWarning, stacklevel=2)
            return np.zeros(len(order))

        return epoch

    monkeypatch.setitem(CONTENDERS["cuda"], "refused", contender)
    setup = {"case": asdict(Case("20-4-3/5", device="cuda")), "contender": "refused"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest's own filter would raise it, too
        serve = train_step.serve(setup)
        with pytest.raises(NotCapturedWarning, match="cannot capture this step"):
            serve({"do": "check"})


def impatient(monkeypatch: pytest.MonkeyPatch, command: types.ModuleType, name: str) -> set[float]:
    """Who hangs is given up at once; returns the limits that the command asked for."""
    limits = set()

    class Impatient(Worker):
        def __init__(self, module: str, setup: dict[str, Any], limit: float) -> None:
            limits.add(limit)
            super().__init__(module, setup, 0.5 if name in setup.values() else limit)

    monkeypatch.setattr(command, "Worker", Impatient)
    return limits


def test_a_contender_that_hangs_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging").mkdir()
    (tmp_path / "hanging" / "sklearn.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "hanging"), str(ROOT)]))
    out = tmp_path / "steps.jsonl"
    words = ["--networks", "12-5-3/4", "--rounds", "2", "--seconds", "0.001", "--out", str(out)]
    only = ["--only", "scikit-learn", "xpnet numpy", "book loop", "--limit", "300"]
    limits = impatient(monkeypatch, train_step, "scikit-learn")
    assert train_step.main([*words, *only]) == 1
    assert limits == {300.0}
    assert "scikit-learn: FAILED, gave no answer within 0.5 s" in capsys.readouterr().out
    assert [(m["contender"], len(m["values"])) for m in read(out)[1]] == [
        ("xpnet numpy", 2), ("book loop", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_train_step_ends_in_an_orderly_way(number: signal.Signals, tmp_path: Path) -> None:
    """The signal reaches its workers, too, as from `timeout` and Ctrl-C."""
    out = tmp_path / "steps.jsonl"
    words = ["--networks", "12-5-3/4", "--rounds", "100000", "--seconds", "0.001"]
    command = [sys.executable, "-m", "benchmarks.train_step", *words, "--out", str(out), "--only"]
    with subprocess.Popen(
        [*command, "xpnet numpy", "book loop"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=ROOT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        began = time.monotonic()
        while time.monotonic() - began < 60:
            if out.exists() and sum(len(m["values"]) for m in read(out)[1]) > 6:
                break
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = [int(pid) for pid in children.read_text().split()]
        os.killpg(process.pid, number)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed
    assert f"interrupted by {number.name}" in printed
    assert f"wrote {out}: 2 measurements so far" in printed
    assert "FAILED" not in printed
    assert len(workers) == 2
    assert all(map(gone, workers))
    a, b = (m["values"] for m in read(out)[1])
    assert min(len(a), len(b)) >= 3
    assert abs(len(a) - len(b)) <= 1


def test_a_second_signal_does_not_break_off_the_clean_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[str] = []

    @orderly
    def main(args: Any = None) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:  # an interrupt is no error
            done.append("caught")
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append("cleaned up")
        return 0

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert main() == 143
    assert done == ["cleaned up"]
    assert capsys.readouterr().out == "interrupted by SIGTERM\n"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_only_the_warning_of_the_setting_is_silenced() -> None:
    class Matmul:
        text = "Please use the new API settings to control TF32 behavior, such as ..."

        def __setattr__(self, name: str, value: bool) -> None:
            warnings.warn(self.text, UserWarning, stacklevel=2)
            self.__dict__[name] = value

    matmul, cudnn = Matmul(), types.SimpleNamespace()
    torch = types.SimpleNamespace(
        backends=types.SimpleNamespace(cuda=types.SimpleNamespace(matmul=matmul), cudnn=cudnn)
    )
    pytorch_training.allow_tf32(torch, True)
    assert matmul.__dict__ == vars(cudnn) == {"allow_tf32": True}
    Matmul.text = "something else"
    with pytest.warns(UserWarning, match="something else"):
        pytorch_training.allow_tf32(torch, False)


def test_mnist_keeps_the_runs_that_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = tmp_path / "deep" / "mnist.json", []

    def run(options: str, arguments: mnist.Arguments) -> dict[str, Any]:
        kept.append(len(json.loads(out.read_text())["runs"]) if out.exists() else 0)
        if len(kept) == 2:
            raise mnist.RunFailed(5, "xpnet.train ended with status 5")
        return {"test_accuracy": 0.99, "wall_seconds": 1.0, "peak_resident_mib": 1}

    monkeypatch.setattr(mnist, "run", run)
    assert mnist.main(["--out", str(out)]) == 5
    assert kept == [0, 1, 1]
    assert list(json.loads(out.read_text())["runs"]) == [mnist.RUNS[0][0], mnist.RUNS[2][0]]
    assert f"{mnist.RUNS[1][0]}: xpnet.train ended with status 5" in capsys.readouterr().err


def test_train_step_refuses_an_unknown_contender(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--only", "keras"]) == 2
    assert "--only keras: expected some of xpnet numpy" in capsys.readouterr().err


def test_precisions_are_a_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--precisions", "float32", "tf32"]) == 2
    message = capsys.readouterr().err
    assert "--precisions tf32: expected float32 on the CPU" in message
    assert "use --device cuda" in message
    assert train_step.main(["--device", "cuda", "--only", "book loop"]) == 2
    assert "--only book loop: expected some of xpnet cupy" in capsys.readouterr().err


def test_without_a_gpu_every_contender_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    only = ("xpnet cupy", "pytorch graph", "jax scan", "floor torch")
    words = ["--networks", "12-5-3/4", "--device", "cuda", "--precisions", "float32"]
    assert train_step.main([*words, "--only", *only]) == 3
    printed = capsys.readouterr()
    assert "no contender is left" in printed.err
    assert "12-5-3 batch 4, sigmoid, SGD, float32 on cuda" in printed.out
    assert "products: 0.0 MFLOP a step, 0.00 MB" in printed.out
    for name in only:
        assert f"{name}: skipped, " in printed.out


def test_mnist_picks_the_devices_library() -> None:
    assert mnist.backend_of(mnist.Arguments()) == "numpy"
    assert mnist.backend_of(mnist.Arguments(device="cuda")) == "cupy"
    assert mnist.backend_of(mnist.Arguments(device="cuda", backend="torch")) == "torch"


def test_matmul_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out = tmp_path / "products.jsonl"
    assert (
        matmul.main(
            ["--quick", "--sizes", "8", "16", "--batches", "1", "3", "--dtypes", "float32",
             "--libraries", "numpy", "cupy", "--rounds", "2", "--seconds", "0.0005",
             "--out", str(out), "--pictures", str(tmp_path)]
        )
        == 0
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "cupy cpu: skipped" in printed
    assert "numpy cuda: skipped" in printed
    header, measurements = read(out)
    assert len(measurements) == 4
    for m in measurements:
        case = m["case"]
        flops = 2 * case["batch"] * case["m"] * case["k"] * case["n"]
        assert m["gflops"] == pytest.approx(flops / m["median"] / 1e3, rel=1e-3)
        best = header["ceilings"]["cpu"]
        assert m["share_of_ceiling"] == pytest.approx(m["gflops"] / best["float32"], rel=1e-3)
        assert m["error"] < 1e-5
        assert m["times_baseline"] == 1.0
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"throughput-float32.png", "heat-map-float32.png", "roofline-cpu.png"}


def test_matmul_goes_on_without_who_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    (hanging / "torch.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hanging), str(ROOT)]))
    out = tmp_path / "products.jsonl"
    words = ["--quick", "--sizes", "8", "--batches", "1", "--dtypes", "float32", "--rounds", "2"]
    words += ["--seconds", "0.0005", "--limit", "300", "--devices", "cpu", "--out", str(out)]
    limits = impatient(monkeypatch, matmul, "torch")
    assert matmul.main([*words, "--libraries", "torch", "numpy"]) == 1
    assert limits == {300.0}
    assert "torch cpu: FAILED, gave no answer within 0.5 s" in capsys.readouterr().out
    assert [(m["contender"], len(m["values"])) for m in read(out)[1]] == [("numpy cpu", 2)]


def test_products_of_a_library_that_ends_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ending:
        """Answers, the third time that it is asked for a turn no longer."""

        def __init__(self, last: int) -> None:
            self.turns, self.last = 0, last

        def ask(self, do: str, **question: Any) -> dict[str, Any]:
            if do == "prepare":
                return {"error": 0.0, "calls": 1, "copies": 1}
            self.turns += 1
            if self.turns > self.last:
                raise Failed("its process ended: Killed")
            return {"seconds": float(self.turns)}

    workers: Any = {"numpy cpu": Ending(9), "torch cpu": Ending(2)}
    arguments = matmul.Arguments(rounds=3, dtypes=("float32",))
    recorder = Recorder({"benchmark": "matmul", "machine": {}}, tmp_path / "r.jsonl")
    point = Point("square", 1, 2, 2, 2)
    # No limit is known of this lane: then no share of it.
    found, failed = matmul.measure(point, "float32", workers, arguments, {"cpu": {}}, recorder)
    assert failed == ["torch cpu float32 1x 2x2x2"]
    assert [m["values"] for m in found] == [[1e6, 2e6, 3e6], [1e6, 2e6]]
    assert [m["times_baseline"] for m in found] == [1.0, 1.0]
    assert [m["values"] for m in read(tmp_path / "r.jsonl")[1]] == [m["values"] for m in found]
    assert matmul.row(found[0]).split()[-2:] == ["-", "1.00"]
    assert "FAILED, its process ended: Killed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shapes", "3x4"], "--shapes 3x4: expected MxKxN"),
        (["--shapes", "3x4x0"], "--shapes 3x4x0: expected MxKxN"),
        (["--quick", "--full"], "--quick and --full: expected at most one"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
        (["--sizes", "8", "0"], "--sizes 0: expected 1 or more"),
        (["--seconds", "0"], "--seconds 0.0: expected more than 0"),
        (["--broadcast"], "--broadcast needs --sizes or --shapes"),
        (["--broadcast", "--sizes", "8"], "--broadcast needs --batches of 2 or more"),
        (["--baseline", "numpy"], "--baseline 'numpy': expected one of numpy cpu, numpy cuda"),
    ],
)
def test_matmul_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matmul.main(words) == 2
    assert message in capsys.readouterr().err


def test_growth_measures_slopes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert growth.slope(x, [9.0, 9.0, *(3 * v**1.5 for v in x[2:])]) == pytest.approx(1.5)
    assert growth.verdict(1.1, 1.0) == "1.10 (expected 1)"
    assert growth.verdict(1.5, 1.0) == "1.50 (expected 1, STEEPER)"
    out = tmp_path / "growth.jsonl"
    words = ["--quick", "--axes", "batch", "start", "--rounds", "1", "--seconds", "0.001"]
    assert growth.main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "slope of memory" in printed
    assert "import xpnet" in printed
    _, measurements = read(out)
    assert [m["case"].get("value") for m in measurements[:3]] == [16, 64, 256]
    assert measurements[2]["peak_mib"] > 0


# -- The GPU's one command -------------------------------------------------------------

SCRIPT = Path(train_step.__file__).with_name("gpu.sh")


def gpu_script(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        [str(SCRIPT), *words], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_the_gpus_command_goes_through(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    found = gpu_script("--dry-run", str(tmp_path / "out"))
    assert found.returncode == 0, found.stdout + found.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    step = "train_step-float32-12-5-3-4"
    assert names >= {"environment.txt", "train.txt", "tests.txt", "matmul.jsonl", "summary.txt"}
    assert names >= {f"{step}.jsonl", "train_step-compile-12-5-3-4.jsonl"}
    assert names >= {"many.jsonl", "convolution.jsonl"}
    assert (tmp_path / "out" / step / "train-step-sigmoid-sgd.png").exists()
    table = (tmp_path / "out" / "summary.txt").read_text()
    assert found.stdout.endswith(table)
    assert re.search(r"^12-5-3/4 float32  sigmoid sgd  xpnet numpy +\d", table, re.MULTILINE)


def test_the_gpus_command_says_its_four_calls() -> None:
    printed = gpu_script("--help").stdout
    assert "gpu.sh --stages train,probe,tests --deadline 140" in printed
    assert "gpu.sh --stages environment,many --deadline 130" in printed
    assert "gpu.sh --stages environment,convolution --deadline 130" in printed
    text = SCRIPT.read_text()
    known = re.search(r"^known=(\S+)", text, re.MULTILINE)
    assert known is not None
    assert known[1].split(",")[1:5] == ["train", "probe", "tests", "many"]
    for stage in known[1].split(","):
        assert re.search(rf"\b(stage|steps|with_data) {stage}\b", text), stage
        assert re.search(rf"\b{stage}\b", printed), stage
    assert text.index("steps compile") > text.index("stage pictures")
    # bash 5.2 cannot parse a trap while it waits for a command substitution.
    after = text.split("trap 'interrupted INT 2' INT")[1]
    own = re.sub(r"^pictures\(\) \{.*?^\}", "", after, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\$\((?!\().*|`.*|<\(.*", own) == []


def results_in(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.name: read(path)[1] for path in folder.glob("*.jsonl")}


# Becomes another program, which heeds SIGINT: who runs the tests in the background may have it
# ignored. Not a preexec_fn, which would fork: JAX warns of that.
HEEDING = """if True:
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_gpus_command_loses_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """At some moment after the first measurement."""
    out, archive = tmp_path / "out", tmp_path / "deep" / "out.tgz"
    words = ["--dry-run", "--stages", "float32,matmul,compile", "--out-archive", str(archive)]
    with subprocess.Popen(
        [sys.executable, "-c", HEEDING, str(SCRIPT), *words, str(out)],
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not any(results_in(out).values()):
            time.sleep(0.01)
        time.sleep(2.0 * random.Random(int(number)).random())
        before = results_in(out)
        process.send_signal(number)
        began = time.monotonic()
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed
    assert time.monotonic() - began < 10  # it promises 5, on a machine that others do not use
    assert f"INTERRUPTED by {number.name} after" in printed
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "kept", filter="data")
    kept = results_in(tmp_path / "kept" / "out")
    assert kept == results_in(out)
    assert any(before.values())
    for name, measurements in before.items():
        assert len(kept[name]) >= len(measurements)
    assert "us/step" in (tmp_path / "kept" / "out" / "summary.txt").read_text()
    assert "us/step" in printed
    assert list(archive.parent.iterdir()) == [archive]


def test_the_gpus_command_keeps_its_deadline(tmp_path: Path) -> None:
    found = gpu_script("--dry-run", "--deadline", "0", "--stages", "tests,matmul", str(tmp_path))
    assert "tests: LEFT OUT, it needs some 1 s" in found.stdout
    assert "matmul: LEFT OUT" in found.stdout
    assert "environment" not in found.stdout
    assert found.returncode == 1  # for then there is nothing to report
    assert "no train_step-*.jsonl, many*.jsonl, convolution*.jsonl, matmul.jsonl," in found.stdout


def test_the_gpus_command_goes_on_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "matmul.jsonl").write_text("{}\n")
    found = gpu_script("--dry-run", "--stages", "environment,pictures", str(tmp_path / "out"))
    assert "environment: done" in found.stdout
    assert "pictures: FAILED" in found.stdout
    assert "line 1: expected an object with 'benchmark'" in found.stdout
    assert found.returncode == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fast"], "--fast: expected --dry-run, --deadline"),
        (["--out-archive"], "--out-archive: expected a value"),
        (["--deadline", "soon"], "--deadline soon: expected seconds"),
        (["--stages", "float8"], "--stages float8: expected environment, train, probe, tests"),
        (["--wheels", "/nowhere"], "--wheels /nowhere: expected a folder"),
        (["--wheels"], "--wheels: expected a value"),
    ],
)
def test_the_gpus_command_refuses(words: list[str], message: str) -> None:
    found = gpu_script(*words)
    assert found.returncode == 2
    assert message in found.stderr


def made_up(path: Path, network: str, precision: str, **medians: float) -> None:
    """A file of train_step, on a GPU, in three rounds."""
    machine = {
        "gpu": {"name": "Some GPU", "driver": "1.2", "memory": "1"}, "date": "2026-01-02",
        "versions": {"numpy": "9", "torch": "8"}, "cpu": "c", "cores": 1,
    }  # fmt: skip
    lines: list[dict[str, Any]] = [{"benchmark": "train_step", "machine": machine}]
    for name, median in medians.items():
        case = {
            "network": network, "activation": "sigmoid", "optimizer": "sgd", "device": "cuda",
            "precision": precision,
        }  # fmt: skip
        m = {"case": case, "contender": name.replace("_", " "), "unit": "us/step"}
        m |= {"q1": median, "median": median, "q3": median, "values": 3 * [median]}
        m["times_pytorch"] = medians.get("pytorch_eager", median) / median
        if network == "S" and name == "xpnet_cupy":
            m |= {"first_seconds": 1.5, "book_seconds": 0.25}
        lines.append(m)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_report_holds_targets_against_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"xpnet_cupy": 25.0, "xpnet_cupy_unfused": 41.0}
    times |= {"pytorch_eager": 200.0, "jax_scan": 26.0}
    made_up(tmp_path / "train_step-float32-S.jsonl", "S", "float32", **times)
    # Another run, on a slower day: its ratio counts, our time in it does not.
    late = {"xpnet_cupy": 50.0, "pytorch_compile": 60.0}
    made_up(tmp_path / "train_step-compile-S.jsonl", "S", "float32", **late)
    again = {**times, "jax_scan_unroll_4": 20.0}
    made_up(tmp_path / "train_step-tf32-S.jsonl", "S", "tf32", **again)
    products = {"xpnet_cupy": 105.0, "floor_torch": 100.0}
    made_up(tmp_path / "train_step-float32-L.jsonl", "L", "float32", **products)
    run = {"test_accuracy": 0.95, "train_seconds": 0.5, "wall_seconds": 3.0}
    (tmp_path / "mnist.json").write_text(json.dumps({"runs": {"book": run}}))
    assert gpu_report.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert len(printed) < 10_000
    lines = [line.split() for line in printed.splitlines()]
    assert printed.startswith("Some GPU, driver 1.2; torch 8; 2026-01-02\n")
    assert "MNIST, book: 95.00 %, 0.50 s of training, 3.0 s from start to end" in printed
    assert ["S", "float32", "sigmoid", "sgd", "xpnet", "cupy", "25.0", "8.00", "x"] in lines
    for line in (
        "S, us a step, xpnet cupy <= 40 25.0 yes",
        "S, times as fast as pytorch eager >= 5 8.00 yes",
        "S, times as fast as pytorch compile >= 1.5 1.20 NO",
        "S, times as fast as jax scan >= 1 1.04 yes",
        "S, times as fast as jax scan unroll 4 >= 1 0.80 NO",  # the faster of the two
        "L, over its bare products <= 1.25 1.05 yes",
        "S, first calls: compile, capture, run < 3 s 1.50 s yes",
        "a book training, 10,000 steps of S < 1 s 0.25 s yes",
    ):
        assert line.split() in lines, line
    # A compiled opponent is of one run only.
    assert sum("times as fast as pytorch compile" in line for line in printed.splitlines()) == 1
    # What was broken off before its rounds is said.
    path = tmp_path / "train_step-float32-L.jsonl"
    path.write_text(
        path.read_text().replace('"median": 105.0', '"provisional": 1, "median": 105.0')
    )
    assert gpu_report.main([str(tmp_path)]) == 0
    marked = [x for x in capsys.readouterr().out.splitlines() if "before the rounds" in x]
    assert len(marked) == 1
    assert "xpnet cupy" in marked[0]
    assert "105.0" in marked[0]
    # And the pictures tell the lanes apart.
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pictures.draw(tmp_path / "train_step-tf32-S.jsonl", tmp_path)
    assert (tmp_path / "train-step-cuda-tf32-sigmoid-sgd.png").exists()


def test_the_report_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main([str(tmp_path)]) == 2
    assert "no train_step-*.jsonl" in capsys.readouterr().err


def test_results_without_a_device_are_the_cpus(tmp_path: Path) -> None:
    made_up(tmp_path / "gpu.jsonl", "S", "float32", pytorch_eager=2.0)
    _, on_gpu = read(tmp_path / "gpu.jsonl")
    _, on_cpu = read(newest("train_step"))
    assert readme.steps(on_gpu, "sigmoid", "sgd") == {}
    found = readme.steps(on_cpu + on_gpu, "sigmoid", "sgd")
    assert found["S", "pytorch eager"]["median"] > 100
    found = readme.steps(on_cpu + on_gpu, "sigmoid", "sgd", "cuda")
    assert list(found) == [("S", "pytorch eager")]


# -- Products --------------------------------------------------------------------------


def test_points_count_flops_and_bytes() -> None:
    point = Point("square", 3, 4, 5, 6)
    assert point.shapes == ((3, 4, 5), (3, 5, 6))
    assert point.flops == 2 * 3 * 4 * 5 * 6
    assert point.bytes("float32") == 4 * 3 * (4 * 5 + 5 * 6 + 4 * 6)
    shared = point._replace(kind="broadcast")
    assert shared.shapes == ((3, 4, 5), (5, 6))
    assert shared.bytes("bfloat16") == 2 * (3 * 4 * 5 + 5 * 6 + 3 * 4 * 6)
    assert point._replace(batch=1).shapes == ((4, 5), (5, 6))


def cublas_on_numpy(memory: dict[int, np.ndarray], codes: list[tuple[int, int]]) -> Any:
    """cublasGemmStridedBatchedEx, column-major, on host memory: a second implementation."""

    def gemm(handle, ta, tb, m, n, k, alpha, A, Acode, lda, sA, B, Bcode, ldb, sB,
             beta, C, Ccode, ldc, sC, batch, compute, algo):  # type: ignore[no-untyped-def] # fmt: skip
        assert (ta, tb, algo) == (0, 0, -1)
        assert Acode == Bcode == Ccode
        codes.append((Acode, compute))
        dtype = {0: np.float32, 1: np.float64, 2: np.float16, 14: np.float16}[Acode]
        scalar = np.float64 if compute == 70 else np.float32
        values = [np.ctypeslib.as_array(ctypes.cast(p, ctypes.POINTER(
            ctypes.c_double if scalar is np.float64 else ctypes.c_float)), (1,))[0]
            for p in (alpha, beta)]  # fmt: skip
        assert values == [1.0, 0.0]

        def flat(pointer: int) -> np.ndarray:
            return memory[pointer].reshape(-1)

        for i in range(batch):
            a = np.lib.stride_tricks.as_strided(
                flat(A)[i * sA :], (m, k), (dtype().itemsize, lda * dtype().itemsize)
            )
            b = np.lib.stride_tricks.as_strided(
                flat(B)[i * sB :], (k, n), (dtype().itemsize, ldb * dtype().itemsize)
            )
            c = np.lib.stride_tricks.as_strided(
                flat(C)[i * sC :], (m, n), (dtype().itemsize, ldc * dtype().itemsize)
            )
            c[...] = a @ b

    return types.SimpleNamespace(gemmStridedBatchedEx=gemm)


# cudaDataType and cublasComputeType_t, from NVIDIA's headers: CUDA_R_32F = 0, _64F = 1, _16F = 2,
# _16BF = 14; COMPUTE_32F = 68, _64F = 70, _32F_FAST_TF32 = 77.
CODES = {
    "float32": (0, 68),
    "float64": (1, 70),
    "tf32": (0, 77),
    "float16": (2, 68),
    "bfloat16": (14, 68),  # NumPy has no bfloat16: two bytes of another kind stand for it
}


@pytest.mark.parametrize("lane", CODES)
@pytest.mark.parametrize(
    "point",
    [Point("square", 3, 4, 5, 6), Point("broadcast", 3, 4, 5, 6), Point("skinny", 1, 4, 5, 6)],
    ids=lambda p: p.kind,
)  # fmt: skip
def test_the_direct_cublas_call_is_a_row_major_product(
    monkeypatch: pytest.MonkeyPatch, lane: str, point: Point
) -> None:
    """No GPU here: the arguments are held against the routine's own definition."""
    memory: dict[int, np.ndarray] = {}

    class Array(np.ndarray):
        @property
        def data(self) -> Any:  # type: ignore[override]
            memory[self.ctypes.data] = np.asarray(self)
            return types.SimpleNamespace(ptr=self.ctypes.data)

    dtype = {"float64": np.float64, "float16": np.float16, "bfloat16": np.float16}.get(
        lane, np.float32
    )
    codes: list[tuple[int, int]] = []
    fake = types.SimpleNamespace(
        empty=lambda shape, dtype: np.empty(shape, dtype).view(Array),
        cuda=types.SimpleNamespace(device=types.SimpleNamespace(get_cublas_handle=lambda: 1)),
    )
    product = Product(lambda a: a, np.matmul, lambda c: c, lambda call, calls: 0.0)
    monkeypatch.setattr("benchmarks.products._cupy_arrays", lambda *a: (fake, product))
    libs = types.ModuleType("cupy_backends.cuda.libs")
    libs.cublas = cublas_on_numpy(memory, codes)  # type: ignore[attr-defined]
    for name in ("cupy_backends", "cupy_backends.cuda"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", libs)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(dtype).view(Array) for s in point.shapes)
    c = LIBRARIES["cublas"]("cuda", lane).multiply(a, b)
    assert codes == [CODES[lane]]
    tolerance = 2e-2 if dtype is np.float16 else 1e-5
    expected = np.asarray(a) @ np.asarray(b)
    np.testing.assert_allclose(np.asarray(c), expected, rtol=tolerance, atol=tolerance)


# -- Workers and files -----------------------------------------------------------------


def test_a_worker_that_cannot_start_is_skipped_with_the_reason() -> None:
    with pytest.raises(Failed, match="ModuleNotFoundError: No module named 'no_such_module'"):
        Worker("no_such_module", {}).ready()
    with pytest.raises(Skipped, match="float32 and float64 on the CPU only"):
        Worker("benchmarks.products", {"library": "numpy", "device": "cuda"}).ready()


def test_a_worker_that_dies_gives_its_last_words() -> None:
    worker = Worker("benchmarks.products", {"library": "numpy", "device": "cpu"}).ready()
    with pytest.raises(Failed, match="KeyError: 'lane'"):
        worker.ask(do="prepare", rotate=0)
    assert "numpy" in worker.ask(do="about")["about"]  # and it goes on
    worker.stop()


def test_what_a_library_prints_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os\nos.write(1, b'chatter\\n')\ndef serve(setup):\n    print('more')\n"
    (tmp_path / "chatty.py").write_text(code + "    return lambda question: {'n': 1}\n")
    (tmp_path / "dying.py").write_text("import os\nos.write(2, b'last words\\n')\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker("chatty", {}).ready()
    assert worker.ask(do="x") == {"n": 1}
    worker.stop()
    with pytest.raises(Failed, match="its process ended: last words"):
        Worker("dying", {}).ready()


def gone(pid: int) -> bool:
    """Whether a process ends, within ten seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = "import os, time\ndef serve(setup):\n    time.sleep(setup['begin'])\n"
    serve += "    return lambda q: time.sleep(q['seconds']) or {'pid': os.getpid()}\n"
    (tmp_path / "hanging.py").write_text(serve)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    with pytest.raises(Failed, match=r"gave no answer within 0\.5 s"):
        Worker("hanging", {"begin": 600}, 0.5).ready()
    worker = Worker("hanging", {"begin": 0}, 300.0).ready()
    pid = worker.ask(seconds=0)["pid"]
    assert worker.alive
    worker._limit = 0.2
    with pytest.raises(Failed, match=r'within 0\.2 s, in File "\S+hanging\.py", line 4 in'):
        worker.ask(seconds=600)
    assert not worker.alive
    assert gone(pid)
    with pytest.raises(Failed, match="its process ended"):  # asked again, it says so
        worker.ask(seconds=0)
    worker.stop()
    with pytest.raises(Failed, match="it was stopped"):
        worker.ask(seconds=0)


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Even if that was killed, and the worker hangs."""
    serve = "import os, time\ndef serve(setup):\n    return lambda q: time.sleep(600)\n"
    (tmp_path / "hanging.py").write_text(serve)
    code = "import os, signal\nfrom benchmarks.worker import Worker\n"
    code += "worker = Worker('hanging', {}).ready()\nworker._put({})\n"
    code += "print(worker._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == -signal.SIGKILL, found.stderr
    assert gone(int(found.stdout))


def test_results_are_written_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.jsonl"
    with recording("growth", path, backend="numpy") as recorder:
        times = {"q1": 1.0, "median": 1.23456789, "q3": 2.0, "values": [1.0]}
        assert read(path)[1] == []
        one = {"case": {"a": 1}, "contender": "x", "unit": "us", **times}
        recorder.put(one, {**one, "contender": "y"})
        assert [m["contender"] for m in read(path)[1]] == ["x", "y"]  # broken off here, it is kept
        recorder.put({**one, "values": [1.0, 2.0]})  # in its place
        assert [m["values"] for m in read(path)[1]] == [[1.0, 2.0], [1.0]]
    header, measurements = read(path)
    assert header["backend"] == "numpy"
    assert header["machine"]["versions"]["numpy"] == np.__version__
    assert measurements[0]["median"] == 1.2346
    assert list(path.parent.iterdir()) == [path]
    path.write_text('{"benchmark": "x", "machine": {}}\n{"median": 1\n')
    with pytest.raises(ValueError, match=r"r.jsonl, line 2: not JSON"):
        read(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"line 1: expected an object with 'benchmark'"):
        read(path)


def test_the_machine_is_in_every_record() -> None:
    record = machine.record()
    assert record["cpu"]
    assert record["memory_gib"] > 0
    assert record["versions"]["numpy"] == np.__version__
    json.dumps(record)


# -- Comparing -------------------------------------------------------------------------


def written(path: Path, kind: str = "train_step", **times: tuple[float, float, float]) -> str:
    lines: list[dict[str, Any]] = [{"benchmark": kind, "machine": {}}]
    for name, (q1, median, q3) in times.items():
        case = {"network": "S"}
        quarter = {"q1": q1, "median": median, "q3": q3, "values": [q1, median, q3]}
        lines.append({"case": case, "contender": name, "unit": "us", **quarter})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_compare_says_what_got_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(
        tmp_path / "a", one=(9, 10, 11), two=(9, 10, 11), three=(90, 100, 101), four=(9, 10, 11)
    )
    b = written(
        tmp_path / "b",
        one=(19, 20, 21),
        two=(10, 12, 14),
        three=(50, 50, 50),
        four=(11.1, 11.2, 12),
    )
    assert compare.main([a, b, "--threshold", "0.15"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["slower", "2.00"]
    assert lines[1].split()[:2] == ["faster", "0.50"]
    assert lines[-1].startswith("4 compared: 1 slower, 1 faster, 2 within noise")
    assert compare.main([b, b]) == 0


def test_compare_relative_to_a_contender(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that is twice as slow: nothing changed but `one`."""
    a = written(tmp_path / "a", base=(10, 10, 10), one=(5, 5, 5), two=(7, 7, 7))
    b = written(tmp_path / "b", base=(20, 20, 20), one=(15, 15, 15), two=(14, 14, 14))
    assert compare.main([a, b, "--relative-to", "base"]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split()[:2] == ["slower", "1.50"]
    assert "3 compared: 1 slower, 0 faster, 2 within noise" in printed
    assert "0.5 -> 0.75      x " in printed


def test_compare_says_what_only_one_file_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = written(tmp_path / "a", one=(5, 5, 5), two=(7, 7, 7))
    b = written(tmp_path / "b", one=(5, 5, 5))
    assert compare.main([a, b]) == 0
    assert f"only in {a}: two: S" in capsys.readouterr().out


def test_compare_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a", one=(1, 1, 1))
    for other, message in (
        (written(tmp_path / "b", "matmul", one=(1, 1, 1)), "expected one benchmark"),
        (written(tmp_path / "c", two=(1, 1, 1)), "have no case in common"),
        (str(tmp_path / "none"), "No such file"),
    ):
        assert compare.main([a, other]) == 2
        assert message in capsys.readouterr().err
    assert compare.main([a, a, "--relative-to", "three"]) == 2
    assert "has no contender 'three'" in capsys.readouterr().err


def test_what_a_signal_raises_is_not_lost_in_a_finalizer() -> None:
    """There Python ignores every exception."""

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler runs here

    @interrupts.orderly
    def main(args: Any = None) -> int:
        Finalized()
        time.sleep(20)
        return 0

    began = time.monotonic()
    assert main([]) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 10
