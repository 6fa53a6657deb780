"""What happens when a rank fails: all end, with a line, a good checkpoint, and no status 0."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpirun
import numpy as np
import pytest
from mpirun import TRAIN, needs_mpi
from ranks import on_ranks

import xpnet
from xpnet.errors import RankError, UsageError
from xpnet.models import schema
from xpnet.parallel import ALONE, Group, Outcome, world
from xpnet.parallel.group import _alarm, merged
from xpnet.parallel.launcher import Launch, launch, threads
from xpnet.trainer.agreement import check_same_run

TIMEOUT = 4.0
ENDLESS = ("--hidden", "32", "--epochs", "100000", "--quiet", "--rank-timeout", str(TIMEOUT))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # a batch script, started once
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, Launch("Slurm", 3, 4)),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_PROCID": "0",
             "SLURM_STEP_NUM_TASKS": "1"},
            Launch("Open MPI", 1, 2),
        ),
        ({"PMI_RANK": "0", "PMI_SIZE": "x"}, None),
    ],
)  # fmt: skip
def test_launchers(environment: dict[str, str], expected: Launch | None) -> None:
    assert launch(environment) == expected


def test_threads_of_a_rank_are_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    started = {"PMI_RANK": "0", "PMI_SIZE": "16", "MPI_LOCALNRANKS": "4"}
    assert set(threads(started).values()) == {"2"}
    assert set(threads({**started, "MPI_LOCALNRANKS": "64"}).values()) == {"1"}
    assert threads({**started, "OMP_NUM_THREADS": "3"}) == {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert set(threads(started).values()) == {"1"}


def test_one_process_of_a_launcher_needs_no_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # cannot be imported
    monkeypatch.setattr("xpnet.parallel.group.launch", lambda: Launch("Slurm", 0, 1))
    assert world() is ALONE


def test_the_first_failure_that_is_its_own_is_said() -> None:
    assert merged([Outcome(0), Outcome(1, "disk full")]) == Outcome(1, "rank 1: disk full")
    assert merged([Outcome(6, "rank 2: x"), Outcome(0), Outcome(2, "x")]) == Outcome(2, "rank 2: x")


@pytest.mark.parametrize("changed", [{"validation": (np.ones((4, 2)), [0, 1, 0, 1])},
                                     {"epochs": 3}])  # fmt: skip
def test_ranks_that_would_wait_for_each_other_are_refused(changed: dict[str, Any]) -> None:
    x, t = np.eye(2).repeat(5, axis=0), np.repeat([0, 1], 5)

    def work(group: Group) -> None:
        trainer = xpnet.Trainer(xpnet.mlp([2, 2], seed=0), xpnet.optim.SGD(0.1), group=group)
        with pytest.raises(UsageError, match=r"^rank 1 and rank 0 differ in (the val|epochs)"):
            trainer.fit(x, t, **({"epochs": 2} | (changed if group.rank else {})))

    on_ranks(2, work)


def test_a_callback_that_fails_on_one_rank_leaves_the_ranks_in_step() -> None:
    x, t = np.eye(2).repeat(5, axis=0), np.repeat([0, 1], 5)

    def work(group: Group) -> bytes:
        def callback(trainer: xpnet.Trainer, epoch: Any) -> None:
            if group.rank == 1 and epoch.epoch == 2:
                raise ValueError("mine")

        trainer = xpnet.Trainer(xpnet.mlp([2, 2], seed=0), xpnet.optim.SGD(0.1), group=group)
        own = group.rank == 1
        with pytest.raises(ValueError if own else RankError, match="^mine" if own else "^rank 1: "):
            trainer.fit(x, t, epochs=3, callbacks=callback)
        assert len(trainer.fit(x, t, epochs=3).epochs) == 3
        return trainer.model.to_host()["W1"].tobytes()

    assert len({*on_ranks(3, work)}) == 1


def test_other_data_are_said_before_the_network_that_they_make() -> None:
    def work(group: Group) -> None:
        with pytest.raises(UsageError, match=r"^rank 1 and rank 0 differ in the samples; start"):
            check_same_run(group, {"network": group.rank, "samples": f"{group.rank}"})

    on_ranks(2, work)


@pytest.mark.parametrize("more", [0, 1])
def test_a_setting_that_one_rank_lacks_is_a_difference(more: int) -> None:
    def work(group: Group) -> None:
        with pytest.raises(UsageError, match=r"^rank 1 and rank 0 differ in validation_share"):
            check_same_run(group, {"validation_share": 0.1} if group.rank == more else {})

    on_ranks(2, work)


@needs_mpi
def test_worlds_of_one_rank_are_refused() -> None:
    said = []
    for rank in "01":  # as mpirun of another MPI starts them
        size = {"PMI_RANK": rank, "PMI_SIZE": "2"}
        done = subprocess.run(
            [*TRAIN, "--quiet"], env={**mpirun.environment(), **size}, timeout=60, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == UsageError.exit_status
        assert done.stdout == ""
        said.append(done.stderr)
    for start, line in zip(("", "rank 1: "), said, strict=True):
        assert line.startswith(f"xpnet: {start}MPICH started 2 processes, but mpi4py's library (")
        assert len(line.splitlines()) == 1


@needs_mpi
@pytest.mark.slow
def test_a_rank_that_has_no_mpi_says_so(tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ImportError")
    script = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] && export PYTHONPATH={tmp_path}; exec "$@"'
    status, out, err = mpirun.run(2, "sh", "-c", script, "sh", *TRAIN, "--quiet")
    assert (status, out) == (UsageError.exit_status, "")
    assert mpirun.lines(err) == [
        "xpnet: rank 1: Open MPI started 2 processes, and mpi4py is not installed: "
        "pip install 'xpnet[mpi]'"
    ]


@needs_mpi
@pytest.mark.parametrize("command", [["predict", "none", "none.csv"], ["compare"]])
def test_a_command_for_one_process_is_refused_on_several(command: list[str]) -> None:
    status, out, err = mpirun.run(2, sys.executable, "-m", "xpnet", *command)
    assert (status, out) == (UsageError.exit_status, "")
    assert mpirun.lines(err) == [
        "xpnet: Open MPI started 2 processes, and this command works in one: start it without the "
        "launcher"
    ]


HANGING = """
import os, signal, sys
from xpnet.parallel import group
group.START_SECONDS = 3.0
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    {where}
from xpnet.commands.train import main
sys.exit(main())
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "group.MPIGroup = lambda comm: os.kill(os.getpid(), signal.SIGSTOP)",  # after MPI's start
    ],
)
def test_a_rank_that_hangs_in_the_start_ends_all(where: str) -> None:
    status, out, err = mpirun.run(2, sys.executable, "-c", HANGING.format(where=where))
    assert status == 128 + signal.SIGALRM
    assert out == ""
    assert "Alarm clock" in err


