"""The benchmark of many networks: all train the same, a time is a model-step's, each part once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu_report, many, pictures, readme
from benchmarks.many import alone_of, verdicts
from benchmarks.many_contenders import (
    ALONE,
    CONTENDERS,
    STACKS,
    at_once,
    batches,
    many_problem,
    reference,
)
from benchmarks.problems import Case
from benchmarks.results import Measurement, read
from benchmarks.train_step import CHECKED_STEPS
from benchmarks.worker import Skipped

STEPS, MODELS = 6, 3


def library_of(contender: str) -> str:
    words = contender.split()
    return words[1] if words[0] == "xpnet" else {"by": "numpy"}.get(words[0], words[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", list(CONTENDERS["cpu"]))
def test_every_contender_trains_the_same_networks(
    name: str, optimizer: Any, request: pytest.FixtureRequest
) -> None:
    if library_of(name) != "numpy":
        pytest.importorskip(library_of(name), reason=f"{library_of(name)} is not installed")
    problem = Case("12-5-3/4", optimizer=optimizer).problem()
    lot = many_problem(problem, MODELS)
    order = batches(problem, MODELS, STEPS)
    expected = reference(lot)(order)
    assert expected.shape == (STEPS, MODELS)
    trained = ALONE.get(name, MODELS)
    losses = CONTENDERS["cpu"][name](lot)(order[:, :trained])
    np.testing.assert_allclose(losses, expected[:, :trained], rtol=2e-5)
    # Rates, weights and batches are each model's own.
    same = lot._replace(lrs=np.full(MODELS, lot.lrs[0]))
    assert np.all(reference(same)(order)[-1, 1:] != expected[-1, 1:])


def test_one_model_makes_no_halves() -> None:
    lot = many_problem(Case("12-5-3/4").problem(), 1)
    with pytest.raises(Skipped, match="two halves"):
        CONTENDERS["cpu"]["xpnet numpy two processes"](lot)


def test_a_stack_is_as_large_as_xpnet_makes_it() -> None:
    problem = Case("784-1024-10/256").problem()
    lot = many_problem(Case("12-5-3/4").problem(), 8)._replace(problem=problem)
    assert at_once(lot, "numpy") == 1
    assert at_once(many_problem(Case("12-5-3/4").problem(), 8), "numpy") == 8


def test_contenders_know_who_trains_the_same_alone() -> None:
    for device in CONTENDERS:
        for name in CONTENDERS[device]:
            alone = alone_of(name)
            assert alone in ALONE
            assert library_of(alone) == library_of(name)
    assert set(STACKS) <= {name for names in CONTENDERS.values() for name in names}


def test_many_measures_draws_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "many.jsonl"
    words = ["--networks", "12-5-3/4", "--models", "2", "1", "--rounds", "2"]
    words += ["--seconds", "0.001", "--clock", "cpu", "--out", str(out), "--only", "xpnet numpy"]
    assert many.main([*words, "xpnet numpy one by one", "by hand"]) == 0
    printed = capsys.readouterr().out
    assert "12-5-3 batch 4, sigmoid, SGD: 2 models\n" in printed
    header, measurements = read(out)
    assert header["benchmark"] == "many"
    assert len(measurements) == 6
    for m in measurements:
        assert m["case"]["network"] == "12-5-3/4"
        assert m["unit"] == "us/model-step"
        assert len(m["values"]) == 2
        assert 0 < m["loss_error"] < 1e-4
        assert "provisional" not in m
        assert (m["contender"] == "xpnet numpy") == ("at_once" in m)
    found = {(m["case"]["models"], m["contender"]): m for m in measurements}
    assert found[2, "xpnet numpy"]["at_once"] == 2
    assert found[1, "xpnet numpy"]["at_once"] == 1
    alone, ours = (found[2, f"xpnet numpy{more}"]["values"] for more in (" one by one", ""))
    ratios = [a / b for a, b in zip(alone, ours, strict=True)]
    assert found[2, "xpnet numpy"]["times_alone"] == pytest.approx(np.median(ratios), rel=1e-3)
    assert gpu_report.main([str(tmp_path)]) == 0
    assert "many: 12-5-3/4 sgd, 2 models" in capsys.readouterr().out
    assert readme.many_table(measurements)[0] == "| 12-5-3/4, µs a model-step | 1 | 2 |"
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert [path.name for path in pictures.draw(out, tmp_path)] == ["many-sgd.png"]


def made_up(network: str, models: int, device: str | None = None, **us: float) -> list[Measurement]:
    case = {"network": network, "activation": "sigmoid", "optimizer": "sgd"}
    case |= {"device": device, "precision": "float32"} if device else {}
    found = []
    for word, value in us.items():
        name = word.replace("_", " ")
        m: Measurement = {"case": {**case, "models": models}, "contender": name}
        m |= {"unit": "us/model-step", "median": value, "values": 3 * [value]}
        if alone_of(name).replace(" ", "_") in us:
            m["times_alone"] = us[alone_of(name).replace(" ", "_")] / value
        found.append(m)
    return found


def test_what_was_asked_is_held_against_what_was_measured() -> None:
    small = made_up("20-32-2/32", 16, xpnet_numpy=10.0, xpnet_numpy_one_by_one=79.0)
    few = made_up("20-32-2/32", 4, xpnet_numpy=10.0, xpnet_numpy_one_by_one=9.9)
    jax = made_up("S", 4, xpnet_jax=10.0, jax_vmap=9.0)
    gpu = made_up("S", 64, "cuda", xpnet_cupy=1.0, xpnet_cupy_one_by_one=30.0, jax_vmap=0.5)
    other = made_up("S", 16, "cuda", xpnet_cupy=1.0, xpnet_cupy_one_by_one=30.0)
    found = list(verdicts([*small, *few, *jax, *gpu, *other]))
    assert [round(v.measured, 2) for v in found] == [7.9, 0.99, 0.9, 2.13]
    assert [v.asked for v in found] == [8.0, 0.95, 0.95, 3.0]
    assert [v.holds for v in found] == [False, True, False, True]
    lines = readme.verdict_table(verdicts([*small, *gpu]))
    assert lines[2].endswith("| 8 | **7.90** |")
    assert lines[3].endswith("| < 3 | 2.13 |")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "xpnet abacus"], "--only xpnet abacus: expected some of xpnet numpy"),
        (["--networks", "12"], "network '12': expected S"),
        (["--models", "0"], "--models 0: expected 1 or more"),
        (["--device", "cuda", "--clock", "cpu"], "--clock cpu: expected wall on a GPU"),
    ],
)
def test_many_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert many.main(words) == 2
    assert message in capsys.readouterr().err


def test_without_a_gpu_every_contender_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cuda", "--networks", "12-5-3/4", "--models", "2"]
    only = ["--only", "xpnet cupy", "jax vmap"]
    assert many.main([*words, *only]) == 3
    captured = capsys.readouterr()
    assert captured.out.count("skipped, ") == 2
    assert "no contender is left" in captured.err


def test_a_contender_that_trains_something_else_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(self: Any, lot: Any) -> tuple[np.ndarray, np.ndarray]:
        problem = many_problem(lot.case.problem(), lot.models)
        expected = reference(problem)(batches(problem.problem, lot.models, CHECKED_STEPS))
        return expected / 2, expected

    monkeypatch.setattr(many.Expected, "of", halved)
    words = ["--networks", "12-5-3/4", "--models", "2", "--only", "by hand"]
    assert many.main(words) == 3
    assert "by hand: FAILED" in capsys.readouterr().out


def test_the_results_that_are_committed_can_be_read() -> None:
    lines = readme.many_section()
    assert any(line.startswith("| xpnet numpy |") for line in lines)
    assert json.dumps(lines)
