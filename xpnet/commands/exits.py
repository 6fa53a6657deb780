"""What the commands have in common: errors in one line, exit statuses, streams that close."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from xpnet.errors import CheckpointError, DataError, DeviceError, NonFiniteLossError, UsageError

__all__ = ["is_terminal", "run", "say"]


def run(command: Callable[[], int]) -> int:
    """Run a command; returns its exit status, or that of what went wrong, said in one line.

    0 done; 1 the result could not be written; 2 usage, bad data, or too large for the memory;
    3 device; 5 a loss that is not finite; 130 / 143 ended by SIGINT / SIGTERM.
    """

    def show(message: Any, *rest: Any, **more: Any) -> None:
        _complain(f"warning: {message}")

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)  # so that what is half-written is cleaned up

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if in_main else None
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            return command()
    except (UsageError, DataError, CheckpointError, DeviceError, NonFiniteLossError) as error:
        _complain(str(error))
        return error.exit_status
    except MemoryError as error:
        _complain(f"not enough memory: {error}; use a smaller --hidden or --batch-size")
        return 2
    except BrokenPipeError:  # `| head` has read enough
        _mute_stdout()
        return 0
    except OSError as error:
        _complain(f"cannot write the result: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _complain(text: str) -> None:
    if sys.stderr is not None:  # None: closed by whoever started us
        print(f"xpnet: {text}", file=sys.stderr)


def say(text: str) -> None:
    """Print a line; if nobody reads any more, go on in silence: the work is what counts."""
    from tqdm import tqdm

    try:
        if sys.stdout is not None:
            # A terminal that cannot show ∂ shows ? in its place.
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            tqdm.write(text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
    except BrokenPipeError:
        _mute_stdout()


def _mute_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
