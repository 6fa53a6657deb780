"""From a table with text and gaps to a model: the columns, the training, the right numbers.

The table is made up: 1,000 passengers of a ship, and who survived. Their names say nothing, so the
column is left out; some ages and ports are missing. With pandas or polars you give a data frame in
place of `xpnet.datasets.load_file`, and the rest is the same. By command:

    xpnet train --data passengers.csv --label-column survived --id id --drop name \
        --val-fraction 0.2 --metric roc_auc --patience 20 --class-weight balanced --threshold F1

    python examples/tables.py [FOLDER]      # writes passengers.csv and model.npz there
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import xpnet
from xpnet.data import Encoder, split
from xpnet.metrics import best_threshold


def write_passengers(path: Path, count: int = 1000) -> None:
    """Write the table as CSV."""
    rng = np.random.default_rng(0)
    sex = rng.choice(["female", "male"], count, p=[0.36, 0.64])
    berth = rng.choice([1, 2, 3], count, p=[0.25, 0.2, 0.55])
    age = rng.gamma(9, 3.3, count).astype(int)
    fare = rng.gamma(2, 45 / berth)
    port = rng.choice(
        ["Southampton", "Cherbourg", "Queenstown", ""], count, p=[0.7, 0.2, 0.08, 0.02]
    )
    alone = rng.random(count) < 0.6
    odds = np.exp(4 * (sex == "female") - 1.5 * (berth - 2) - 0.06 * (age - 30) - 2)
    survived = np.where(rng.random(count) < odds / (1 + odds), "yes", "no")
    gaps = rng.random(count) < 0.2
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "survived", "class", "name", "sex", "age", "fare", "port", "alone"])
        for i in range(count):
            writer.writerow(
                [
                    i + 1, survived[i], berth[i], f"Passenger, no. {i + 1}", sex[i],
                    "" if gaps[i] else age[i], f"{fare[i]:.2f}", port[i], alone[i],
                ]
            )  # fmt: skip


def main(folder: Path, say: Callable[..., None] = print) -> dict[str, float | None]:
    folder.mkdir(parents=True, exist_ok=True)
    write_passengers(folder / "passengers.csv")
    data = xpnet.datasets.load_file(
        folder / "passengers.csv", label_column="survived", id_column="id", drop=["name"]
    )
    labels = np.array(data.classes)[data.t]  # "no" and "yes"
    rest, test = split(labels, 0.2, seed=0, stratify=True)
    rows, val = split(labels[rest], 0.2, seed=1, stratify=True)
    train, val = rest[rows], rest[val]

    encoder = Encoder.of(data.x.rows(train))  # only what the training rows say
    for column in encoder.describe(data.x.rows(train)):
        say("{:8} {:12} {:38} {:>4}  {}".format(*column))
    say(", ".join(encoder.names))

    trainer = xpnet.Trainer(
        xpnet.mlp([encoder.width, 20, 2], seed=0), xpnet.optim.Adam(0.01), encoder=encoder
    )
    history = trainer.fit(
        data.x.rows(train),
        labels[train],
        epochs=200,
        validation=(data.x.rows(val), labels[val]),
        metric="roc_auc",
        patience=20,
        class_weight="balanced",
    )
    p = trainer.predict_proba(data.x.rows(val))[:, 1]
    trainer.model.threshold = best_threshold(data.t[val], p)
    scores = trainer.evaluate(data.x.rows(test), labels[test])
    say(f"epoch {history.best_epoch} is the best; yes from {trainer.model.threshold:.2f}")
    say(", ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    trainer.save(folder / "model.npz")
    model = xpnet.Model.load(folder / "model.npz")  # with encoder, names and threshold
    say(model.predict(data.x.rows(test[:5])), labels[test[:5]])
    return scores


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
