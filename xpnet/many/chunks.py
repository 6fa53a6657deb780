"""How many networks to train together: as many as the caches, or a GPU's memory, have room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from xpnet.backend.interface import Backend
from xpnet.models.network import Network
from xpnet.models.stack import unstackable

__all__ = ["bytes_per_model", "dealt", "even_chunks", "models_at_once"]

T = TypeVar("T")
MIB = 1 << 20
# Bytes of a stack on the CPU, by library; see `models_at_once`.
MOST_BYTES = {"numpy": 16 * MIB, "torch": 16 * MIB, "strict": 16 * MIB, "jax": 3 * MIB}
# Share of a GPU's memory, of which a library's pool and a captured graph may hold several copies.
GPU_SHARE = 8
UNKNOWN_MEMORY = 8 << 30
# Arrays of a layer's output that live at the same time: the product, its activation, their
# gradient, and what is computed on the way.
ALIVE = 4


def bytes_per_model(network: Network, batch_size: int, slots: int, dtype: Any) -> int:
    """Return about how many bytes a step reads and writes for each model of a stack.

    These are the parameters, their gradients, the optimizer's slots, the model's own batch, and
    `ALIVE` arrays of each layer's output.

    Parameters
    ----------
    network : Network
        One of the stack, as `xpnet.models.stack.unstackable` accepts it.
    batch_size : int
    slots : int
        Arrays that the optimizer keeps for each parameter: 2 for Adam.
    dtype
        The dtype of the parameters.

    Examples
    --------
    >>> from xpnet import mlp
    >>> bytes_per_model(mlp([20, 32, 2]), 32, 0, "float32")  # 4 (2 * 738 + 32 (20 + 4 * 34))
    25872
    """
    shapes = [np.shape(p) for p in network.params.values()]
    weights = [shape for shape in shapes if len(shape) == 2]
    size = sum(map(math.prod, shapes))
    width = sum(shape[1] for shape in weights)
    inputs = weights[0][0] if weights else 0
    numbers = (2 + slots) * size + batch_size * (inputs + ALIVE * width)
    return int(np.dtype(dtype).itemsize * numbers)


def models_at_once(
    network: Network, batch_size: int, slots: int, dtype: Any, backend: Backend
) -> int:
    r"""Return how many networks of this form should train as one stack, at least 1.

    It is $\max(1, \lfloor B / b \rfloor)$ with b from `bytes_per_model`. B is 16 MiB on NumPy and
    PyTorch, 3 MiB on JAX, and an eighth of a GPU's memory. 1 means one by one, by the ordinary
    step: also for a network that no stack can hold, see `xpnet.models.stack.unstackable`.

    Notes
    -----
    Measured on two cores of a Xeon at 2.5 GHz with 1 MiB of L2 each and 36 MiB of L3, NumPy and
    PyTorch in seconds of one thread; times as fast as one by one, SGD, float32:

    ======================  =======  =====  =====  =====  =====  =====  =====
    network/batch, library  KiB      K = 2  4      16     64     128    256
    ======================  =======  =====  =====  =====  =====  =====  =====
    20-32-2/32, NumPy            25   1.46   2.72   7.88  15.30  18.03  17.94
    64-100-10/100, NumPy        256   1.22   1.77   2.29   2.40   2.30   2.24
    784-50-10/100, NumPy        711   1.13   1.25   1.32   1.43   1.29   1.02
    784-256-10/128, NumPy      2514   1.07   1.12   1.18   1.16
    20-32-2/32, PyTorch          25   1.46   2.80   9.67  25.78         41.54
    64-100-10/100, PyTorch      256   1.40   2.27   4.37   5.00          5.06
    784-50-10/100, PyTorch      711   1.23   1.53   1.72   1.97   1.47
    20-32-2/32, JAX              25          1.93   3.45   2.05   3.12   2.55
    64-100-10/100, JAX          256   1.21   1.39   1.27   1.30
    784-50-10/100, JAX          711   1.24   1.02   0.87   0.85
    ======================  =======  =====  =====  =====  =====  =====  =====

    784-1024-10/256 and 784-512-512-512-10/128 (11 MiB a model) gain nothing on NumPy: 0.95 to 1.02.
    A stack of one model is slower than the ordinary step (0.8 on NumPy).

    A stack pays for what a step costs beside its products, and that is spent once for all models.
    So a few models are enough where the products are the time. More of them lose nothing before
    the arrays of a stack leave the last cache, or reach the 32 MiB from which glibc maps them anew
    for each step: 16 MiB leave room for a smaller cache, and for another process. XLA compiles the
    steps of a single network to one loop without that cost, and its stacks lose where they leave a
    core's own cache.

    Examples
    --------
    >>> import xpnet
    >>> models_at_once(xpnet.mlp([784, 50, 10]), 100, 0, "float32", xpnet.select("cpu"))
    23
    """
    if unstackable(network):
        return 1
    room = MOST_BYTES.get(backend.library, MIB)
    if backend.device != "cpu":
        room = (backend.memory or UNKNOWN_MEMORY) // GPU_SHARE
    return max(1, room // bytes_per_model(network, batch_size, slots, dtype))


def even_chunks(models: int, most: int) -> list[int]:
    """Return the sizes of the fewest chunks of at most `most` models; they differ by at most one.

    Examples
    --------
    >>> even_chunks(10, 4)
    [4, 3, 3]
    """
    chunks = -(-models // most)
    each, more = divmod(models, chunks) if chunks else (0, 0)
    return [each + 1] * more + [each] * (chunks - more)


def dealt(
    groups: Iterable[tuple[Sequence[T], int, float]], ranks: int
) -> list[tuple[int, list[T]]]:
    """Deal models to ranks, and cut what a rank gets of a group into stacks.

    Neighbours go to different ranks: the models of a setting, which a callback may drop together,
    are spread. Those left over go to the ranks that have the least to do.

    Parameters
    ----------
    groups : iterable of (models, most, work)
        Models of one form, how many of them train at once, and what one of them costs.
    ranks : int

    Returns
    -------
    list of (rank, models)
        The stacks, in the order of the groups.

    Examples
    --------
    >>> dealt([([0, 1, 2, 3, 4], 2, 1.0), ([5], 2, 1.0)], ranks=2)
    [(0, [0, 2]), (0, [4]), (1, [1, 3]), (1, [5])]
    """
    stacks: list[tuple[int, list[T]]] = []
    load = [0.0] * ranks
    for models, most, work in groups:
        order = sorted(range(ranks), key=load.__getitem__)
        for place, rank in enumerate(order):
            own = list(models[place::ranks])
            load[rank] += work * len(own)
            start = 0
            for size in even_chunks(len(own), most):
                stacks.append((rank, own[start : start + size]))
                start += size
    return stacks
