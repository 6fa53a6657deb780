"""Define what a model file and a checkpoint hold: one schema for the writer and the reader.

A checksum says that a file is as it was written, not that xpnet wrote it. So names, types, shapes
and values are held against this schema before a network is built or memory is taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import CheckpointError
from xpnet.models import checkpoint

__all__ = ["FORMAT", "as_newest", "check", "load"]

# Version 1 named no builder and no gates, and kept the columns in `extra`. Version 2 had no
# encoder, no threshold and no metric.
FORMAT = 3

# A form is a type (an int counts from 0, a float may be a whole number), a value, a tuple of forms
# of which one must fit, a list with the form of its elements, or a dict with the form of each key.
MODEL: dict[str, Any] = {
    "format": FORMAT,
    "builder": str,
    "arguments": dict,
    "gates": [str],
    "dtype": ("float32", "float64"),
    "classifies": bool,
    "classes": ([str], None),
    "columns": [str],
    "sample_dtype": (str, None),
    "encoder": (dict, None),
    "threshold": (float, None),
    "predicts_names": bool,
    "label_dtype": ("", "bool", "int64", "uint64", "float64"),
    "flat": bool,
    "extra": dict,
}
EPOCH = {
    "epoch": int,
    "step": int,
    "train_loss": float,
    "train_score": (float, None),
    "val_loss": (float, None),
    "val_score": (float, None),
    "val_metric": (float, None),
    "seconds": float,
    "samples_per_second": float,
}
HISTORY = {
    "epochs": [EPOCH],
    "best_epoch": int,
    "metric": str,
    "reason": ("", "callback"),
    "patience_from": (int, None),
    "every": int,
    "steps_in_epoch": int,
    "seconds_in_epoch": float,
}
RUN = MODEL | {"identity": dict, "rules": dict, "history": HISTORY}


def load(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a model file or a checkpoint, of version FORMAT or older: (arrays, meta), checked.

    Raises
    ------
    CheckpointError
    """
    arrays, meta = checkpoint.load(path)
    meta = as_newest(meta, path)
    check(arrays, meta, path)
    return arrays, meta