LATE = """
import pathlib, sys, time
from xpnet.parallel import group
class Late(group.MPIGroup):
    def __init__(self, comm):
        if comm.rank == {rank}:
            pathlib.Path({path!r}).touch()
            time.sleep(60)
        super().__init__(comm)
group.MPIGroup = Late
from xpnet.commands.train import main
sys.exit(main())
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_while_the_ranks_meet_ends_all(rank: int, tmp_path: Path) -> None:
    path = tmp_path / "waits"
    script = LATE.format(rank=rank, path=str(path))
    process = mpirun.start(2, [sys.executable, "-c", script, "--out", tmp_path / "run"])
    mpirun.wait_for(path)
    os.kill(process.pid, signal.SIGUSR1)
    status, out, _ = mpirun.finish(process, 30)
    assert (status, out) == (128 + signal.SIGUSR1, "")
    assert not (tmp_path / "run").exists()


def test_an_alarm_that_was_set_goes_on() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000.0)
        with _alarm(0.5):
            assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        assert 900.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000.0
        assert signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def checkpoints(folder: Path) -> list[dict[str, np.ndarray]]:
    return [schema.load(path)[0] for path in sorted(folder.glob("checkpoints/step-*.npz"))]


def begun(folder: Path, ranks: int) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a training without end; return it, and the processes of its ranks, by rank."""
    process = mpirun.start(ranks, [*TRAIN, *ENDLESS, "--out", folder])
    mpirun.wait_for(folder / "metrics.jsonl")
    return process, [mpirun.process_of(rank, str(folder)) for rank in range(ranks)]


