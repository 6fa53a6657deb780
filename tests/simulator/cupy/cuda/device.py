from cupy import simulator as _simulator
from cupy._errors import CUDARuntimeError as _CUDARuntimeError
from cupy._memory import mem_info as _mem_info
from cupy._stream import synchronize_device as _synchronize_device


class Device:
    """Real devices fail when they are used, not when they are named; so do these."""

    def __init__(self, device=None):
        self.id = 0 if device is None else int(device)

    def use(self):
        if not 0 <= self.id < _simulator.device_count:
            raise _CUDARuntimeError(101)

    def __enter__(self):
        self.use()
        return self

    def __exit__(self, *error):
        pass

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def synchronize(self):
        self.use()
        _synchronize_device()

    @property
    def mem_info(self):
        self.use()
        return _mem_info()

    @property
    def compute_capability(self):
        return _simulator.compute_capability
