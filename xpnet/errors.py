"""What can go wrong by a user's hand: one class per exit status, one line per message."""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DataError",
    "DeviceError",
    "NonFiniteLossError",
    "NotCapturedWarning",
    "UsageError",
]


class UsageError(ValueError):
    """An option or argument that cannot be; exit status 2."""

    exit_status = 2


class DataError(ValueError):
    """Data that cannot be trained on, naming file, row or key; exit status 2."""

    exit_status = 2


class CheckpointError(ValueError):
    """A checkpoint that is damaged, missing, or of another run; exit status 2."""

    exit_status = 2


class DeviceError(RuntimeError):
    """A device or array library that cannot be used, and what to install; exit status 3."""

    exit_status = 3


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number; exit status 5.

    Attributes
    ----------
    epoch, step : int
        Where, counted from 1 (epoch) and over the whole run (step).
    """

    exit_status = 5

    def __init__(self, message: str, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step


class NotCapturedWarning(RuntimeWarning):
    """A step runs in the plain loop, because it cannot be captured into a CUDA graph."""
