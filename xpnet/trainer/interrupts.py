"""Signals during a training, such as Ctrl-C's, at a moment at which nothing is half-done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["held_signals"]


@contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
    """Hold signals back, and call their handlers where you say.

    A step consumes the parameters. If a handler raises between a step and the assignment of its
    results, as Python's own does on Ctrl-C and that of a time limit may, the parameters are
    half-updated, or, on JAX, gone. The block gets a function that calls the handlers of the
    signals that have come meanwhile; call it between steps. The end of the block calls them too.
    A signal that comes a second time is not held. Threads other than the main one get no signals.
    """
    waiting: dict[int, Any] = {}
    handlers: dict[int, Callable[[int, Any], Any]] = {}

    def hold(number: int, frame: Any) -> None:
        if number in waiting:
            del waiting[number]
            handlers[number](number, frame)
        else:
            waiting[number] = frame

    def deliver() -> None:
        while waiting:
            number, frame = waiting.popitem()
            handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in signal.valid_signals()}
        handlers = {int(n): handler for n, handler in found.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, hold)
        yield deliver
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is hold:  # else the handler has put another in its place
                signal.signal(number, handler)
        deliver()
