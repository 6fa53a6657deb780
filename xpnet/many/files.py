"""A set in training on disk: checkpoints from which all its models continue exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import CheckpointError
from xpnet.files import locked, make_folder
from xpnet.many.chunks import dealt
from xpnet.many.members import Candidate
from xpnet.many.parts import Part
from xpnet.many.rules import form_and_numbers
from xpnet.many.sharing import from_first, gathered
from xpnet.many.stack import Stack
from xpnet.many.training import Run
from xpnet.models import checkpoint
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.history import History
from xpnet.trainer.resume import WORDS, digest

__all__ = ["SavedSet", "identity"]

FORMAT = 1

Layout = list[tuple[int, list[int]]]


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
    """Save a running set and read it back; without a folder, do nothing.

    Rank 0 alone opens files, and what goes wrong there is raised on all ranks. So all of them call
    a method together.
    """

    folder: Path | None
    identity: dict[str, Any]
    group: Group = ALONE

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it against other processes while the block runs."""
        with ExitStack() as stack:
            if self.folder is not None:
                self.group.first(lambda: stack.enter_context(self._held()))
            yield

    @contextmanager
    def _held(self) -> Iterator[None]:
        assert self.folder is not None
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
        group = self.group
        arrays: dict[str, np.ndarray] = {}
        stacks: dict[int, Any] = {}
        for place, (number, stack) in enumerate(zip(run.numbers, run.stacks, strict=True)):
            live = [each.member.index for each in stack.live]
            stacks[number] = {"live": live, "done": run.done[place], "seconds": run.seconds[place]}
            if not live:
                continue
            arrays |= {f"stack{number}/params/{n}": p for n, p in stack.on_host().items()}
            to_numpy = stack.backend.to_numpy
            arrays |= {f"stack{number}/state/{n}": to_numpy(v) for n, v in stack.state.items()}
            if run.unfinished[place]:
                arrays[f"stack{number}/losses"] = np.concatenate(run.unfinished[place])
        histories: dict[int, Any] = {}
        step = sum(losses.size for part in run.unfinished for losses in part)
        # What no stack holds has ended before the others were dealt anew, or has not begun.
        owners = {index: rank for rank, members in run.layout for index in members}
        for index, history in enumerate(run.histories):
            if owners.get(index, 0) != group.rank:
                continue
            past, course = history.pack()
            arrays |= {f"model{index}/{name}": value for name, value in past.items()}
            ended = run.params.get(index, {})
            arrays |= {f"model{index}/params/{name}": value for name, value in ended.items()}
            histories[index] = course | {"why": history.reason, "failure": history.failure}
            step += history.steps
        arrays = gathered(arrays, group, keep=group.rank == 0)
        told = group.gather((step, histories, stacks))
        for _, theirs, of_stacks in told:
            histories |= theirs
            stacks |= of_stacks
        meta = {
            "run_of_set": FORMAT,
            "identity": self.identity,
            "histories": [histories[index] for index in range(len(run.histories))],
            "stacks": [members for _, members in run.layout],
            "called": run.called,
        }
        for name in ("live", "done", "seconds"):
            meta[name] = [stacks[number][name] for number in range(len(run.layout))]
        if group.size > 1:
            meta |= {"ranks": group.size, "stack_ranks": [rank for rank, _ in run.layout]}
        group.first(
            partial(
                checkpoint.save_numbered,
                self.folder,
                sum(steps for steps, _, _ in told),
                arrays,
                meta,
            )
        )

    def begin(self) -> None:
        """Refuse a folder that holds the checkpoints of another run."""
        if self.folder is not None:
            self.group.first(partial(self._check_empty, self.folder))

    def _check_empty(self, folder: Path) -> None:
        steps = [path.name for path in checkpoint.numbered(folder)]
        if [name for name in steps if name != "step-00000000.npz"]:
            raise CheckpointError(
                f"{folder}: holds the checkpoints of another run; "
                "continue it (resume=True), or name another folder"
            )

    def restore(
        self,
        build: Callable[[Layout], Run],
        groups: Sequence[tuple[Sequence[Candidate], int, float]],
    ) -> Run | None:
        """Return the run of the newest checkpoint; None if there is none.

        As many ranks as before go on with the stacks that they had. For another number, what still
        trains is dealt anew.

        Parameters
        ----------
        build : callable
            Makes a run before its first step, of stacks of these models. How many train at once
            may have been another number then.
        groups : sequence of (models, most, work)
            Of `PreparedSet`: models of one form, and how many of them train at once.

        Raises
        ------
        CheckpointError
            No checkpoint is whole, or the newest one is of another run.
        """
        if self.folder is None:
            return None
        read: dict[str, np.ndarray] = {}
        found = self.group.first(partial(self._read, self.folder, read))
        if found is None:
            return None
        meta, path = found
        arrays = from_first(read, self.group)
        ranks = self.group.size
        try:
            if meta.get("ranks", 1) == ranks:
                owners = meta.get("stack_ranks", [0] * len(meta["stacks"]))
                run = build([*zip(owners, meta["stacks"], strict=True)])
                _fill_histories(run, arrays, meta)
                _fill(run, arrays, meta)
            else:
                places = _places(arrays, meta)
                run = build(_dealt_anew(groups, ranks, arrays, meta, places))
                _fill_histories(run, arrays, meta)
                _fill_anew(run, arrays, meta, places)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{path}: is not as xpnet writes it: {error!r}") from error
        return run

    def _read(self, folder: Path, read: dict[str, np.ndarray]) -> Any:
        """Return (meta, path) of the newest checkpoint, and put its arrays into `read`."""
        if not checkpoint.numbered(folder):
            return None
        arrays, meta, path, _ = checkpoint.load_latest(folder)
        if meta.get("run_of_set") != FORMAT:
            raise CheckpointError(f"{path}: is not the checkpoint of a set of models")
        if changed := _changed(meta.get("identity"), self.identity):
            raise CheckpointError(
                f"{path}: belongs to another run: {changed}. Put that back, or start a new run"
            )
        read |= arrays
        return meta, path


