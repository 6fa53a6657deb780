"""A set in training on disk: checkpoints from which all its models continue exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import CheckpointError
from xpnet.files import locked, make_folder
from xpnet.many.members import Candidate
from xpnet.many.parts import Part
from xpnet.many.rules import form_and_numbers
from xpnet.many.stack import Stack
from xpnet.many.training import Run
from xpnet.models import checkpoint
from xpnet.trainer.history import History
from xpnet.trainer.resume import WORDS, digest

__all__ = ["SavedSet", "identity"]

FORMAT = 1


def identity(
    chosen: Sequence[Candidate], parts: Mapping[int, Part], rules: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a set and its continuation must have in common, as JSON can hold it."""
    models = [
        {
            "network": each.network.arguments or each.network.gates,
            "rule": [type(each.rule).__name__, form_and_numbers(each.rule)[1]],
            "weight_decay": each.weight_decay,
            **({"l1": each.l1} if each.l1 else {}),  # there was none before 0.3.0
            "clip_norm": each.clip_norm,
            "batch_size": each.batch_size,
            "epochs": each.epochs,
            "seed": each.member.seed,
            "part": each.part,
        }
        for each in chosen
    ]
    data = {}
    for number, part in parts.items():
        given = part.given
        held = [] if given.held is None else given.held
        scalings = (*(given.scaling or ()), *(given.target_scaling or ()))
        data[str(number)] = {
            "samples": digest(given.x),
            "targets": digest(given.t),
            "validation": [*map(digest, held)],
            "sample_weight": [*map(digest, given.weights)],
            "scaling": [digest(np.atleast_1d(np.asarray(v, np.float64))) for v in scalings],
        }
    first = parts[chosen[0].part].model
    start = [
        digest(np.concatenate([np.ravel(p) for p in each.network.params.values()]))
        for each in chosen
        if not each.network.builder
    ]
    return checkpoint.plain(
        {"models": models, "data": data, "dtype": first.feed.dtype, "weights": start} | dict(rules)
    )


