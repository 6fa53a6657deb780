# ruff: noqa: N802 - the names are CuPy's
"""NCCL between ranks that are threads of this process, each with its turn (`simulator.turn`).

Only what training needs: a communicator, its sum, its ends. As NCCL does, it refuses a sum in which
the ranks differ, and one that some ranks have recorded and others not.
"""

import itertools
import threading

import numpy as np

from cupy import _memory, _stream, simulator

available = True
NCCL_SUM = 0
NCCL_FLOAT32, NCCL_FLOAT64 = 7, 8
_DTYPES = {NCCL_FLOAT32: np.float32, NCCL_FLOAT64: np.float64}
_names = itertools.count(1)
_meetings = {}  # name -> _Meeting


class NcclError(RuntimeError):
    def __init__(self, status):
        self.status = status
        words = {1: "UNHANDLED_CUDA_ERROR: unhandled cuda error", 5: "INVALID_USAGE: invalid usage"}
        more = "(run with NCCL_DEBUG=INFO for details)"
        super().__init__(f"NCCL_ERROR_{words.get(status, status)} {more}")

    def __reduce__(self):
        return type(self), (self.status,)


class _Meeting:
    """Where the ranks of a communicator lay down what they have, and read what the others have."""

    def __init__(self, size):
        self.laid = [None] * size
        self.barrier = threading.Barrier(size, timeout=simulator.nccl_timeout)

    def exchange(self, rank, value):
        self.laid[rank] = value
        with simulator.others_turn():
            self.barrier.wait()
        found = list(self.laid)
        with simulator.others_turn():
            self.barrier.wait()
        return found


def get_version():
    return 22707


def get_unique_id():
    return b"simulated %d" % next(_names) + bytes(116)


class NcclCommunicator:
    def __init__(self, ndev, commId, rank, config=None):
        if not isinstance(commId, bytes):
            raise TypeError("Argument 'commId' has incorrect type")
        if simulator.nccl_fails == "init":
            raise NcclError(5)
        self._rank = rank
        self._meeting = _meetings.setdefault(commId, _Meeting(ndev))
        self._meeting.exchange(rank, "init")

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        source, target = _memory.find(sendbuf), _memory.find(recvbuf)
        if source is None or target is None or op != NCCL_SUM:
            raise NcclError(1)
        stream = _stream._streams[stream]
        if simulator.nccl_fails == ("capture" if stream.is_capturing() else "sum"):
            raise NcclError(1)
        dtype, ways = np.dtype(_DTYPES[datatype]), "captured" if stream.is_capturing() else "queued"

        def part(memory, address):
            start = address - memory.ptr
            return memory._bytes()[start : start + count * dtype.itemsize].view(dtype)

        given, taken = part(source, sendbuf), part(target, recvbuf)
        simulator.nccl_calls.setdefault(self._rank, []).append((ways, count, dtype.name))

        def work():
            found = self._meeting.exchange(self._rank, (ways, given.copy()))
            if {(how, each.size, each.dtype) for how, each in found} != {(ways, count, dtype)}:
                raise RuntimeError("simulator: the ranks sum different things")
            taken[...] = sum(each for _, each in found)

        _stream.submit("ncclAllReduce", work, (source,), (target,), stream)

    def abort(self):
        raise NotImplementedError("simulator: it waits for the graphs that hold one of its sums")

    destroy = abort