def as_newest(meta: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Convert the meta data of a file to version FORMAT.

    Raises
    ------
    CheckpointError
        The file is of another version, or of something else.
    """
    if "set" in meta:
        raise CheckpointError(
            f"{path}: holds many models, expected one; open it with xpnet.ModelSet.load"
        )
    if "run_of_set" in meta:
        raise CheckpointError(
            f"{path}: holds the networks of a sweep that has not ended, expected one network; "
            "xpnet train --resume goes on, and writes the best one"
        )
    found = meta.get("format")
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise CheckpointError(
            f"{path}: has format {repr(found)[:20]}; this version of xpnet reads 1 to {FORMAT}"
        )
    if found == FORMAT:
        return dict(meta)
    older: dict[str, Any] = dict(meta)
    if found == 1:
        spec, extra = older.pop("spec", None), meta.get("extra")
        columns = extra.get("columns", []) if isinstance(extra, dict) else []
        older |= {"builder": "mlp" if spec else "", "arguments": spec, "gates": []}
        older = {"sample_dtype": None} | older | {"columns": columns}
        if "identity" in meta:
            older["rules"] = {}
    history: Any = meta.get("history")
    if isinstance(history, dict):
        older["history"] = {"patience_from": None, "every": 1, "metric": ""} | history
        if isinstance(epochs := history.get("epochs"), list):
            older["history"]["epochs"] = [
                {"val_metric": None} | epoch if isinstance(epoch, dict) else epoch
                for epoch in epochs
            ]
    new = {
        "encoder": None,
        "threshold": None,
        "predicts_names": False,
        "label_dtype": "",
        "flat": False,
    }
    return older | new | {"format": FORMAT}


def check(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], path: str | Path) -> None:
    """Refuse what is not a model file or a checkpoint of version FORMAT.

    Raises
    ------
    CheckpointError
    """
    is_run = "identity" in meta
    fault = _misfit(meta, RUN if is_run else MODEL, "meta")
    fault = fault or _bad_arrays(arrays, meta["dtype"], is_run)
    if not fault and is_run:
        fault = _bad_history(meta["history"], len(arrays["losses"]))
    if fault:
        raise CheckpointError(f"{path}: is not as xpnet writes it: {fault}")


def _misfit(value: Any, form: Any, where: str) -> str:
    """Say what does not fit the form, and where; "" if all fits."""
    match form:
        case dict():
            if not isinstance(value, dict):
                return f"{where} is not a table"
            for name in value.keys() ^ form.keys():
                return f"{where}.{name} is {'unknown' if name in value else 'missing'}"
            faults = (_misfit(value[name], part, f"{where}.{name}") for name, part in form.items())
        case list():
            if not isinstance(value, list):
                return f"{where} is not a list"
            faults = (_misfit(part, form[0], f"{where}[{i}]") for i, part in enumerate(value))
        case tuple():
            faults = (_misfit(value, part, where) for part in form)
            found = list(faults)
            return "" if "" in found else found[0]
        case _:
            if isinstance(form, type):
                fits = type(value) is form or (form is float and type(value) is int)
                fits = fits and (form is not int or value >= 0)
            else:
                fits = type(value) is type(form) and value == form
            kind = form.__name__ if isinstance(form, type) else repr(form)
            return "" if fits else f"{where} is {repr(value)[:60]}, expected {kind}"
    return next(filter(None, faults), "")


def _bad_arrays(arrays: Mapping[str, np.ndarray], dtype: str, is_run: bool) -> str:
    """Like `_misfit`; each array needs a known name, its dtype and shape, and finite values."""
    params = {name[7:]: a.shape for name, a in arrays.items() if name.startswith("params/")}
    best = {name[5:] for name in arrays if name.startswith("best/")}
    free = ("scaling/shift", "scaling/scale", "target_scaling/shift", "target_scaling/scale")
    for name, array in arrays.items():
        section, _, parameter = name.partition("/")
        kind, shape = dtype, params.get(parameter)
        if name in free:
            kind, shape = "float64", array.shape
        elif is_run and name == "losses":
            kind, shape = "float64", (array.size,)
        elif is_run and name == "state/step":
            kind, shape = "int32", ()
        elif is_run and name == "state/level":  # of the rate of a plateau
            shape = ()
        elif is_run and section == "state":
            shape = params.get(parameter.rpartition(".")[0])
        elif section != "params" and not (is_run and section == "best"):
            shape = None
        if shape is None:
            return f"has an array {name}"
        if array.dtype != kind or array.shape != shape:
            return f"{name} is {array.dtype} {array.shape}, expected {kind} {shape}"
        if not np.isfinite(array).all():
            return f"{name} has a value that is not finite"
    if best and best != params.keys():
        return "its best weights are not those of its parameters"
    needed = [free[i : i + 2] for i in (0, 2) if arrays.keys() & set(free[i : i + 2])]
    if is_run:
        needed.append(("losses", "state/step"))
    for name in (name for names in needed for name in names if name not in arrays):
        return f"{name} is missing"
    if not arrays.get("target_scaling/scale", np.ones(())).all():
        return "target_scaling/scale is 0"
    if is_run and not 0 <= arrays.get("state/level", np.ones(())) <= 1:
        return f"state/level is {arrays['state/level']}, expected a share"
    return "state/step is negative" if is_run and arrays["state/step"] < 0 else ""


def _bad_history(history: Mapping[str, Any], losses: int) -> str:
    """Like `_misfit`; epochs and steps must be counted without a gap."""
    epochs = history["epochs"]
    if [epoch["epoch"] for epoch in epochs] != list(range(1, len(epochs) + 1)):
        return "its epochs are not numbered from 1"
    if history["best_epoch"] > len(epochs):
        return f"its best epoch is {history['best_epoch']} of {len(epochs)}"
    every = history["every"]
    if every < 1 or every & (every - 1):
        return f"it keeps the losses of every {every} steps, expected a power of two"
    finished = epochs[-1]["step"] if epochs else 0
    expected = finished // every + history["steps_in_epoch"]
    return "" if losses == expected else f"has {losses} losses, expected {expected}"