@dataclass
class SavedSet:
    """Save a running set and read it back; without a folder, do nothing."""

    folder: Path | None
    identity: dict[str, Any]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it against other processes while the block runs."""
        if self.folder is None:
            yield
            return
        made = make_folder(self.folder)
        with locked(self.folder):
            try:
                yield
            finally:
                for folder in reversed(made):  # a refused run leaves no empty folder
                    with suppress(OSError):
                        folder.rmdir()

    def save(self, run: Run) -> None:
        """Write a checkpoint of all models.

        Raises
        ------
        OSError
            The system cannot write it; the one before it is untouched.
        """
        if self.folder is None:
            return
        arrays: dict[str, np.ndarray] = {}
        for number, stack in enumerate(run.stacks):
            if not stack.live:
                continue
            arrays |= {f"stack{number}/params/{n}": p for n, p in stack.on_host().items()}
            to_numpy = stack.backend.to_numpy
            arrays |= {f"stack{number}/state/{n}": to_numpy(v) for n, v in stack.state.items()}
            if run.unfinished[number]:
                arrays[f"stack{number}/losses"] = np.concatenate(run.unfinished[number])
        histories = []
        for index, history in enumerate(run.histories):
            past, course = history.pack()
            arrays |= {f"model{index}/{name}": value for name, value in past.items()}
            ended = run.params.get(index, {})
            arrays |= {f"model{index}/params/{name}": value for name, value in ended.items()}
            histories.append(course | {"why": history.reason, "failure": history.failure})
        meta = {
            "run_of_set": FORMAT,
            "identity": self.identity,
            "histories": histories,
            "stacks": [stack.members for stack in run.stacks],
            "called": run.called,
            "live": [[each.member.index for each in stack.live] for stack in run.stacks],
            "done": run.done,
            "seconds": run.seconds,
        }
        step = sum(history.steps for history in run.histories) + sum(
            losses.size for part in run.unfinished for losses in part
        )
        checkpoint.save_numbered(self.folder, step, arrays, meta)

    def begin(self) -> None:
        """Refuse a folder that holds the checkpoints of another run."""
        if self.folder is None:
            return
        steps = [path.name for path in checkpoint.numbered(self.folder)]
        if [name for name in steps if name != "step-00000000.npz"]:
            raise CheckpointError(
                f"{self.folder}: holds the checkpoints of another run; "
                "continue it (resume=True), or name another folder"
            )

    def restore(self, build: Callable[[list[list[int]]], Run]) -> Run | None:
        """Return the run of the newest checkpoint; None if there is none.

        Parameters
        ----------
        build : callable
            Makes a run before its first step, of stacks of these models. How many train at once
            may have been another number then.

        Raises
        ------
        CheckpointError
            No checkpoint is whole, or the newest one is of another run.
        """
        if self.folder is None or not checkpoint.numbered(self.folder):
            return None
        arrays, meta, path, _ = checkpoint.load_latest(self.folder)
        if meta.get("run_of_set") != FORMAT:
            raise CheckpointError(f"{path}: is not the checkpoint of a set of models")
        if changed := _changed(meta.get("identity"), self.identity):
            raise CheckpointError(
                f"{path}: belongs to another run: {changed}. Put that back, or start a new run"
            )
        try:
            run = build(meta["stacks"])
            self._fill(run, arrays, meta)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{path}: is not as xpnet writes it: {error!r}") from error
        return run

    @staticmethod
    def _fill(run: Run, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        for index, course in enumerate(meta["histories"]):
            own = checkpoint.section(arrays, f"model{index}/")
            if params := checkpoint.section(own, "params/"):
                run.params[index] = params
            run.histories[index] = History.unpack(own, course)
            run.histories[index].reason = course["why"]
            run.histories[index].failure = course["failure"]
        run.done, run.seconds = list(meta["done"]), list(meta["seconds"])
        run.called = meta["called"]
        for number, (stack, live) in enumerate(zip(run.stacks, meta["live"], strict=True)):
            places = [i for i, each in enumerate(stack.live) if each.member.index in set(live)]
            if not places:
                stack.live = []
                continue
            _restored(stack, places, checkpoint.section(arrays, f"stack{number}/"))
            losses = arrays.get(f"stack{number}/losses")
            run.unfinished[number] = [] if losses is None else [losses]


def _restored(stack: Stack, places: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
    if len(places) < len(stack.live):
        stack.keep(places)
    for name, here in (("params", stack.params), ("state", stack.state)):
        found = checkpoint.section(arrays, f"{name}/")
        shapes = {key: tuple(value.shape) for key, value in here.items()}
        if {key: value.shape for key, value in found.items()} != shapes:
            raise ValueError(f"its {name} do not fit")
        setattr(stack, name, stack.feed.copies(found))


def _changed(then: Any, now: Mapping[str, Any]) -> str:
    """Return how a set differs from the saved one; "" if it does not."""
    if not isinstance(then, dict):
        return "it says of none"
    if len(then.get("models", ())) != len(now["models"]):
        return f"it had {len(then.get('models', ()))} models, now there are {len(now['models'])}"
    for number, (was, this) in enumerate(itertools.zip_longest(then["models"], now["models"])):
        for name in {**was, **this}:
            if was.get(name) != this.get(name):
                return f"model {number}: {_difference(name, was.get(name), this.get(name))}"
    for number, this in now["data"].items():
        was = then.get("data", {}).get(number, {})
        for name in this:
            if was.get(name) != this[name]:
                where = f", in part {number} of the data" if len(now["data"]) > 1 else ""
                return f"{WORDS[name]}{where}"
    for name in now:
        if then.get(name) != now[name]:
            return f"{name} was {then.get(name)}, is {now[name]}"
    return ""


def _difference(name: str, was: Any, this: Any) -> str:
    """Return what differs of two values; of tables the first entry that does."""
    if isinstance(was, dict) and isinstance(this, dict):
        for key in {**was, **this}:
            if was.get(key) != this.get(key):
                return _difference(key, was.get(key), this.get(key))
    return f"{name} was {was}, is {this}"