@needs_mpi
@pytest.mark.slow  # waits for the time-out
@pytest.mark.parametrize("lost", [0, 1])
def test_a_stopped_rank_ends_all(lost: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process, ranks = begun(folder, 3)
    os.kill(ranks[lost], signal.SIGSTOP)
    status, out, err = mpirun.finish(process)
    assert status != 0
    said = mpirun.lines(err)
    assert said
    for line in said:
        assert line.startswith(f"xpnet: rank {lost} (")
        assert line.endswith(" s; all ranks end")
    assert out == ""
    assert checkpoints(folder)
    assert not (folder / "summary.json").exists()


@needs_mpi
@pytest.mark.slow
def test_a_killed_rank_ends_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process, ranks = begun(folder, 2)
    os.kill(ranks[1], signal.SIGKILL)
    status, _, _ = mpirun.finish(process)  # the launcher says the line
    assert status != 0
    assert checkpoints(folder)
    assert not (folder / "summary.json").exists()


@needs_mpi
@pytest.mark.slow
def test_a_job_that_was_stopped_as_a_whole_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process, ranks = begun(folder, 2)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in ranks:
            os.kill(pid, number)
        time.sleep(2 * TIMEOUT)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    _, _, err = mpirun.finish(process)
    assert mpirun.lines(err) == []


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "target", "expected", "ranks"),
    [
        (signal.SIGUSR1, "mpirun", 128 + signal.SIGUSR1, 3),
        (signal.SIGTERM, "rank 1", 128 + signal.SIGTERM, 1),
        (signal.SIGTERM, "mpirun", None, 3),
    ],
)
def test_a_signal_saves_and_other_numbers_of_ranks_go_on(
    number: int, target: str, expected: int | None, ranks: int, tmp_path: Path
) -> None:
    # The rate of another schedule would depend on --epochs.
    rule = ("--optimizer", "momentum", "--lr", "0.01", "--schedule", "constant")
    size = ("--hidden", "9", "--dtype", "float64", *rule, "--quiet")
    one, folder = tmp_path / "one", tmp_path / "run"
    process = mpirun.start(2, [*TRAIN, *size, "--epochs", "4000", "--out", folder])
    mpirun.wait_for(folder / "metrics.jsonl")
    of_rank = target.startswith("rank") and mpirun.process_of(1, str(folder))
    os.kill(of_rank or process.pid, number)
    status, _, err = mpirun.finish(process)
    assert mpirun.lines(err) == []
    assert status != 0
    assert not (folder / "summary.json").exists()
    if expected is not None:  # mpirun lets the ranks end
        assert status == expected
        assert int(max(folder.glob("checkpoints/step-*.npz")).stem.removeprefix("step-")) > 0
    epochs = str(len((folder / "metrics.jsonl").read_text().splitlines()) + 5)
    assert mpirun.run(ranks, *TRAIN, "--resume", folder, "--epochs", epochs, "--quiet")[0] == 0
    assert mpirun.run(1, *TRAIN, *size, "--epochs", epochs, "--out", one)[0] == 0
    found, expected = (schema.load(path / "model.npz")[0] for path in (folder, one))
    for name, array in expected.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12)


