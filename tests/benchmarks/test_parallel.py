"""The benchmark of several ranks: all contenders train the same, and the command reports."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import parallel, readme, results
from benchmarks.parallel import CONTENDERS, DDP, OURS, check, verdicts
from benchmarks.parallel_contenders import Form, OurTraining, order_of, their_training
from benchmarks.results import Measurement, read
from benchmarks.scaling import LINKS, Compute, Link, fitted_compute, rows_needed, step
from benchmarks.teams import MISSING, PLAIN, Team
from benchmarks.timing import quartiles
from benchmarks.worker import Failed
from xpnet.parallel import ALONE

MPI_HERE = shutil.which("mpirun") is not None and importlib.util.find_spec("mpi4py") is not None
needs_mpi = pytest.mark.skipif(not MPI_HERE, reason="mpirun and mpi4py are not both installed")
MODULE = "benchmarks.parallel_contenders"
FORM: dict[str, Any] = {"network": "8-4-10", "batch": 12, "samples": 100}


@pytest.mark.parametrize("network", ["8-4-10", "tiny ConvNet"])
def test_both_libraries_train_the_same(network: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    form = Form(network, 12, 100)
    order = order_of(form, 20)
    trainings = {OURS: OurTraining("numpy", form, ALONE), DDP: their_training(form, 1)}
    losses = {(name, 1): each.train(order).tolist() for name, each in trainings.items()}
    assert len(losses[OURS, 1]) == 20
    assert check(losses) < 1e-5


def test_several_ranks_of_pytorch_train_the_same() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    team = Team(MODULE, {"contender": DDP, "ranks": 2, "form": FORM}, 2, PLAIN).ready()
    several = parallel.losses_of(DDP, team.ask(do="check", steps=20))
    team.stop()
    form = Form(**FORM)
    alone = OurTraining("numpy", form, ALONE).train(order_of(form, 20)).tolist()
    assert check({(OURS, 1): alone, (DDP, 2): several}) < 1e-5


def test_another_training_fails() -> None:
    with pytest.raises(Failed, match=r"pytorch on 2 ranks trains something else: 1\.0e-01 off"):
        check({(OURS, 1): [2.0, 1.0], (DDP, 2): [2.0, 1.1]})
    with pytest.raises(Failed, match="nothing was learned"):
        check({(OURS, 1): [1.0, 1.0]})


def test_a_team_says_which_rank_failed() -> None:
    with pytest.raises(Failed, match=r"rank 0: ModuleNotFoundError: .*benchmarks\.nothing"):
        Team("benchmarks.nothing", {}, 1, PLAIN).ready()
    team = Team(MODULE, {"contender": OURS, "ranks": 1, "form": FORM}, 1, PLAIN).ready()
    with pytest.raises(Failed, match="rank 0: KeyError"):
        team.ask(do="time")  # no number of steps
    team.stop()


# Without these, Open MPI starts nothing for root.
ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")


@needs_mpi
def test_the_command_measures_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ROOT:
        monkeypatch.setenv(name, "1")
    out = tmp_path / "parallel.jsonl"
    words = ["--parts", "steps", "--networks", "8-4-10/12", "--only", OURS, "--samples", "100"]
    assert parallel.main([*words, "--rounds", "2", "--seconds", "0.01", "--out", str(out)]) == 0
    assert "| 8-4-10, 12 | xpnet numpy | " in capsys.readouterr().out
    header, measurements = read(out)
    assert header["benchmark"] == "parallel"
    found = {(m["case"]["what"], m["contender"], m["case"]["ranks"]) for m in measurements}
    assert {("steps", OURS, 1), ("steps", OURS, 2), ("parts", "sum", 2)} <= found
    assert all(len(m["values"]) == 2 for m in measurements)
    assert all(m["loss_error"] < 1e-5 for m in measurements if m["case"]["what"] == "steps")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "horovod"], f"--only horovod: expected some of {', '.join(CONTENDERS)}"),
        (["--networks", "784-50-10"], "--networks 784-50-10: expected layers and batch such as"),
        (["--ranks", "1"], "--ranks 1: expected 2 or more"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
    ],
)
def test_the_command_refuses(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parallel.main(words) == 2
    assert message in capsys.readouterr().err


def test_without_mpirun_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert parallel.main([]) == 3
    assert MISSING in capsys.readouterr().err


def test_the_model_follows_what_it_is_fitted_to() -> None:
    true, link = Compute(1e-4, 2e-6), Link(5e-6, 1e9)
    found = fitted_compute({rows: true.seconds(rows) for rows in (64, 128, 512)})
    np.testing.assert_allclose(found, true, rtol=1e-9)
    # 8 ranks: three messages, and 7/4 of the bytes
    assert np.isclose(link.all_reduce(8, 1e6), 3 * 5e-6 + 1.75e-3)
    assert np.isclose(step(true, link, 8, 100, 1e6, cores=2).seconds, 4 * (3e-4 + 1.765e-3))


@pytest.mark.parametrize("link", LINKS.values())
@pytest.mark.parametrize("ranks", [2, 1000])
def test_so_many_rows_are_needed_and_no_fewer(link: Link, ranks: int) -> None:
    compute = Compute(1e-4, 1e-6)
    rows = rows_needed(compute, link, ranks, 3.3e6)
    assert step(compute, link, ranks, rows, 3.3e6).efficiency > 0.8 - 1e-9
    assert step(compute, link, ranks, rows - 1, 3.3e6).efficiency < 0.8


def made_up(case: dict[str, Any], contender: str, *values: float) -> Measurement:
    return {"case": case, "contender": contender, "unit": "us/step", **quartiles(values)}


def test_what_was_asked_is_held_against_what_was_measured() -> None:
    def steps(ranks: int) -> dict[str, Any]:
        return {"what": "steps", "network": "784-50-10/512", "ranks": ranks}

    measurements = [
        made_up(steps(1), OURS, 1200.0, 1500.0), made_up(steps(2), OURS, 1000.0, 1000.0),
        made_up(steps(2), DDP, 2000.0, 2000.0),
    ]  # fmt: skip
    found = list(verdicts(measurements))
    assert [v.measured for v in found] == [1.35, 2.0]
    assert [v.holds for v in found] == [False, True]
    table = "\n".join(parallel.step_lines(measurements))
    assert "| **1.35 (1.27 to 1.43) MISSED** | 1.5 | 2.00 |" in table


def test_the_model_is_held_against_more_ranks_than_cores() -> None:
    def weak(ranks: int, rows: int) -> dict[str, Any]:
        return {"what": "weak", "network": "n", "rows": rows, "ranks": ranks, "bytes": 1_000_000}

    measurements = [
        *(made_up({"what": "sums", "bytes": n, "ranks": 2}, "Group.sum", 2.0 + n / 1e4)
          for n in (4, 100_000, 1_000_000)),
        *(made_up(weak(1, rows), OURS, 100.0 + rows) for rows in (100, 200, 400)),
        made_up(weak(4, 200), OURS, 1000.0),
    ]  # fmt: skip
    # 4 ranks on 2 cores: twice (300 us, two messages of 2 us, 1.5 MB at 10 GB/s)
    last = parallel.weak_lines(measurements, cores=2)[-1]
    assert last == "| n | 4 x 200, oversubscribed | 1,000 | 908 | -9 % |"


def test_the_pages_show_the_committed_results() -> None:
    header, measurements = read(results.newest("parallel"))
    networks = {m["case"]["network"] for m in measurements if m["case"]["what"] == "steps"}
    assert set(parallel.ASKED) <= networks
    assert all(np.isfinite(m["values"]).all() for m in measurements)
    section = "\n".join(parallel.section(header, measurements))
    page = readme.ROOT / "benchmarks/RESULTS.md"
    assert section in page.read_text(encoding="utf-8")


@needs_mpi
def test_ranks_that_cannot_start_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRTE_MCA_plm", "none")  # no way to start a process
    words = ["--parts", "steps", "--networks", "8-4-10/12", "--only", OURS, "--samples", "100"]
    assert parallel.main([*words, "--rounds", "1", "--seconds", "0.01"]) == 1
    assert "FAILED, a rank ended" in capsys.readouterr().out
