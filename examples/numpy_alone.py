"""Predict from a model file with NumPy alone, where xpnet is not installed.

A model.npz holds plain arrays and a text in JSON: `numpy.load` and `json` read them. Copy
`predict` into your own program, and `encode` too if the model was trained on a table.
`xpnet.Model.predict_proba` and `predict` give the same answers, but for rounding.

    python examples/numpy_alone.py [MODEL.npz FEATURES.npy]     # numbers, as in the training
    python examples/numpy_alone.py [MODEL.npz TABLE.csv]        # columns, as in the training
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "tanh": np.tanh,
    "sigmoid": lambda z: 0.5 + 0.5 * np.tanh(0.5 * z),
    "identity": lambda z: z,
}


def predict(path: str | Path, x: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes (softmax), or the values of a regression."""
    with np.load(path) as file:
        arrays = dict(file)
    network = json.loads(bytes(arrays["meta"]))["arguments"]
    if network["loss"] not in ("softmax", "squared"):
        raise ValueError(f"the loss is {network['loss']}; expected softmax or squared")
    z: np.ndarray = (x - arrays.get("scaling/shift", 0.0)) * arrays.get("scaling/scale", 1.0)
    for layer, activation in enumerate(network["activation"], 1):
        z = ACTIVATIONS[activation](z @ arrays[f"params/W{layer}"] + arrays[f"params/b{layer}"])
    if network["loss"] == "softmax":
        z = np.exp(z - z.max(axis=1, keepdims=True))
        z = z / z.sum(axis=1, keepdims=True)
    else:
        z = z / arrays.get("target_scaling/scale", 1.0) + arrays.get("target_scaling/shift", 0.0)
    return z


def encode(path: str | Path, rows: list[dict[str, str]]) -> np.ndarray:
    """Return the features of a table's rows, as `csv.DictReader` gives them; a gap is "".

    `predict` scales them: the model file holds their means and deviations.
    """
    features: list[Any] = []
    for column in about(path)["encoder"]["columns"]:
        if column["kind"] == "left out":
            continue
        cells = [row[column["name"]].strip() for row in rows]
        if column["kind"] == "categories":
            known = column["values"]
            features += [[cell == value for cell in cells] for value in known]
            if column["other"]:
                features.append([cell != "" and cell not in known for cell in cells])
        else:
            words = {"true": 1.0, "false": 0.0, "": column["fill"]}
            features.append([words[c.lower()] if c.lower() in words else float(c) for c in cells])
        if column["missing"]:
            features.append([cell == "" for cell in cells])
    return np.array(features, dtype=float).T


def about(path: str | Path) -> dict[str, Any]:
    """Return what a model file says of itself: network, classes, encoder and more."""
    with np.load(path) as file:
        found: dict[str, Any] = json.loads(bytes(file["meta"]))
    return found


def train(folder: Path) -> tuple[Path, np.ndarray]:
    """Train a model by xpnet; this part of the work another machine may have done."""
    import xpnet

    rng = np.random.default_rng(0)
    x = rng.uniform([20, 1e4], [70, 9e4], (500, 2))  # age, income
    t = np.where(x[:, 0] + x[:, 1] / 2000 > 70, "yes", "no")
    scaling = xpnet.data.standardize(x)
    trainer = xpnet.Trainer(
        xpnet.mlp([2, 20, 2], "tanh", seed=0), xpnet.optim.Adam(0.01), scaling=scaling
    )
    trainer.fit(x, t, epochs=20)
    trainer.save(folder / "model.npz")
    return folder / "model.npz", x[:5]


def main(args: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if not args:
            print(predict(*train(Path(folder))))
            return
    model, features = args
    if features.endswith(".npy"):
        x = np.load(features)
    else:
        with open(features, newline="", encoding="utf-8") as file:
            x = encode(model, list(csv.DictReader(file)))
    meta = about(model)
    names, threshold = meta["classes"], meta["threshold"]
    for row in predict(model, x):
        place = row.argmax() if threshold is None else int(row[1] >= threshold)
        print(*([names[place]] if names else []), *(f"{value:.4g}" for value in row))


if __name__ == "__main__":
    main(sys.argv[1:])
