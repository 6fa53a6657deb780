"""Ctrl-C during a training, at a moment at which nothing is half-done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["held_interrupts"]


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Collect a first SIGINT in a list, instead of raising KeyboardInterrupt anywhere.

    A step consumes the parameters: an exception between a step and the assignment of its results
    would leave parameters that are half-updated, or, on JAX, gone. Look into the list
    between steps; at the end of the block, KeyboardInterrupt follows. A second SIGINT raises at
    once. A handler of the user's own stays, and a thread other than the main one changes nothing.
    """
    seen: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield seen
        return

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:  # after the last step
        raise KeyboardInterrupt
