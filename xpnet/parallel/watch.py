"""A thread that hears from the other ranks, and ends this one when one of them is lost.

A rank that was killed, stopped or cut off leaves the others in a reduction that never returns, and
not every launcher notices. So each rank has this thread, which sends a beat to rank 0 and hears
rank 0's. It works while the main thread waits inside MPI.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from xpnet.errors import one_line

__all__ = ["LOST", "Watch"]

# The exit status when a rank was lost, that of `xpnet.errors.RankError`.
LOST = 6
# Of the time that a rank may be silent: beats come this often, and silence is noticed after this.
BEAT_SHARE, SILENCE_SHARE = 1 / 8, 3 / 4
# A rank that waits so long for one that has ended will wait for ever.
WAITED_SECONDS = 3.0
# An abort that does not end this process within so many seconds is helped.
ABORT_SECONDS = 3.0
NOBODY = -1


class Watch:
    """Send and hear beats until `stop`.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        A communicator of its own.
    seconds : float
        All ranks end within so many seconds after one was lost.
    waiting_since : callable
        Returns since when (`time.monotonic`) the main thread has waited for the others, or 0.

    Attributes
    ----------
    ended : bool
        Set it when this rank has ended its work: whoever then waits for it is told.
    """

    def __init__(self, comm: Any, seconds: float, waiting_since: Callable[[], float]) -> None:
        self._comm, self._waiting_since = comm, waiting_since
        self._every, self._silence = seconds * BEAT_SHARE, seconds * SILENCE_SHARE
        self._hosts = comm.allgather(os.uname().nodename)
        self._peers = range(1, comm.size) if comm.rank == 0 else range(1)
        self._stop = threading.Event()
        self.ended = False
        self._thread = threading.Thread(target=self._guarded, name="xpnet-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the others must not need its beats any more."""
        self._stop.set()
        self._thread.join()

    def _guarded(self) -> None:
        """Watch; where MPI itself fails, as after a cut link, nobody would hear of a lost rank."""
        try:
            self._run()
        except Exception as error:
            self._give_up(f"cannot talk to the others ({error})", self._comm.rank)

    def _run(self) -> None:
        from mpi4py import MPI

        comm = self._comm
        now = time.monotonic()
        heard = dict.fromkeys(self._peers, now)
        gone = NOBODY  # a rank that has ended
        sent: dict[int, Any] = {}
        buffers = {peer: array("q", [NOBODY]) for peer in self._peers}
        beaten, looked = 0.0, now
        # Of several ranks that miss rank 0, rank 1 says so first, and ends the others.
        silence = self._silence + (comm.rank > 1) * self._every
        while not self._stop.wait(min(self._every / 2, 0.5)):
            now = time.monotonic()
            if now - looked > self._every:  # this process itself was stopped
                heard = dict.fromkeys(self._peers, now)
            looked = now
            message = array("q", [NOBODY])
            status = MPI.Status()
            while comm.Iprobe(status=status):
                comm.Recv(message, source=status.source)
                heard[status.source] = now
                if message[0] != NOBODY:
                    gone = message[0]
            if now - beaten >= self._every:
                beaten = now
                for peer in self._peers:
                    if peer in sent and not sent[peer].Test():
                        continue  # it has not taken the last one
                    buffers[peer][0] = comm.rank if self.ended else gone if comm.rank == 0 else -1
                    sent[peer] = comm.Isend(buffers[peer], dest=peer)
            for peer, last in heard.items():
                if now - last > silence:
                    self._give_up(f"has not answered for {now - last:.0f} s", peer)
            since = self._waiting_since()
            says = comm.rank == (gone == 0)  # one of those that wait; the others leave it the time
            waits = WAITED_SECONDS + (not says) * self._every
            if gone not in (NOBODY, comm.rank) and since and now - since > waits:
                self._give_up("has ended, and the others wait for it", gone)
        for request in sent.values():
            request.Cancel()
            request.Free()

    def _give_up(self, what: str, rank: int) -> None:
        text = f"rank {rank} ({self._hosts[rank]}) {what}; all ranks end"
        abort(self._comm, LOST, text)


def abort(comm: Any, status: int, text: str) -> None:
    """Say a line, end all ranks and this process."""
    # An alarm ends this process even where MPI holds Python's lock; where nobody reads stderr, too.
    signal.setitimer(signal.ITIMER_REAL, 2 * ABORT_SECONDS)
    helper = threading.Timer(ABORT_SECONDS, os._exit, [status])
    helper.daemon = True
    helper.start()
    if text:
        with suppress(OSError):  # stderr is closed
            os.write(2, f"xpnet: {one_line(text)}\n".encode(errors="backslashreplace"))
    comm.Abort(status)
    os._exit(status)
