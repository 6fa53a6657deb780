"""Train on the built-in digits, early-stopped; save, load, and look at a few answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import xpnet
from xpnet.data import split


def main() -> float:
    data, _ = xpnet.datasets.load("digits")
    rest, test = split(data.t, 0.2, seed=0, stratify=True)
    held = rest[::10]  # a validation set of one's own
    train = [row for row in rest if row not in set(held)]

    trainer = xpnet.Trainer(
        xpnet.mlp([64, 50, 10], dropout=0.1, seed=0),
        xpnet.optim.Adam(0.005),
        scaling=data.scaling,
    )
    history = trainer.fit(
        data.x[train],
        data.t[train],
        epochs=200,
        batch_size=50,
        validation=(data.x[held], data.t[held]),
        patience=10,
    )
    result = trainer.evaluate(data.x[test], data.t[test])
    print(f"{len(history.epochs)} epochs, best {history.best_epoch}; test {result}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        trainer.save(path)
        loaded = xpnet.Trainer.load(path)
    print("says", loaded.predict(data.x[test[:10]]), "is", data.t[test[:10]])
    return float(result["accuracy"] or 0.0)


if __name__ == "__main__":
    main()
