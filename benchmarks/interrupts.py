"""A command that a signal ends in an orderly way: its clean-up runs, and its status says so."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from functools import wraps
from types import FrameType

__all__ = ["Interrupted", "Main", "orderly"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Main = Callable[[Sequence[str] | None], int]


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end: no error, so that ``except Exception`` lets it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second one must not break off the clean-up
    raise Interrupted(number)


def orderly(main: Main) -> Callable[..., int]:
    """A `main` that SIGTERM and SIGINT end by the exception `Interrupted`, with status 128 + N."""

    @wraps(main)
    def wrapped(args: Sequence[str] | None = None) -> int:
        before = {each: signal.signal(each, _interrupt) for each in SIGNALS}
        try:
            return main(args)
        except Interrupted as reason:
            print(f"interrupted by {reason}", flush=True)
            return reason.status
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    return wrapped
