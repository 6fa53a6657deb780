"""Whether this machine has an NVIDIA GPU, by its files: no library is imported to find out."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["has_gpu"]

# The driver's files: the devices, its list of GPUs, the GPU of a Jetson, and that of WSL.
SIGNS = (
    "dev/nvidia[0-9]*", "proc/driver/nvidia/gpus/*", "dev/nvgpu*", "dev/nvhost-gpu", "dev/dxg",
)  # fmt: skip


def has_gpu(root: Path = Path("/")) -> bool:
    """Whether files say that an NVIDIA GPU and its driver are here; or nvidia-smi is.

    Parameters
    ----------
    root : path
        The folder of /dev and /proc, for the tests.

    Examples
    --------
    >>> has_gpu() in (True, False)
    True
    """
    if any(next(root.glob(sign), None) for sign in SIGNS):
        return True
    return shutil.which("nvidia-smi") is not None
