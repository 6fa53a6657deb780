"""What the commands have in common: errors in one line, exit statuses, signals, streams."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import (
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from importlib import import_module
from typing import Any

from xpnet.errors import UsageError, XpnetError, one_line
from xpnet.parallel import Group, Outcome, launcher, world
from xpnet.parallel.launcher import Launch

__all__ = [
    "STOPPING", "call", "complain", "emit", "handling", "run", "run_on_ranks", "say", "start",
]  # fmt: skip

STDOUT = "standard output"
# Signals that end a command. mpirun hands SIGUSR1 on to its ranks and waits for them; after any
# other signal to itself it kills them a quarter of a second later (Open MPI 5).
STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)
# How long rank 0 may take to say what is wrong.
SAYING_SECONDS = 2.0
IMPORTING = "<frozen importlib"  # how the file names of Python's own import begin


def start(name: str, args: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Import a command and run it, as a process of its own; returns the exit status.

    While it is imported, and after it has ended, Ctrl-C ends the process at once and without a
    traceback, as SIGTERM does by itself.

    Parameters
    ----------
    name : str
        The module in `xpnet.commands`.
    args : sequence of str or None
        The words after the command; None for those that this process was started with.
    prog : str or None
        What the user typed to start it, "xpnet train"; None for the command's own default.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else: ignored, as by nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.update(launcher.threads())
    return call(name, args, prog)


def call(name: str, args: Sequence[str] | None, prog: str | None) -> int:
    """Import a command and run it; the parameters are those of `start`."""
    main = import_module(f"xpnet.commands.{name}").main
    status: int = main(args) if prog is None else main(args, prog)
    return status


def run(command: Callable[[], int], once: bool = True) -> int:
    """Run a command; returns its exit status, or that of what went wrong, said in one line.

    A launcher that starts it several times would get several results, one after the other: such a
    command is refused, unless `once` is false.

    0 done; 1 a file could not be read or written; 2 usage, bad data, or too large for the memory;
    3 device; 5 a loss that is not finite; 6 a rank was lost; 129 / 130 / 138 / 143 ended by
    SIGHUP / SIGINT / SIGUSR1 / SIGTERM.
    """
    launched = launcher.launch() if once else None
    if launched is None or launched.size == 1:
        return _guarded(lambda: _said(_outcome(command)))
    several = UsageError(
        f"{launched.name} started {launched.size} processes, and this command works in one: "
        "start it without the launcher"
    )
    return _guarded(lambda: _refused(several, launched))


def run_on_ranks(command: Callable[[Group], int]) -> int:
    """Run a command on all processes that a launcher started; returns the exit status of all.

    Rank 0 alone prints. What goes wrong is said once, with the rank if it did not on all of them.
    """

    def on_ranks() -> int:
        try:
            group = world()
        except UsageError as error:
            return _refused(error, launcher.launch())
        except (SystemExit, KeyboardInterrupt) as end:  # by a signal
            if launcher.launch() is None:
                raise
            # MPI's own end would wait for the others, which are still in its start.
            status = end.code if isinstance(end, SystemExit) else 130
            os._exit(status if isinstance(status, int) else 1)
        if group.size == 1:
            return _said(_outcome(lambda: command(group)))
        with nullcontext() if group.rank == 0 else _silence():
            outcome = group.end(_outcome_of_rank(lambda: command(group)))
        return _said(outcome) if group.rank == 0 else outcome.status

    return _guarded(on_ranks)


def _refused(error: UsageError, launched: Launch | None) -> int:
    """Say what is wrong before the ranks can talk to each other, in one line if possible.

    If rank 0 says it too, the launcher ends the others, who wait for that. It may also have ended
    rank 0 first, or rank 0 has nothing to say.
    """
    rank = 0 if launched is None else launched.rank
    if rank:
        time.sleep(SAYING_SECONDS)
    return _said(Outcome(error.exit_status, f"rank {rank}: {error}" if rank else str(error)))


def _outcome_of_rank(command: Callable[[], int]) -> Outcome:
    """Return how the work of a rank ended, whatever ended it: the others must be told."""
    try:
        return _outcome(command)
    except KeyboardInterrupt:
        return Outcome(130)
    except SystemExit as end:
        return Outcome(end.code if isinstance(end.code, int) else int(end.code is not None))
    except Exception:
        traceback.print_exc(file=sys.__stderr__)
        return Outcome(1)


@contextmanager
def _silence() -> Iterator[None]:
    """Print nothing: rank 0 says it."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _guarded(work: Callable[[], int]) -> int:
    """Call `work` while signals end it, and warnings are lines of its own."""

    def show(message: Any, *rest: Any, **more: Any) -> None:
        complain(f"warning: {message}")

    asked: list[int] = []  # the signals that have come
    waiting: list[int] = []  # those whose next try is being started

    def terminate(number: int, frame: Any) -> None:
        # In a callback of an import, Python prints the exception and goes on: try again soon. The
        # next try may come before this one has started it, and is then in the same callback.
        importing = frame is not None and frame.f_code.co_filename.startswith(IMPORTING)
        if importing or waiting or (frame is not None and frame.f_code is terminate.__code__):
            waiting.append(number)
            threading.Timer(0.005, os.kill, (os.getpid(), number)).start()
            waiting.pop()
            return
        asked.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)  # so that what is half-written is cleaned up

    try:
        with (
            _open_streams(),
            handling(STOPPING, terminate),
            warnings.catch_warnings(),
        ):
            warnings.showwarning = show
            return work()
    except KeyboardInterrupt:
        return 130
    except Exception:
        # Code in C may replace a handler's exception: CPython's own, in a failing import, by a
        # TypeError.
        if not asked:
            raise
        return 128 + asked[-1]


