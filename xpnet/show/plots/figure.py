"""A figure of matplotlib, which is loaded only when one is drawn."""

from __future__ import annotations

from typing import Any

from xpnet.errors import UsageError

__all__ = ["new_figure", "require"]


def require() -> None:
    """Raise `UsageError` if matplotlib is missing: before the training, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib: pip install 'xpnet[plot]'") from None


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    return Figure(figsize=(width, height), layout="constrained")
