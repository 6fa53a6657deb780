# ruff: noqa: N802, N812, N816 - the names are CUDA's
from cupy import simulator as _simulator
from cupy._errors import CUDARuntimeError
from cupy._memory import mem_info as memGetInfo
from cupy._stream import synchronize_device as deviceSynchronize

__all__ = ["CUDARuntimeError", "deviceSynchronize", "memGetInfo"]

streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = range(3)
CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14


def getDeviceCount():
    return _simulator.device_count


def getDevice():
    return 0


def getDeviceProperties(index):
    if index >= _simulator.device_count:
        raise CUDARuntimeError(101)
    major, minor = _simulator.compute_capability[:-1], _simulator.compute_capability[-1]
    return {
        "name": b"Simulated GPU",
        "major": int(major),
        "minor": int(minor),
        "multiProcessorCount": 132,
        "totalGlobalMem": _simulator.memory,
        "sharedMemPerBlock": 48 * 1024,
        "sharedMemPerBlockOptin": 227 * 1024,
        "maxThreadsPerBlock": 1024,
        "warpSize": 32,
        "l2CacheSize": 50 * 2**20,
    }


def deviceGetPCIBusId(device):
    if device >= _simulator.device_count:
        raise CUDARuntimeError(101)
    return f"0000:{device + 1:02X}:00.0"


def driverGetVersion():
    return 13020


runtimeGetVersion = driverGetVersion