def _said(outcome: Outcome) -> int:
    if outcome.text:
        complain(outcome.text)
    return outcome.status


def _outcome(command: Callable[[], int]) -> Outcome:
    try:
        try:
            return Outcome(command())
        except SystemExit as end:  # after --help, say, which may still have to be written
            with suppress(OSError) if end.code else nullcontext():
                emit("")
            raise
    except XpnetError as error:
        return Outcome(error.exit_status, str(error))
    except MemoryError as error:
        return Outcome(2, f"not enough memory: {error}; use a smaller --hidden or --batch-size")
    except BrokenPipeError:  # `| head` has read enough
        _mute(sys.stdout)
        return Outcome(0)
    except OSError as error:
        what = error.filename or "reading or writing failed"
        return Outcome(1, f"{what}: {error.strerror or error}")


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle signals while the block runs.

    A signal that whoever started us ignores stays ignored, as under nohup. Python hands signals to
    the main thread alone: in another one, nothing changes.
    """
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _open_streams() -> Iterator[None]:
    """Replace streams that whoever started us has closed; what is written to stdout then fails.

    It fails as on a full disk, so that no result is lost in silence. A closed descriptor would also
    go to the next file that is opened, and libraries in C write their messages to 1 and 2.
    """
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    with ExitStack() as stack:
        closed = stack.enter_context(open(descriptor, "w"))
        if sys.stdout is None:
            stack.enter_context(redirect_stdout(closed))
        if sys.stderr is None:
            stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        yield


def complain(text: str) -> None:
    """Print a line on stderr, if that is possible."""
    try:
        print(f"xpnet: {one_line(text)}", file=sys.stderr, flush=True)
    except OSError:
        _mute(sys.stderr)


def emit(text: str, errors: str = "strict") -> None:
    """Print the result of a command, whole; `errors` as in str.encode.

    Raises
    ------
    OSError
        It cannot be written; or the stream's encoding lacks a character, and nothing is.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, errors).decode(encoding))
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        what = f"cannot write {error.object[error.start]!r} in {encoding}"
        advice = "write into a file, or set PYTHONIOENCODING=utf-8"
        raise OSError(errno.EILSEQ, f"{what}; {advice}", STDOUT) from None
    except OSError as error:
        _mute(sys.stdout)
        raise OSError(error.errno, error.strerror, STDOUT) from None


def say(*lines: str) -> None:
    """Print lines; if they cannot be printed, go on in silence: the work is what counts."""
    from xpnet.trainer.words import print_lines

    try:
        print_lines(*lines)
    except OSError as error:
        _mute(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EBADF):  # `| head` has read enough, or `>&-`
            complain(f"warning: cannot print ({error.strerror}); the work goes on in silence")


def _mute(stream: Any) -> None:
    """Let what a stream still holds go nowhere, for Python would fail on it at the end."""
    with suppress(OSError, ValueError):  # a stream that Python code put in its place
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
