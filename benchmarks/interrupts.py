"""A command that a signal ends in an orderly way: its clean-up runs, and its status says so."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import FrameType
from typing import Any

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


def _unless_lost(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`sys.unraisablehook` for who waits to be interrupted.

    What a signal raises in a finalizer, or in a function that C has called, goes no further. So it
    is raised once more, a moment later.
    """

    def lost(found: Any) -> None:
        error = found.exc_value
        if not isinstance(error, Interrupted):
            hook(found)
            return

        def again(number: int, frame: FrameType | None) -> None:
            raise error

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    return lost


def orderly(main: Main) -> Callable[..., int]:
    """A `main` that SIGTERM and SIGINT end by the exception `Interrupted`, with status 128 + N."""

    @wraps(main)
    def wrapped(args: Sequence[str] | None = None) -> int:
        before = {each: signal.signal(each, _interrupt) for each in SIGNALS}
        hook = sys.unraisablehook
        sys.unraisablehook = _unless_lost(hook)
        try:
            return main(args)
        except Interrupted as reason:
            print(f"interrupted by {reason}", flush=True)
            return reason.status
        finally:
            sys.unraisablehook = hook
            for each, handler in before.items():
                signal.signal(each, handler)

    return wrapped
