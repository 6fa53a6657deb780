"""Processes that answer questions: each contender has one, and waits while the others run.

So no library's threads, allocator or compile cache meets another's. A question and its answer
are a line of JSON each. The worker's module defines ``serve(setup)``, which returns the function
from question to answer.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from typing import Any

__all__ = ["Skipped", "Worker", "main"]


class Skipped(Exception):
    """A contender cannot take part: its library is missing, or does not run here."""


class Worker:
    """A process running ``module.serve(setup)``.

    Raises
    ------
    Skipped
        With the reason, where the set-up fails.
    """

    def __init__(self, module: str, setup: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import benchmarks.worker as w; w.main()", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self.ask(**setup)

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer; a worker that failed gives its reason."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines()
            raise RuntimeError(f"worker ended: {lines[-1] if lines else 'no reason'}") from None
        if "skipped" in answer:
            self.stop()
            raise Skipped(answer["skipped"])
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def main() -> None:
    """The child's side; its module is named on the command line."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=out, flush=True)

    try:
        module = importlib.import_module(sys.argv[1])
        answer = module.serve(json.loads(sys.stdin.readline()))
    except ModuleNotFoundError as error:
        reply({"skipped": f"{error.name} is not installed"})
        return
    except Skipped as reason:
        reply({"skipped": str(reason)})
        return
    except Exception as error:
        reply({"skipped": f"{type(error).__name__}: {error}".splitlines()[0]})
        return
    reply({})
    for line in sys.stdin:
        reply(answer(json.loads(line)))
