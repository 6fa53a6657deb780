"""Give each contender its own process, which answers questions and waits while others run.

So no library's threads, allocator or compile cache affects another's. A question and its answer
are one line of JSON each. The worker's module defines ``serve(setup)``, which returns a function
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

# These packages may be missing; any other failed import is an error.
OPTIONAL = ("torch", "jax", "sklearn", "cupy", "cupy_backends", "ml_dtypes", "array_api_strict")
# The default time for an answer: torch.compile takes minutes on a slow machine.
LIMIT_SECONDS = 600.0
# The time for a killed process to end.
PATIENCE_SECONDS = 5.0


class Skipped(Exception):
    """A contender cannot take part: its library is missing or does not run here."""


class Failed(Exception):
    """A contender took part, but something went wrong."""


class Worker:
    """A process that runs ``module.serve(setup)``; `ready` waits until it has started.

    Make several workers first and then wait for each: they import their libraries in parallel.

    Parameters
    ----------
    module : str
        The module that defines ``serve``.
    setup : dict
        The argument of ``serve``; JSON must be able to store it.
    limit : float
        Most seconds for an answer; the first includes the imports.
    """

    def __init__(self, module: str, setup: dict[str, Any], limit: float = LIMIT_SECONDS) -> None:
        self._limit, self._killed = limit, False
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import benchmarks.worker as w; w.main()", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        with suppress(Failed):  # if it has already ended, `ready` says why
            self._put(setup)

    @property
    def alive(self) -> bool:
        """Whether you can ask its process again after a failure."""
        return not self._killed and self._process.poll() is None

    def ready(self) -> Worker:
        """Wait for the set-up and return the worker; if the set-up fails, end the process.

        Raises
        ------
        Skipped, Failed
            The message is the reason.
        """
        try:
            self._answer()
        except (Skipped, Failed):
            self.stop()
            raise
        return self

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask a question and return the answer.

        Raises
        ------
        Failed
            The worker reports a failure; or it has ended (the message has the last line that it
            wrote); or it does not answer within its limit, and this call ends it.
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
            # The worker writes an answer at once, so the whole line is there if a byte is.
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
        """End a process that hangs; return where it was, the innermost call first."""
        self._process.send_signal(signal.SIGABRT)  # faulthandler (see `main`) writes the calls
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
        """Kill the process without waiting for its end."""
        self._killed = True
        self._process.kill()

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):  # a GPU's driver may never let it end
            self._process.wait(PATIENCE_SECONDS)

    def stop(self) -> None:
        """Kill the process, wait for its end, and close its streams."""
        self.kill()
        self._wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # nobody reads what was not yet written
                stream.close()  # type: ignore[union-attr]


def stop(workers: Iterable[Worker]) -> None:
    """Stop all workers at the same time, since a process needs some time to leave a GPU."""
    workers = list(workers)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.stop()


def main() -> None:
    """Run the child process; the command line names its module."""
    # What a library prints, in Python or below it, must not mix with the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Ctrl-C and `timeout` reach all processes of a command, but only the parent ends this one. Do
    # not use SIG_IGN: compilers that a library starts would inherit it.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, frame: None)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the calls of a hanging process are enough
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
    """Return the queue of the parent's questions; this process ends with its parent, even hung."""
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    lines = os.fdopen(os.dup(0))  # a reader locks sys.stdin, even while Python ends

    def listen() -> None:
        for line in lines:
            questions.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    return questions


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
