"""The models of a sweep beside each other: the table at its end, and sweep.csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.commands.columns import cell, in_columns
from xpnet.commands.report import figure
from xpnet.commands.several import in_words, value_in_words
from xpnet.errors import counted
from xpnet.many import ModelSet
from xpnet.many.model_set import kept_epoch
from xpnet.trainer.history import History

__all__ = [
    "Standing", "csv_of", "failures", "named", "spread", "standings", "table_lines",
]  # fmt: skip

MOST = 20  # settings that the table shows
FAILED = 5  # failed models that lines name


@dataclass(frozen=True)
class Standing:
    """A setting of a sweep, with what its models reached over seeds and folds.

    Attributes
    ----------
    settings : dict
        Its values, by the names of options; empty if the sweep is over seeds or folds alone.
    mean, deviation : float
        Of the scores: the standard deviation with n - 1; NaN for a single one.
    loss : float
        The mean loss on the same samples; NaN if there is none.
    models : tuple of int
        Their numbers in the set.
    failed : int
        How many of them failed.
    """

    settings: Mapping[str, Any]
    mean: float
    deviation: float
    loss: float
    models: tuple[int, ...]
    failed: int


def standings(found: ModelSet, settings: Sequence[Mapping[str, Any]]) -> list[Standing]:
    """Return the settings of a set, the best first.

    Its rule is that of `ModelSet.table`.

    Parameters
    ----------
    found : ModelSet
    settings : sequence of mapping
        Of each model, by the names of options.
    """
    return [
        Standing(
            settings[row["models"][0]],
            row["mean"],
            row["deviation"],
            row["loss"],
            tuple(row["models"]),
            row["failed"],
        )
        for row in found.table()
    ]


# -- The table -----------------------------------------------------------------------------


def table_lines(rows: Sequence[Standing], score: str, over: str) -> list[str]:
    """Return the table at the end of a sweep.

    Parameters
    ----------
    rows : sequence of Standing
    score : str
        What the scores are, in words: "validation accuracy".
    over : str
        What the deviation is over: "3 seeds"; "" if each setting has one model.
    """
    deviation = f"; mean ± standard deviation over {over}" if over else ""
    names = [*rows[0].settings]
    failed, losses = any(row.failed for row in rows), any(row.loss == row.loss for row in rows)
    header = [
        *(name.replace("_", " ") for name in names), score.rpartition(" ")[2],
        *(["loss"] if losses else []), "models", *(["failed"] if failed else []),
    ]  # fmt: skip
    cells = [
        [
            *(cell(value_in_words(row.settings[name])) for name in names),
            spread(row),
            *(["-" if math.isnan(row.loss) else figure(row.loss)] if losses else []),
            str(len(row.models)),
            *([str(row.failed or "-")] if failed else []),
        ]
        for row in rows[:MOST]
    ]
    lines = [f"{score}, the best settings first{deviation}:", ""]
    lines += in_columns(header, cells).splitlines()
    if len(rows) > MOST:
        lines.append(f"... and {counted(len(rows) - MOST, 'setting')} more, in sweep.csv")
    return [*lines, ""]


def spread(row: Standing) -> str:
    """Return the mean with its deviation: 0.9861 ± 0.0034."""
    if math.isnan(row.mean):
        return "failed"
    return figure(row.mean) + ("" if math.isnan(row.deviation) else f" ± {figure(row.deviation)}")


def failures(found: ModelSet, rows: Sequence[Standing], names: Sequence[str]) -> list[str]:
    """Return a line for each model that failed, or one for a setting of which all models did.

    Parameters
    ----------
    found : ModelSet
    rows : sequence of Standing
    names : sequence of str
        What each model is, in words: "lr 0.1, seed 2".
    """
    lines = []
    for row in rows:
        failed = [k for k in row.models if found.histories[k].reason == "failed"]
        if len(failed) == len(row.models) > 1:
            what = in_words(row.settings) or "this setting"
            whose = f"all {len(failed):,} models of {what}; the first"
            failed = failed[:1]
        else:
            whose = ""
        for k in failed:
            lines.append(
                f"failed    {whose or f'model {k}, {names[k]}'}: {_why(found.histories[k])}"
            )
    if len(lines) > FAILED:
        lines = [*lines[:FAILED], f"failed    and {len(lines) - FAILED:,} more, in sweep.csv"]
    return lines


def _why(history: History) -> str:
    """Return the failure without the model's name, which the set puts in front of it."""
    return history.failure.partition(" ended: ")[2].partition(";")[0] or history.failure


# -- The file ------------------------------------------------------------------------------


def csv_of(
    found: ModelSet, settings: Sequence[Mapping[str, Any]], score: str, best: int | None
) -> str:
    """Return sweep.csv: a row for each model, in the order of the set, with all digits.

    Parameters
    ----------
    found : ModelSet
    settings : sequence of mapping
        Of each model, by the names of options.
    score : str
        What `train_score` and `val_score` are: accuracy or r2.
    best : int or None
        The model of the run.
    """
    names = [*settings[0]]
    folds = any(member.fold is not None for member in found.members)
    metric = found.score_name if found.score_name != score else ""
    header = [
        "model", *names, "seed", *(["fold"] if folds else []), "epochs", "best_epoch", "ended_by",
        "train_loss", f"train_{score}", "val_loss", f"val_{score}",
        *([f"val_{metric}"] if metric else []), "seconds", "best", "failure",
    ]  # fmt: skip
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for k, (member, history) in enumerate(zip(found.members, found.histories, strict=True)):
        kept = kept_epoch(history)
        scores: list[Any] = [None] * 4 if kept is None else [
            kept.train_loss, kept.train_score, kept.val_loss, kept.val_score
        ]  # fmt: skip
        writer.writerow(
            [
                k,
                *(_plain(settings[k][name]) for name in names),
                member.seed,
                *([member.fold] if folds else []),
                len(history.epochs),
                history.best_epoch or None,
                history.reason,
                *scores,
                *([None if kept is None else kept.val_metric] if metric else []),
                f"{sum(epoch.seconds for epoch in history.epochs):.6g}",
                "true" if k == best else "false",
                _why(history) if history.reason == "failed" else "",
            ]
        )
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """A setting as the command line takes it, a number with all its digits."""
    return value if isinstance(value, float) else value_in_words(value)


def named(settings: Mapping[str, Any], seed: int | None, fold: int | None) -> str:
    """Return what a model is, in words: lr 0.1, seed 2, fold 0."""
    found = dict(settings)
    if seed is not None:
        found["seed"] = seed
    if fold is not None:
        found["fold"] = fold
    return in_words(found)
