"""What the campaigns share: trials by seed, counts, limits, and trainings in their own process.

A campaign is a function that makes one trial: it yields a word for each promise that held, and
raises `Broken` for one that did not.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xpnet.backend import loop
from xpnet.commands.train import main as train
from xpnet.errors import one_line
from xpnet.models import schema
from xpnet.trainer import Trainer

HEADER = "| campaign | promise | tried | held | s |\n| --- | --- | ---: | ---: | ---: |"
MEGABYTE = 1 << 20
# In memory where that is possible: a process that dies loses nothing that it has written, so the
# disk's own time would only make fewer trials.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

T = TypeVar("T")


class Broken(Exception):
    """A promise that did not hold."""

    def __init__(self, kind: str, words: object) -> None:
        super().__init__(" ".join(str(words).split())[:400])
        self.kind = kind


class Late(BaseException):
    """Time is up; no `except Exception` swallows it."""


@dataclass(frozen=True)
class Trial:
    """What one trial draws from and writes into, and the time at which the campaign ends."""

    rng: np.random.Generator
    folder: Path
    ends: float

    def one_of(self, *choices: T) -> T:
        return choices[self.rng.integers(len(choices))]


def run(attempt: Callable[[Trial], Iterator[str]]) -> int:
    """Make trials until the time is up, print a row for each promise; 1 if one did not hold."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--minutes", type=float, default=0.5, help="may be a fraction")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, help="repeat only this one")
    parser.add_argument("--rows", action="store_true", help="print no head above the table")
    given = parser.parse_args()
    tried, held, began = Counter[str](), Counter[str](), time.monotonic()
    ends = began + 60 * given.minutes
    for number in itertools.count() if given.trial is None else [given.trial]:
        rng = np.random.default_rng([given.seed, number])
        with tempfile.TemporaryDirectory(prefix="xpnet-", dir=SCRATCH) as folder:
            try:
                for kind in attempt(Trial(rng, Path(folder), ends)):
                    tried[kind] += 1
                    held[kind] += 1
            except Broken as fault:
                tried[fault.kind] += 1
                print(
                    f"{fault.kind}: {fault}\n    again: python tests/campaigns/{name}.py "
                    f"--seed {given.seed} --trial {number}",
                    file=sys.stderr,
                )
        if time.monotonic() >= ends:
            break
    if not given.rows:
        print(HEADER)
    seconds = time.monotonic() - began
    for kind in sorted(tried):
        print(f"| {name} | {kind} | {tried[kind]:,} | {held[kind]:,} | {seconds:.0f} |")
    return int(tried != held)


