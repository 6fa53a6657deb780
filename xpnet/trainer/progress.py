"""The progress bar of a training; tqdm is imported when a bar is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["progress_bar", "tqdm_auto"]


@contextmanager
def progress_bar(total: int, done: int, shown: bool) -> Iterator[Callable[[np.ndarray], None]]:
    """Show a bar of steps on stderr, or a widget in a notebook, while the block runs.

    Parameters
    ----------
    total, done : int
        All steps of the run, and those before it begins.
    shown : bool

    Yields
    ------
    callable
        Call it with the losses of each chunk of steps.
    """
    if not shown:
        yield lambda losses: None
        return
    bar = tqdm_auto()(total=total, initial=done, unit="step", leave=False, dynamic_ncols=True)
    with bar:

        def advance(losses: np.ndarray) -> None:
            bar.set_postfix_str(f"loss {losses[-1]:.4g}", refresh=False)
            bar.update(len(losses))

        yield advance


def tqdm_auto() -> Any:
    """Return tqdm's class for this place: a widget in a notebook, text in a terminal."""
    with warnings.catch_warnings():
        # A notebook without ipywidgets gets the bar of text, which needs no advice on Jupyter.
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm
    return tqdm
