"""Processes that answer questions: each contender has one, and waits while the others run.

So no library's threads, allocator or compile cache meets another's. A question and its answer
are a line of JSON each. The worker's module defines ``serve(setup)``, which returns the function
from question to answer.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from xpnet.errors import DeviceError

__all__ = ["LIMIT_SECONDS", "Failed", "Skipped", "Worker", "main", "stop"]

# Who may be missing; anything else that cannot be imported is a mistake.
OPTIONAL = ("torch", "jax", "sklearn", "cupy", "cupy_backends", "ml_dtypes", "array_api_strict")
# For an answer, unless you set another: torch.compile takes minutes on a slow machine.
LIMIT_SECONDS = 600.0
# For the end of a process that was killed.
PATIENCE_SECONDS = 5.0


class Skipped(Exception):
    """A contender cannot take part: its library is missing, or does not run here."""


class Failed(Exception):
    """A contender took part, and something went wrong."""


class Worker:
    """A process that is to run ``module.serve(setup)``: `ready` waits for it.

    Who makes several first, and then waits for each, has them import at the same time.

    Parameters
    ----------
    module : str
        Defines ``serve``.
    setup : dict
        Its argument, to be written as JSON.
    limit : float
        Seconds that an answer may take, imports included.
    """

    def __init__(self, module: str, setup: dict[str, Any], limit: float = LIMIT_SECONDS) -> None:
        self._limit, self._killed = limit, False
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import benchmarks.worker as w; w.main()", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        with suppress(Failed):  # it has ended already: `ready` says why
            self._put(setup)

    @property
    def alive(self) -> bool:
        """Whether its process can be asked again, after a failure."""
        return not self._killed and self._process.poll() is None

    def ready(self) -> Worker:
        """Itself, once the set-up has succeeded; the process has ended otherwise.

        Raises
        ------
        Skipped, Failed
            With the reason.
        """
        try:
            self._answer()
        except (Skipped, Failed):
            self.stop()
            raise
        return self

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer.

        Raises
        ------
        Failed
            The worker says why; or has ended, then with the last line that it wrote; or has not
            answered within its limit, and is ended.
        """
        self._put(question)
        return self._answer()

    def _put(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._until = time.monotonic() + self._limit
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise Failed(self._last_words()) from None

    def _answer(self) -> dict[str, Any]:
        out = self._process.stdout
        assert out is not None
        try:
            # An answer is written at once, so that a line has come where a byte has.
            if not select.select([out], [], [], max(0.0, self._until - time.monotonic()))[0]:
                raise Failed(f"gave no answer within {self._limit:g} s{self._aborted()}")
            answer: dict[str, Any] = json.loads(out.readline())
        except (OSError, ValueError):
            raise Failed(self._last_words()) from None
        if "skipped" in answer:
            raise Skipped(answer["skipped"])
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _aborted(self) -> str:
        """End a process that hangs; tells where it was, the innermost calls first."""
        self._process.send_signal(signal.SIGABRT)  # faulthandler, see `main`, writes the calls
        self._wait()
        self.kill()
        self._errors.seek(0)
        calls = self._errors.read().rpartition("Current thread")[2].splitlines()[1:4]
        where = [line.strip() for line in calls if line.startswith("  File ")]
        return f", in {' < '.join(where)}" if where else ""

    def _last_words(self) -> str:
        self.kill()
        self._wait()
        if self._errors.closed:
            return "its process ended: it was stopped"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"its process ended: {lines[-1] if lines else 'no reason'}"

    def kill(self) -> None:
        """End the process, whatever it is doing; without waiting for that."""
        self._killed = True
        self._process.kill()

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):  # a GPU's driver may keep it for ever
            self._process.wait(PATIENCE_SECONDS)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.kill()
        self._wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # what was left to be written has no reader
                stream.close()  # type: ignore[union-attr]


def stop(workers: Iterable[Worker]) -> None:
    """End them all: side by side, for a process takes its time to leave a GPU."""
    workers = list(workers)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.stop()


def main() -> None:
    """The child's side; its module is named on the command line."""
    # Whatever a library prints, also below Python, is no answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Ctrl-C and `timeout` reach all processes of a command: its parent is who ends this one. No
    # SIG_IGN, which the compilers that a library starts would inherit.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, frame: None)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of one that hangs, its calls are enough
    questions = _questions()

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=out, flush=True)

    try:
        module = importlib.import_module(sys.argv[1])
        answer = module.serve(questions.get())
    except (Skipped, DeviceError) as reason:
        return reply({"skipped": str(reason)})
    except Exception as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and missing in OPTIONAL:
            return reply({"skipped": f"{missing} is not installed"})
        return reply({"failed": _one_line(error)})
    reply({})
    while True:
        try:
            reply(answer(questions.get()))
        except Exception as error:
            reply({"failed": _one_line(error)})


def _questions() -> queue.SimpleQueue[dict[str, Any]]:
    """What the parent asks. The process ends with its parent, even in the midst of a hang."""
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    lines = os.fdopen(os.dup(0))  # sys.stdin is locked by who reads it, also when Python ends

    def listen() -> None:
        for line in lines:
            questions.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    return questions


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
