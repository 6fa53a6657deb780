"""``xpnet COMMAND``: one door to the commands, which are imported when they are asked for.

Nothing here imports NumPy: the list of commands, the version and a wrong name take milliseconds,
and Ctrl-C ends the process without a traceback while a command is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import xpnet
from xpnet.commands.exits import call, emit, run, start
from xpnet.errors import UsageError, shortened, shown

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a network on your data, into a run folder",
    "predict": "predict new samples with a trained network, as CSV",
    "evaluate": "measure a trained network on a file with labels",
    "compare": "list runs beside each other, the best one first",
    "explain": "every variable of a network, its formula and shape; its picture",
    "gradcheck": "check a network's gradients",
}
EXAMPLES = (
    "train --data iris.csv --out runs/iris",
    "predict runs/iris new.csv --out predictions.csv",
    "compare runs/*",
)
# What other programs call a command.
ELSEWHERE = {
    "fit": "train", "run": "train", "learn": "train", "resume": "train --resume",
    "inference": "predict", "infer": "predict", "score": "evaluate", "test": "evaluate",
    "eval": "evaluate", "validate": "evaluate", "diff": "compare", "list": "compare",
    "ls": "compare", "summary": "explain", "draw": "explain", "show": "explain",
    "check": "gradcheck",
}  # fmt: skip


def main(args: Sequence[str] | None = None, prog: str = "xpnet") -> int:
    """Run ``xpnet COMMAND ...``; return the exit status.

    Parameters
    ----------
    args : sequence of str or None
        The words after the program; None for those that this process was started with.
    prog : str
        What you type to start it, for messages.

    Examples
    --------
    >>> main(["--version"])  # doctest: +ELLIPSIS
    xpnet ...
    0
    """
    words = sys.argv[1:] if args is None else list(args)
    if words and words[0] in COMMANDS:
        command = words[0], words[1:], f"{prog} {words[0]}"
        # In Python, Ctrl-C is the caller's; `start` sets what it does in a process of its own.
        return start(*command) if args is None else call(*command)
    return run(lambda: _without_command(words, prog), once=False)


def _without_command(words: Sequence[str], prog: str) -> int:
    """Print the version or the list of commands, or refuse what is not a command."""
    first = words[0] if words else "--help"
    if first in ("--version", "-V", "version"):
        emit(f"xpnet {xpnet.__version__}\n")
    elif first in ("--help", "-h", "help"):
        emit(_help(prog))
    else:
        raise UsageError(f"{_advice(first, words, prog)} (see {prog} --help)")
    return 0


def _help(prog: str) -> str:
    commands = (f"  {name:<10} {what}" for name, what in COMMANDS.items())
    examples = (f"  {prog} {example}" for example in EXAMPLES)
    return "\n".join(
        [
            f"usage: {prog} COMMAND ...",
            "",
            f"xpnet {xpnet.__version__}: train small neural networks on the CPU or a GPU.",
            "",
            "Commands:",
            *commands,
            "",
            f"{prog} COMMAND --help lists the options of a command.",
            "python -m xpnet.train is the same as xpnet train, and so on.",
            "",
            "Examples:",
            *examples,
            "",
        ]
    )


def _advice(first: str, words: Sequence[str], prog: str) -> str:
    """Say what to write in place of a word that is not a command."""
    from difflib import get_close_matches

    if first.startswith("-"):
        command = next((word for word in words if word in COMMANDS), "train")
        rest = shortened(" ".join(word for word in words if word != command))
        return f"{shown(first)} stands before the command; write {prog} {command} {rest}"
    if first.lower().endswith((".csv", ".tsv", ".npz", ".npy", ".parquet", ".gz")):
        rest = shortened(" ".join(words))
        return f"{shown(first)} is not a command; write {prog} train --data {rest}"
    name = first.lower().removeprefix("xpnet.").removeprefix("--")
    close = ELSEWHERE.get(name) or next(iter(get_close_matches(name, COMMANDS, 1, 0.6)), None)
    expected = f"did you mean {close}?" if close else f"expected {', '.join(COMMANDS)}"
    return f"{shown(first)} is not a command; {expected}"