def damaged(content: bytes, trial: Trial) -> bytes:
    """The bytes of a file after an accident."""
    data, rng = bytearray(content), trial.rng
    place, other = (int(n) for n in rng.integers(len(data), size=2))
    length = int(rng.integers(1, 64))
    match rng.integers(7):
        case 0:
            for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
                data[bit // 8] ^= 1 << (bit % 8)
        case 1:
            del data[place:]
        case 2:
            data[place : place + 512] = bytes(len(data[place : place + 512]))
        case 3:
            data[place : place + length] = data[other : other + length]
        case 4:
            data[place:place] = rng.bytes(length)
        case 5:
            del data[place : place + length]
        case _:
            data += data[other:]
    return bytes(data)


# -- Within this process ---------------------------------------------------------------------


@contextmanager
def _within(seconds: float, megabytes: int) -> Iterator[None]:
    """Raise Late after some time, and MemoryError where the block takes more than it may."""

    def ring(number: int, frame: Any) -> None:
        raise Late

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * MEGABYTE, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def answer(
    kind: str, call: Callable[[], Any], *errors: type[Exception], seconds: float = 1.0
) -> Any:
    """What a call returns, or one of `errors` that it raised, if it said so in one short line.

    Raises
    ------
    Broken
        Another error, several lines, more than `seconds` of computing, more than 500 MB, or a
        call that does not end.
    """
    began = time.process_time()
    value: Any = None
    try:
        with _within(10 * seconds, 500):
            value = call()
    except errors as error:
        value = error
        if not str(error) or one_line(str(error)) != str(error):
            raise Broken(kind, f"not one short line: {error!r}") from error
    except (Exception, Late) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise Broken(
            kind, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        ) from error
    if (took := time.process_time() - began) > seconds:
        raise Broken(kind, f"took {took:.1f} s: {value!r}")
    return value


# -- Another process -------------------------------------------------------------------------


def start(command: Callable[[], int], folder: Path, stdout: str = os.devnull) -> int:
    """Run a command in a fork of this process; its words of error go into ``folder/stderr``."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
        os.dup2(os.open(stdout, os.O_WRONLY), 1)
        os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        status = command()
        sys.stdout.flush()
    except KeyboardInterrupt:  # before or after the command
        status = 130
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def status_of(kind: str, pid: int, seconds: float = 60.0) -> int:
    """The exit status of a fork, minus the signal that ended it; Broken if it does not end."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        if (found := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Broken(kind, f"does not end in {seconds} s")


def words_of(kind: str, folder: Path) -> str:
    """What a fork said on stderr: lines that start with ``xpnet:``, no traceback."""
    try:
        words = (folder / "stderr").read_text(errors="replace")
    except FileNotFoundError:  # the signal came before the fork had opened it
        return ""
    if bad := [line for line in words.splitlines() if not line.startswith("xpnet: ")]:
        raise Broken(kind, f"stderr: {bad[0]} ... {bad[-1]}")
    return words


# -- Trainings -------------------------------------------------------------------------------

TRAININGS = (
    ("--optimizer", "adam"),
    ("--optimizer", "momentum", "--schedule", "cosine", "--dropout", "0.2"),
    ("--optimizer", "sgd", "--val-fraction", "0.2", "--patience", "1"),
)
SIZE = ("--hidden", "4", "--epochs", "2", "--batch-size", "300", "--quiet")


def training(folder: Path, settings: tuple[str, ...]) -> int:
    """Start a training that saves after each step, or go on with it; for a process of its own."""
    loop.CHUNK_SECONDS = 0.0
    Trainer.fit = functools.partialmethod(Trainer.fit, save_seconds=0.0)  # type: ignore[assignment]
    return train(arguments(folder, settings))


def arguments(folder: Path, settings: tuple[str, ...]) -> list[str]:
    if any(folder.glob("checkpoints/step-*.npz")):
        return ["--resume", str(folder), "--quiet"]
    shutil.rmtree(folder, ignore_errors=True)  # without a checkpoint, no work is in it
    return ["--out", str(folder), *SIZE, *settings]


@functools.cache
def undisturbed(settings: tuple[str, ...]) -> tuple[dict[str, Any], float]:
    """What a training ends in that nobody disturbs, and the seconds that it takes."""
    with tempfile.TemporaryDirectory(prefix="xpnet-", dir=SCRATCH) as name:
        folder, began = Path(name), time.monotonic()
        pid = start(lambda: training(folder / "run", settings), folder)
        if status_of("undisturbed", pid) or words_of("undisturbed", folder):
            raise SystemExit(f"a training fails by itself: {(folder / 'stderr').read_text()}")
        return result(folder / "run"), time.monotonic() - began


def result(folder: Path) -> dict[str, Any]:
    """What a run has found, to the last bit; times are left out."""
    arrays, meta = schema.load(folder / "model.npz")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    summary = json.loads((folder / "summary.json").read_text())
    return {
        **{name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()},
        "meta": meta,
        "epochs": [_without_times(json.loads(line)) for line in lines],
        "summary": _without_times(summary),
        "settings": (folder / "config.toml").read_text(),
    }


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if "seconds" not in k and "per_second" not in k}


def whole(kind: str, folder: Path) -> None:
    """Each file of a run, whenever it was stopped, is whole."""
    for path in folder.glob("**/[!.]*.*"):
        try:
            if path.suffix == ".npz":
                schema.load(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".toml":
                tomllib.loads(path.read_text())
        except ValueError as error:
            raise Broken(kind, f"{path.name}: {error}") from error


def finish(kind: str, folder: Path, settings: tuple[str, ...]) -> None:
    """Go on with a training to its end, which is that of an undisturbed one."""
    status = status_of(kind, start(lambda: training(folder, settings), folder.parent))
    if status:
        raise Broken(kind, f"going on ends in {status}: {words_of(kind, folder.parent)}")
    same(kind, folder, settings)


def same(kind: str, folder: Path, settings: tuple[str, ...]) -> None:
    """A run that has ended holds what an undisturbed one holds."""
    try:
        found = result(folder)
    except (OSError, ValueError) as error:
        raise Broken(kind, f"the run has ended, but {error}") from error
    expected, _ = undisturbed(settings)
    if other := [name for name in expected if found.get(name) != expected[name]]:
        raise Broken(kind, f"other bits in {', '.join(other)}")
