"""Save an estimator as one file, without pickle: its network, its parameters, what it has fitted.

The file is a model's, with the estimator in its `extra`: `xpnet.Model.load` reads it too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from xpnet.errors import CheckpointError, UsageError, shown
from xpnet.losses import LOSSES
from xpnet.models import checkpoint, schema
from xpnet.models.model import Model
from xpnet.optim import OPTIMIZERS
from xpnet.sklearn.arrays import Origin
from xpnet.sklearn.engine import Form

__all__ = ["load", "save"]

# The fitted values that are numbers or lists of them.
NUMBERS = (
    "n_features_in_", "n_outputs_", "n_layers_", "n_iter_", "t_", "loss_", "loss_curve_",
    "best_loss_", "validation_scores_", "best_validation_score_", "out_activation_",
    "_no_improvement_count", "_dropout_seed",
)  # fmt: skip
# Settings of the next fit that a file cannot hold.
DROPPED = ("callbacks",)
KINDS_OF_ARRAYS = "biufUO"
KINDS = {"optimizer": OPTIMIZERS, "loss": LOSSES}


def save(est: Any, path: str | Path) -> None:
    """Write a fitted estimator.

    Raises
    ------
    UsageError
        A parameter cannot be said in text.
    OSError
        The file cannot be written. An old file at `path` is unchanged.
    """
    parameters = {
        name: _as_text(name, value)
        for name, value in est.get_params(deep=False).items()
        if name not in DROPPED
    }
    fitted = {name: _as_text(name, vars(est)[name]) for name in NUMBERS if name in vars(est)}
    if hasattr(est, "classes_"):
        fitted["classes"] = _as_text("classes_", est.classes_)
        fitted["multilabel"] = est._label_binarizer.y_type_.startswith("multilabel")
    if hasattr(est, "feature_names_in_"):
        fitted["feature_names"] = est.feature_names_in_.tolist()
    told = {
        "estimator": type(est).__name__,
        "parameters": parameters,
        "fitted": fitted,
        "origin": est._origin,
        "opened": est._opened,
    }
    est.model_.save(path, {"sklearn": told})


def load(kind: type, path: str | Path) -> Any:
    """Read an estimator that `save` wrote.

    Raises
    ------
    CheckpointError
        The file is missing or damaged, or holds no such estimator.
    """
    arrays, meta = schema.load(path)
    told = meta["extra"].get("sklearn")
    if not isinstance(told, dict) or told.get("estimator") != kind.__name__:
        found = told.get("estimator") if isinstance(told, dict) else "a model without an estimator"
        raise CheckpointError(f"{path}: holds {shown(found)}; expected {kind.__name__}")
    try:
        est = kind(**{name: _from_text(v) for name, v in told["parameters"].items()})
        est._validate_params()
        state = _fitted(told, checkpoint.section(arrays, "params/"))
        network = Model.unpacked(arrays, meta, path=path).network
        state["_form"] = Form(
            tuple(network.arguments["sizes"]),
            tuple(network.arguments["activation"][:-1]),
            network.loss_gate,
            network.arguments["dropout"],
            network.arguments["seed"],
        )
    except CheckpointError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its estimator cannot be made: {words}") from error
    est.__setstate__({**vars(est), **state})
    return est


def _fitted(told: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the fitted attributes, with NumPy arrays."""
    fitted = {name: _from_text(value) for name, value in told["fitted"].items()}
    unknown = fitted.keys() - {*NUMBERS, "classes", "multilabel", "feature_names"}
    layers = range(1, int(fitted["n_layers_"]))
    names = [f"W{i}" for i in layers] + [f"b{i}" for i in layers]
    if unknown or set(names) != set(params):
        raise ValueError(f"it holds {', '.join(sorted(unknown) or sorted(params))}")
    state = {name: fitted[name] for name in NUMBERS if name in fitted}
    # Copies: the next fit writes into them, and arrays from a file are read-only.
    state["coefs_"] = [params[f"W{i}"].copy() for i in layers]
    state["intercepts_"] = [params[f"b{i}"].copy() for i in layers]
    state["_best"] = tuple([a.copy() for a in state[n]] for n in ("coefs_", "intercepts_"))
    library, device = (str(value) for value in told["origin"])
    state["_origin"] = Origin(library, device)
    device, library, dtype, precision = (str(value) for value in told["opened"])
    state["_opened"] = (device, library, dtype, precision)
    if "classes" in fitted:
        state["classes_"] = fitted["classes"]
        indicator = np.eye(len(fitted["classes"]), dtype=int)
        examples = indicator if fitted["multilabel"] else fitted["classes"]
        state["_label_binarizer"] = LabelBinarizer().fit(examples)
    if "feature_names" in fitted:
        state["feature_names_in_"] = np.array(fitted["feature_names"], dtype=object)
    return state


def _as_text(name: str, value: Any) -> Any:
    """Return a value as JSON holds it; what JSON lacks is a dict with one key, its kind."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_as_text(name, v) for v in value]}
    if isinstance(value, list):
        return [_as_text(name, v) for v in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in KINDS_OF_ARRAYS:
        return {"array": [value.dtype.str, _as_text(name, value.tolist())]}
    if isinstance(value, dict):
        return {"dict": [[_as_text(name, k), _as_text(name, v)] for k, v in value.items()]}
    for kind, table in KINDS.items():
        for known, made in table.items():
            if type(value) is made:
                settings = {f.name: getattr(value, f.name) for f in fields(value)}
                return {kind: [known, _as_text(name, settings)]}
    raise UsageError(
        f"cannot save {name}={shown(value)} as text; save estimator.model_, which predicts, or "
        "pickle the estimator"
    )


def _from_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_text(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "float":
        return float(held)
    if kind == "tuple":
        return tuple(_from_text(held))
    if kind == "array":
        dtype = np.dtype(held[0])
        if dtype.kind not in KINDS_OF_ARRAYS:
            raise ValueError(f"it holds an array of {dtype}")
        # As wide as its texts, not as a file says: that may be gigabytes.
        return np.array(_from_text(held[1]), dtype=str if dtype.kind == "U" else dtype)
    if kind == "dict":
        return {_from_text(k): _from_text(v) for k, v in held}
    name, settings = held
    return KINDS[kind][name](**_from_text(settings))
