"""The models of a set after their training: an ordinary model each, the best, all together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import CheckpointError, UsageError, counted, shown
from xpnet.many.ensemble import Ensemble
from xpnet.many.members import Member
from xpnet.metrics import higher_is_better
from xpnet.models import checkpoint, schema
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.models.tables import Table
from xpnet.trainer.frames import frame_of
from xpnet.trainer.history import Epoch, History

__all__ = ["ModelSet", "kept_epoch"]

FORMAT = 1
# Of a member, in a file.
MEMBER = ("settings", "seed", "fold", "group", "network")


class ModelSet:
    """Many trained models, from `xpnet.fit_many`.

    `models[k]` is an ordinary `xpnet.Model`; printed, the set is a table of its settings, best
    first.

    Parameters
    ----------
    members : sequence of Member
    histories : sequence of History
    models : sequence of (Model, Network, params) or Model
        A model like it, its network, and its parameters on the host; built when you ask for it.
    score_name : str
        What the scores are: "accuracy", "r2", or the metric that was watched.
    notes : sequence of str

    Attributes
    ----------
    members : tuple of Member
        What each model is: its settings, seed, fold and group.
    histories : list of History
        Its epochs, and why it ended.
    scores : array, shape=(K,)
        Of each model, the score of its best epoch on what was held out; if nothing was, that of the
        training samples after the last epoch. NaN for a model that failed or ended before it, and
        where the score is not defined, such as R² on one sample.
    score_name : str
    notes : list of str
        What trained one by one and why, and which models failed.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.random.default_rng(0).standard_normal((60, 2))
    >>> t = (x.sum(axis=1) > 0).astype(int)
    >>> models = xpnet.fit_many(xpnet.mlp([2, 8, 2]), (x, t), seeds=3)
    >>> len(models), models[0].predict(x[:1]).shape
    (3, (1,))
    """

    def __init__(
        self,
        members: Sequence[Member],
        histories: Sequence[History],
        models: Sequence[Any],
        score_name: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.members, self.histories = tuple(members), list(histories)
        self.score_name, self.notes = score_name, list(notes)
        self._models = list(models)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, k: int) -> Model:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"models[{shown(k)}]; expected the number of a model")
        k = int(k)
        if not -len(self) <= k < len(self):
            raise IndexError(f"there are {counted(len(self), 'model')}; got the number {k}")
        k %= len(self)
        if self.histories[k].reason == "failed":
            raise UsageError(self.histories[k].failure)
        if not isinstance(self._models[k], Model):
            like, network, params = self._models[k]
            self._models[k] = like.sibling(network, params)
        found: Model = self._models[k]
        return found

    def __iter__(self) -> Iterator[Model]:
        """Yield the models in the order of `members`; one that has failed is an error, as `[k]`."""
        for k in range(len(self)):
            yield self[k]

    @property
    def succeeded(self) -> list[int]:
        """The numbers of the models that have not failed."""
        return [k for k, history in enumerate(self.histories) if history.reason != "failed"]

    @property
    def scores(self) -> np.ndarray:
        """The score of each model, shape=(K,)."""
        return np.array([_score(history) for history in self.histories])

    @property
    def falls(self) -> bool:
        """Whether a smaller score is better, as for mae and rmse."""
        return self.score_name not in ("accuracy", "r2") and not higher_is_better(self.score_name)

    @property
    def best_index(self) -> int:
        """The model with the best score; of settings tried several times, of the best setting.

        See `table` for what the best setting is; of its models that of the best score, and of equal
        scores that of the smallest loss.

        Raises
        ------
        UsageError
            All models failed.
        """
        rows = self.table()
        if not rows or math.isnan(rows[0]["mean"]):
            raise UsageError(f"no model has a score: {self._failures() or 'none was measured'}")
        sign, scores = self._sign, self.scores
        losses = [_held_loss(history) for history in self.histories]
        known = [k for k in rows[0]["models"] if not math.isnan(scores[k])]
        best: int = min(known, key=lambda k: (sign * scores[k], losses[k] or 0.0))
        return best

    def best(self) -> Model:
        """Return the model of `best_index`."""
        return self[self.best_index]

    def ensemble(self, indices: Sequence[int] | None = None) -> Ensemble:
        """Return a model that averages the answers of all models, or of these.

        Parameters
        ----------
        indices : sequence of int, optional
            By default all that have not failed.

        Raises
        ------
        UsageError
            There is none, or their answers are not of one kind.
        """
        if indices is not None and not isinstance(indices, Iterable):
            raise UsageError(f"ensemble of {shown(indices)}; expected a list of numbers of models")
        return Ensemble([self[k] for k in (self.succeeded if indices is None else indices)])

    def __repr__(self) -> str:
        failed = sum(history.reason == "failed" for history in self.histories)
        words = [counted(len(self), "model"), counted(len(self.table()), "setting")]
        if failed:
            words.append(f"{failed} failed")
        scores = self.scores
        if np.isfinite(scores).any():
            best = np.nanmin(scores) if self.falls else np.nanmax(scores)
            words.append(f"best {self.score_name} {best:.4g}")
        return f"<ModelSet: {', '.join(words)}>"

    def __str__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown().html()

    # -- Tables ------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each setting, the best first.

        That is the best mean score; of equal ones, the smallest mean loss. A setting of which a
        model failed stands below those that never fail.

        Returns
        -------
        list of dict
            "settings": the values of the grid, with "network" or "group" if there are several;
            "mean" and "deviation" of the scores over seeds and folds (standard deviation with
            n - 1; NaN for a single one); "loss", the mean on the same samples, NaN if nothing was
            held out; "count" of models; "failed"; "models": their numbers.

        Examples
        --------
        >>> models.table()[0]["settings"]  # doctest: +SKIP
        {'lr': 0.01}
        """
        rows: dict[str, dict[str, Any]] = {}
        several = len({member.network for member in self.members}) > 1
        for member in self.members:
            settings = dict(member.settings)
            if several:
                settings["network"] = member.network
            if member.group is not None:
                settings["group"] = member.group
            rows.setdefault(repr(settings), {"settings": settings, "models": []})["models"].append(
                member.index
            )
        scores = self.scores
        for row in rows.values():
            own = scores[row["models"]]
            own = own[~np.isnan(own)]
            row["mean"] = float(own.mean()) if own.size else math.nan
            row["deviation"] = float(own.std(ddof=1)) if own.size > 1 else math.nan
            losses = [_held_loss(self.histories[k]) for k in row["models"]]
            known = [loss for loss in losses if loss is not None]
            row["loss"] = math.fsum(known) / len(known) if known else math.nan
            row["count"] = len(row["models"])
            row["failed"] = sum(self.histories[k].reason == "failed" for k in row["models"])
        return sorted(
            rows.values(),
            key=lambda row: (
                math.isnan(row["mean"]), row["failed"] > 0, self._sign * row["mean"], row["loss"],
            ),
        )  # fmt: skip

    @property
    def _sign(self) -> int:
        return 1 if self.falls else -1

    def _failures(self) -> str:
        return "; ".join(h.failure for h in self.histories if h.reason == "failed")

    def _shown(self) -> Table:
        rows = self.table()
        names = list(dict.fromkeys(name for row in rows for name in row["settings"]))
        header = [*names, self.score_name, "deviation", "models"]
        failed = any(row["failed"] for row in rows)
        lines = []
        for row in rows:
            deviation = row["deviation"]
            line = [
                *(_cell(row["settings"].get(name, "")) for name in names),
                *_mean_cell(row),
                "" if math.isnan(deviation) else f"{deviation:.4f}",
                str(row["count"]),
            ]
            lines.append((*line, str(row["failed"] or "")) if failed else tuple(line))
        if failed:
            header.append("failed")
        return Table(tuple(header), lines, frozenset(range(len(names), len(header))))

    def to_dict(self) -> dict[str, list[Any]]:
        """Return one list for each column, with a value for each model.

        The columns are "model", the settings, "seed", "fold" and "group" if there are any,
        "epochs", "ended", and the score.
        """
        columns: dict[str, list[Any]] = {"model": list(range(len(self)))}
        for name in dict.fromkeys(name for m in self.members for name in m.settings):
            columns[name] = [_plain(m.settings.get(name)) for m in self.members]
        for name in ("network", "seed", "fold", "group"):
            values = [getattr(member, name) for member in self.members]
            if name == "seed" or any(value not in (None, 0) for value in values):
                columns[name] = values
        columns["epochs"] = [len(history.epochs) for history in self.histories]
        columns["ended"] = [history.reason for history in self.histories]
        columns[self.score_name] = [None if math.isnan(s) else float(s) for s in self.scores]
        return columns

    def to_frame(self, library: str | None = None) -> Any:
        """Return the models as a data frame, one row each; see `History.to_frame`."""
        columns = self.to_dict()
        whole, text = [], []
        for name, values in columns.items():
            if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
                whole.append(name)
            elif not all(value is None or isinstance(value, int | float) for value in values):
                text.append(name)
                columns[name] = [None if v is None else _cell(v) for v in values]
        return frame_of(columns, whole, library, text)

    # -- Files -------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Save all models that have not failed, with their settings and histories, as one file.

        Raises
        ------
        UsageError
            A setting of the grid is no plain value.
        OSError
            The file cannot be written. An old file at `path` is unchanged.
        """
        arrays: dict[str, np.ndarray] = {}
        metas = []
        for k, (member, history) in enumerate(zip(self.members, self.histories, strict=True)):
            past, course = history.pack()
            packed: tuple[dict[str, np.ndarray], Any] = ({}, None)
            if history.reason != "failed":
                packed = self[k].packed()
                schema.check(packed[0], checkpoint.plain(packed[1]), path)
            kept = {"losses": past["losses"]}  # the best weights are the model's
            arrays |= {f"{k}/{name}": value for name, value in (packed[0] | kept).items()}
            own = {name: _plain(getattr(member, name)) for name in MEMBER}
            own["settings"] = {name: _plain(value) for name, value in member.settings.items()}
            metas.append(
                {
                    "member": own,
                    "model": packed[1],
                    "history": course,
                    "reason": history.reason,
                    "failure": history.failure,
                    "of_best_epoch": bool(history.best_params),
                }
            )
        meta = {"set": FORMAT, "score": self.score_name, "notes": self.notes, "models": metas}
        checkpoint.save(path, arrays, checkpoint.plain(meta))

    @classmethod
    def load(
        cls, path: str | Path, *, network: Network | Sequence[Network] | None = None, **options: Any
    ) -> ModelSet:
        """Load a set from a file that `save` wrote.

        Parameters
        ----------
        path : path
        network : Network, or sequence of Network, optional
            Needed for networks that you built by hand, see `Model.load`.
        **options
            The options of `Model`, such as backend.

        Raises
        ------
        CheckpointError
            The file is missing or damaged, or holds no set.
        """
        arrays, meta = checkpoint.load(path)
        if meta.get("set") != FORMAT or not isinstance(meta.get("models"), list):
            what = "a single model: open it with Model.load" if "builder" in meta else "no set"
            raise CheckpointError(f"{path}: holds {what}; expected a file of ModelSet.save")
        every: Any = network if isinstance(network, Iterable) else [network]
        given = [] if network is None else list(every)
        if not all(isinstance(each, Network) for each in given):
            raise UsageError(f"network is {shown(network)}; expected a network, or a list of them")
        members: list[Member] = []
        histories: list[History] = []
        models: list[Model | None] = []
        try:
            for k, each in enumerate(meta["models"]):
                own = checkpoint.section(arrays, f"{k}/")
                losses = own.pop("losses")
                members.append(Member(k, **{name: each["member"][name] for name in MEMBER}))
                history = History.unpack({"losses": losses}, each["history"])
                history.reason, history.failure = str(each["reason"]), str(each["failure"])
                history.score = str(meta["score"])
                histories.append(history)
                if each["model"] is None:
                    models.append(None)
                    continue
                found = schema.as_newest(each["model"], path)
                schema.check(own, found, path)
                place = members[-1].network
                built = None
                if given and not found["builder"]:
                    if place >= len(given):
                        raise CheckpointError(
                            f"{path}: model {k} is of network {place}; give all the networks, in a "
                            "list"
                        )
                    built = given[place]
                models.append(Model.unpacked(own, found, path=path, network=built, **options))
                if each["of_best_epoch"]:
                    history.best_params = checkpoint.section(own, "params/")
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{path}: is not as xpnet writes it: {error!r}") from error
        return cls(members, histories, models, str(meta["score"]), list(map(str, meta["notes"])))


def kept_epoch(history: History) -> Epoch | None:
    """Return the record of the epoch whose weights a model has; None if it has none or failed."""
    if history.reason == "failed" or not history.epochs:
        return None
    kept = bool(history.best_params) and history.reason != "stop"  # then it has the weights of now
    if history.best_epoch and (kept or history.reason == "patience"):
        return history.epochs[history.best_epoch - 1]
    return history.epochs[-1]


def _held_loss(history: History) -> float | None:
    epoch = kept_epoch(history)
    return None if epoch is None else epoch.val_loss


def _score(history: History) -> float:
    epoch = kept_epoch(history)
    if epoch is None:
        return math.nan
    value = epoch.train_score
    if history.metric:
        value = epoch.val_metric
    elif any(each.val_loss is not None for each in history.epochs):  # something was held out
        value = epoch.val_score
    return math.nan if value is None else value


def _mean_cell(row: Mapping[str, Any]) -> list[str]:
    if math.isnan(row["mean"]):
        return ["failed" if row["failed"] == row["count"] else "-"]
    return [f"{row['mean']:.4f}"]


def _plain(value: Any) -> Any:
    """Return a value as a file can hold it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.item() if isinstance(value, np.generic) else repr(value)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
