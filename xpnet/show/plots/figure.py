"""Make figures with matplotlib, which is imported only when you draw one."""

from __future__ import annotations

from typing import Any

from xpnet.errors import UsageError

__all__ = ["new_figure", "require"]


def require(caller: str = "--plot") -> None:
    """Raise `UsageError` if matplotlib cannot draw. Call this before a training, not after it.

    `caller` is what needs it, in the words of who asked for a picture.
    """
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise UsageError(f"{caller}: matplotlib cannot be imported: {error}") from error
        raise UsageError(f"{caller} needs matplotlib: pip install 'xpnet[plot]'") from None
    except (ImportError, ValueError) as error:  # a broken installation, or MPLBACKEND=nonsense
        reason = " ".join(str(error).split())
        raise UsageError(f"{caller}: matplotlib cannot be imported: {reason}") from error


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure; `width` and `height` are in inches."""
    from matplotlib.figure import Figure  # pyplot would open windows and keep global state

    return Figure(figsize=(width, height), layout="constrained")
