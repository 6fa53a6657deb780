"""Which GPU each rank of a training takes: that of its number among the ranks of its machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from xpnet.backend.gpu import has_gpu
from xpnet.backend.interface import Backend
from xpnet.backend.select import select
from xpnet.errors import DeviceError, UsageError, counted

__all__ = ["Place", "check_places", "in_words", "local_device", "place_of", "select_together"]


class Local(Protocol):
    """What choosing a device needs of the ranks; `xpnet.parallel.Group` is one."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def local_size(self) -> int: ...
    def gather(self, value: Any) -> list[Any]: ...
    def together(self, function: Callable[[], Any]) -> Any: ...


class Place(NamedTuple):
    """Where a rank computes.

    Attributes
    ----------
    machine, device, name : str
        "node1", "cuda:0", "NVIDIA H100".
    bus : str
        The address of the GPU on its machine's PCI bus; "" on a CPU, or if it is unknown.
    """

    machine: str
    device: str
    name: str
    bus: str


def local_device(device: str, local_rank: int, local_size: int, gpus: int) -> str:
    """Return the device of a rank, given the device that was asked for.

    Parameters
    ----------
    device : str
        "cpu", "cuda", "cuda:N" or "auto".
    local_rank, local_size : int
        The number of this rank among those of its machine, and how many these are.
    gpus : int
        The GPUs that this rank can see. Some launchers show each rank its own GPU only.

    Raises
    ------
    DeviceError
        There are more ranks than GPUs, or all ranks would take one GPU.

    Examples
    --------
    >>> local_device("cuda", 1, 2, 4), local_device("cuda", 1, 2, 1), local_device("cpu", 1, 2, 4)
    ('cuda:1', 'cuda:0', 'cpu')
    """
    kind, _, number = device.strip().lower().partition(":")
    if local_size == 1 or kind not in ("cuda", "auto") or gpus == 0:
        return device
    if number:
        raise DeviceError(
            f"device {device} is one GPU, and {local_size} ranks of this machine would share it: "
            "use device cuda, by which each rank takes its own"
        )
    if gpus == 1:  # that of this rank, if the launcher shares them out; `check_places` finds out
        return "cuda:0"
    if gpus < local_size:
        raise DeviceError(
            f"this machine has {counted(local_size, 'rank')} and {counted(gpus, 'GPU')}; expected "
            f"a GPU for each rank: start {gpus} ranks on it, or use device cpu"
        )
    return f"cuda:{local_rank}"


def check_places(places: Sequence[Place]) -> None:
    """Refuse two ranks on one GPU; `places` are those of all ranks.

    Raises
    ------
    DeviceError

    Examples
    --------
    >>> check_places([Place("node1", f"cuda:{k}", "H100", f"0000:{k}:00.0") for k in range(2)])
    """
    found: dict[tuple[str, str], int] = {}
    for rank, place in enumerate(places):
        if not place.bus:
            continue
        first = found.setdefault((place.machine, place.bus), rank)
        if first != rank:
            raise DeviceError(
                f"ranks {first} and {rank} are on one GPU, {place.device} ({place.name}) of "
                f"{place.machine}; expected a GPU for each rank: start fewer ranks, or show each "
                "its own (CUDA_VISIBLE_DEVICES, Slurm's --gpus-per-task=1)"
            )


def in_words(places: Sequence[Place]) -> str:
    """Say which rank computes where, in one line.

    Examples
    --------
    >>> in_words([Place("node1", f"cuda:{k}", "H100", f"0000:{k}:00.0") for k in range(2)])
    'rank 0 on cuda:0 of node1 (H100), rank 1 on cuda:1 of node1 (H100)'
    """
    return ", ".join(
        f"rank {rank} on {place.device} of {place.machine} ({place.name})"
        for rank, place in enumerate(places)
    )


def place_of(backend: Backend) -> Place:
    """Return where this process computes."""
    bus = ""
    if backend.device != "cpu" and backend.library in _BUS:
        bus = _BUS[backend.library](int(backend.device.rpartition(":")[2]))
    return Place(os.uname().nodename, backend.device, backend.device_name, bus)


def select_together(
    ranks: Local,
    device: str = "auto",
    library: str | None = None,
    dtype: str = "float32",
    precision: str = "float32",
) -> tuple[Backend, list[Place]]:
    """Select the backend of this rank; "auto" takes cuda if every rank has a GPU of its own.

    All ranks call it. It prints nothing.

    Parameters
    ----------
    ranks : Group
    device, library, dtype, precision
        See `xpnet.select`.

    Returns
    -------
    backend : Backend
    places : list of Place
        Those of all ranks, by rank; see `in_words`.

    Raises
    ------
    UsageError, DeviceError
        As `xpnet.select`, on all ranks if one of them fails; or two ranks are on one GPU.

    Examples
    --------
    >>> from xpnet.parallel import ALONE
    >>> backend, places = select_together(ALONE, "cpu")
    >>> backend.library, len(places)
    ('numpy', 1)
    """
    options: dict[str, Any] = {"quiet": True, "precision": precision}

    def opened(asked: str) -> Backend:
        gpus = 0 if asked.strip().lower() == "cpu" else _gpus(library or "cupy")
        there = local_device(asked, ranks.local_rank, ranks.local_size, gpus)
        return select(there, library, dtype, **options)

    automatic = isinstance(device, str) and device.strip().lower() == "auto"
    if ranks.size == 1 or not automatic:
        backend = ranks.together(lambda: opened(device))
        places = ranks.gather(place_of(backend))
        check_places(places)
        return backend, places

    found: Backend | None = None
    reason = ""
    try:
        found = opened("cuda")
    except (DeviceError, UsageError) as error:  # UsageError: numpy, say, runs on the CPU only
        reason = str(error) if isinstance(error, DeviceError) and has_gpu() else " "
    each = ranks.gather((reason, None if found is None else place_of(found)))
    reasons = [f"rank {rank}: {why}" for rank, (why, _) in enumerate(each) if why.strip()]
    if found is not None and all(place is not None for _, place in each):
        places = [place for _, place in each]
        try:
            check_places(places)
            return found, places
        except DeviceError as error:
            reasons = [str(error)]
    backend = ranks.together(lambda: select("cpu", library, dtype, **options))
    if reasons:
        backend.note = "not on cuda: " + reasons[0].split(";")[0]
    return backend, ranks.gather(place_of(backend))


def _gpus(library: str) -> int:
    """Return how many GPUs a library sees; 0 if it cannot say, and `select` will say why."""
    try:
        return _COUNTS[library]() if library in _COUNTS else 0
    except Exception:  # each library has its own errors of a missing driver
        return 0


def _module(name: str) -> Any:
    return importlib.import_module(name)


_COUNTS: dict[str, Callable[[], int]] = {
    "cupy": lambda: int(_module("cupy").cuda.runtime.getDeviceCount()),
    "torch": lambda: int(_module("torch").cuda.device_count()),
    "jax": lambda: len(_module("jax").devices("gpu")),
}
# Of one GPU, each process may see another number, but all see the address on the bus. NCCL takes
# no two ranks on one either.
_BUS: dict[str, Callable[[int], str]] = {
    "cupy": lambda index: str(_module("cupy").cuda.runtime.deviceGetPCIBusId(index)),
    "torch": lambda index: str(_module("torch").cuda.get_device_properties(index).uuid),
}
