"""Make figures with matplotlib, which is imported only when you draw one."""

from __future__ import annotations

from typing import Any

from xpnet.errors import UsageError

__all__ = ["new_figure", "require"]


def require() -> None:
    """Raise `UsageError` if matplotlib is missing. Call this before a training, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib: pip install 'xpnet[plot]'") from None


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure; `width` and `height` are in inches."""
    from matplotlib.figure import Figure  # pyplot would open windows and keep global state

    return Figure(figsize=(width, height), layout="constrained")
