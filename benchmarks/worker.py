"""Processes that answer questions: each contender has one, and waits while the others run.

So no library's threads, allocator or compile cache meets another's. A question and its answer
are a line of JSON each. The worker's module defines ``serve(setup)``, which returns the function
from question to answer.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from xpnet.errors import DeviceError

__all__ = ["Failed", "Skipped", "Worker", "main"]

# Who may be missing; anything else that cannot be imported is a mistake.
OPTIONAL = ("torch", "jax", "sklearn", "cupy", "cupy_backends", "ml_dtypes", "array_api_strict")


class Skipped(Exception):
    """A contender cannot take part: its library is missing, or does not run here."""


class Failed(Exception):
    """A contender took part, and something went wrong."""


class Worker:
    """A process running ``module.serve(setup)``.

    Raises
    ------
    Skipped, Failed
        With the reason, where the set-up ends so.
    """

    def __init__(self, module: str, setup: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import benchmarks.worker as w; w.main()", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        try:
            self.ask(**setup)
        except (Skipped, Failed):
            self.stop()
            raise

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer.

        Raises
        ------
        Failed
            The worker says why, or has ended; then with the last line that it wrote.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines()
            raise Failed(f"its process ended: {lines[-1] if lines else 'no reason'}") from None
        if "skipped" in answer:
            raise Skipped(answer["skipped"])
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # what was left to be written has no reader
                stream.close()  # type: ignore[union-attr]


def main() -> None:
    """The child's side; its module is named on the command line."""
    # Whatever a library prints, also below Python, is no answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=out, flush=True)

    try:
        module = importlib.import_module(sys.argv[1])
        answer = module.serve(json.loads(sys.stdin.readline()))
    except (Skipped, DeviceError) as reason:
        return reply({"skipped": str(reason)})
    except Exception as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and missing in OPTIONAL:
            return reply({"skipped": f"{missing} is not installed"})
        return reply({"failed": _one_line(error)})
    reply({})
    for line in sys.stdin:
        try:
            reply(answer(json.loads(line)))
        except Exception as error:
            reply({"failed": _one_line(error)})
    return None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