SCRIPT = """
import os, sys
import numpy as np
import xpnet
from xpnet.parallel import world
group = world({timeout})
world(50.0 if group.rank else 0.1)  # the first call decides
def callback(trainer, epoch):
    if epoch.epoch == 3 and group.rank == 1:
        {what}
x = np.eye(3).repeat(9, axis=0)
trainer = xpnet.Trainer(xpnet.mlp([3, 2], seed=0), xpnet.optim.SGD(0.1), group=group)
trainer.fit(x, np.arange(27) % 2, epochs=9, batch_size=9, callbacks=callback)
print("done")
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("raise ValueError('bad')", "xpnet: rank 1: ValueError: bad"),
        ("sys.exit(0)", "has ended, and the others wait for it; all ranks end"),
        ("sys.exit(-1)", "has ended, and the others wait for it; all ranks end"),
        ("os._exit(0)", ""),  # the launcher says it
    ],
)
def test_a_script_that_ends_early_on_one_rank(what: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(timeout=TIMEOUT, what=what))
    status, out, err = mpirun.run(2, sys.executable, path)
    assert status != 0
    assert "done" not in out
    if line:
        assert [text for text in mpirun.lines(err) if text.endswith(line)], err


@needs_mpi
@pytest.mark.slow
def test_a_file_that_one_rank_lacks(tmp_path: Path) -> None:
    table, script = tmp_path / "table.csv", tmp_path / "script.sh"
    table.write_text("a,b\n" + "1,0\n2,1\n" * 50)
    script.write_text(
        f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] && t=none.csv || t={table}\n'
        f'exec {sys.executable} -m xpnet.train --data $t --quiet --out {tmp_path}/run\n'
    )  # fmt: skip
    status, out, err = mpirun.run(2, "sh", script)
    assert status != 0
    assert out == ""
    assert len(mpirun.lines(err)) == 1
    assert mpirun.lines(err)[0].startswith("xpnet: rank 1: ")
    assert not (tmp_path / "run").exists()


# -- Two machines, as network namespaces ---------------------------------------------------------


def in_namespaces() -> bool:
    """Whether this user can make namespaces and a link between them."""
    if not shutil.which("ip") or os.getuid() != 0:
        return False
    name = f"xpnet-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return made.returncode == 0


@pytest.fixture
def two_hosts(tmp_path: Path) -> Any:
    """A function that starts a command on two hosts, and one that cuts the link between them."""
    if not in_namespaces():
        pytest.skip("no `ip`, or not the rights to make network namespaces")
    a, b = (f"xpnet-{os.getpid()}-{side}" for side in "ab")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    agent = tmp_path / "agent"
    agent.write_text(
        f'#!/bin/sh\nshift\nexec ip netns exec {b} unshare --uts sh -c "hostname hostb; $*"\n'
    )
    agent.chmod(0o755)

    def start(*command: str | Path) -> subprocess.Popen[str]:
        options = (
            "--host 10.99.0.1:1,10.99.0.2:1 -n 2 --mca pml ob1 --mca btl tcp,self "
            f"--prtemca prte_if_include 10.99.0.0/24 --prtemca plm_ssh_agent {agent} "
            "-x OPENBLAS_NUM_THREADS -x PYTHONPATH"
        )
        there = f'hostname hosta; exec mpirun {options} "$@"'
        root = str(Path(xpnet.__file__).parents[1])
        # Into a file: what mpirun starts on the other host would hold a pipe open.
        with open(tmp_path / "stderr", "w") as stderr:
            return subprocess.Popen(
                ["ip", "netns", "exec", a, "unshare", "--uts", "sh", "-c", there, "sh", *command],
                stdout=subprocess.DEVNULL, stderr=stderr, text=True, start_new_session=True,
                env={**mpirun.environment(), "PYTHONPATH": root},
            )  # fmt: skip

    try:
        for name in (a, b):
            ip("netns", "add", name)
        ip("link", "add", "va", "netns", a, "type", "veth", "peer", "name", "vb", "netns", b)
        for name, link, address in ((a, "va", "10.99.0.1/24"), (b, "vb", "10.99.0.2/24")):
            ip("-n", name, "addr", "add", address, "dev", link)
            for each in ("lo", link):
                ip("-n", name, "link", "set", each, "up")
        yield start, lambda: ip("-n", a, "link", "set", "va", "down")
    finally:
        for name in (a, b):
            listed = subprocess.run(
                ["ip", "netns", "pids", name], check=False, capture_output=True, text=True
            )
            for pid in listed.stdout.split():  # the launcher waits long for the other host
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@needs_mpi
@pytest.mark.slow
def test_a_cut_link_ends_the_ranks_on_both_sides(
    two_hosts: tuple[Callable[..., subprocess.Popen[str]], Callable[[], None]], tmp_path: Path
) -> None:
    start, cut = two_hosts
    folder = tmp_path / "run"
    process = start(*TRAIN, *ENDLESS, "--out", folder)
    mpirun.wait_for(folder / "metrics.jsonl")
    ranks = [mpirun.process_of(rank, str(folder)) for rank in (0, 1)]
    cut()
    late = time.monotonic() + TIMEOUT + 20  # a busy machine takes longer to end processes
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() < late, "a rank goes on behind the cut"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)  # it waits minutes for the other host
    process.wait()
    said = mpirun.lines((tmp_path / "stderr").read_text(errors="replace"))
    assert [line.startswith("xpnet: rank 1 (hostb) has not answered for ") for line in said] == [
        True
    ]
    assert checkpoints(folder)
    assert not (folder / "summary.json").exists()
