"""Let a signal end a command in an orderly way: its clean-up runs, and its status says why."""

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
    """A signal asked the command to end. ``except Exception`` does not catch this."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise Interrupted(number)


def _unless_lost(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a `sys.unraisablehook` that does not lose `Interrupted`.

    Python drops an exception that a signal raises in a finalizer, or in a function that C has
    called. This hook raises `Interrupted` once more, a moment later.
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
    """Wrap a `main` so that SIGTERM and SIGINT raise `Interrupted` in it; its status is 128 + N."""

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