def _fill_histories(run: Run, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    own: list[dict[str, np.ndarray]] = [{} for _ in meta["histories"]]
    for name, value in arrays.items():
        kind, _, rest = name.partition("/")
        if kind.startswith("model"):
            own[int(kind.removeprefix("model"))][rest] = value
    for index, course in enumerate(meta["histories"]):
        if params := checkpoint.section(own[index], "params/"):
            run.params[index] = params
        run.histories[index] = History.unpack(own[index], course)
        run.histories[index].reason = course["why"]
        run.histories[index].failure = course["failure"]
    run.called = meta["called"]


def _fill(run: Run, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Fill stacks that are those of the checkpoint."""
    for place, (number, stack) in enumerate(zip(run.numbers, run.stacks, strict=True)):
        live = {*meta["live"][number]}
        run.done[place], run.seconds[place] = meta["done"][number], meta["seconds"][number]
        places = [i for i, each in enumerate(stack.live) if each.member.index in live]
        if not places:
            stack.live = []
            continue
        _restored(stack, places, checkpoint.section(arrays, f"stack{number}/"))
        losses = arrays.get(f"stack{number}/losses")
        run.unfinished[place] = [] if losses is None else [losses]


def _places(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> dict[int, Any]:
    """Return (stack, row) of each model that still trains."""
    return {
        index: (number, row)
        for number, live in enumerate(meta["live"])
        for row, index in enumerate(live)
        if not meta["histories"][index]["why"]
    }


def _dealt_anew(
    groups: Sequence[tuple[Sequence[Candidate], int, float]],
    ranks: int,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    places: Mapping[int, Any],
) -> Layout:
    """Deal what still trains; models of one form that are equally far share stacks."""

    def far(index: int) -> tuple[int, int]:
        number = places[index][0]
        return meta["done"][number], len(arrays.get(f"stack{number}/losses", ()))

    buckets = []
    for models, most, work in groups:
        found: dict[Any, list[int]] = {}
        for index in (each.member.index for each in models):
            if index in places:
                found.setdefault(far(index), []).append(index)
        buckets += [(indices, most, work) for indices in found.values()]
    return dealt(buckets, ranks)


def _fill_anew(
    run: Run, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], places: Mapping[int, Any]
) -> None:
    """Fill stacks row by row, from whatever stacks the models were in."""
    for place, stack in enumerate(run.stacks):
        rows = [places[index] for index in stack.members]
        first = rows[0][0]

        def of_rows(name: str, rows: Any = rows) -> np.ndarray:
            return np.stack([arrays[f"stack{number}/{name}"][row] for number, row in rows])

        found = {f"params/{name}": of_rows(f"params/{name}") for name in stack.params}
        found |= {f"state/{name}": of_rows(f"state/{name}") for name in stack.trained_state}
        found["state/step"] = arrays[f"stack{first}/state/step"]
        for name in stack.state.keys() - stack.trained_state - {"step"}:  # settings
            found[f"state/{name}"] = stack.backend.to_numpy(stack.state[name])
        _restored(stack, range(len(stack.live)), found)
        run.done[place] = meta["done"][first]
        run.seconds[place] = sum(meta["seconds"][n] / len(meta["live"][n]) for n, _ in rows)
        if f"stack{first}/losses" in arrays:
            columns = [arrays[f"stack{number}/losses"][:, row] for number, row in rows]
            run.unfinished[place] = [np.stack(columns, axis=1)]


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
