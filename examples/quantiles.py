"""Prediction intervals: from which value to which one will nine of ten answers be?

One network predicts the 5 % quantile, one the median, one the 95 % quantile; nine of ten
targets should lie between the first and the last. The data are made up: how many minutes a delivery
takes, by distance and hour. Long trips vary more than short ones, so one margin for all of them
would be wrong for most.

    python examples/quantiles.py [PICTURE.png]      # draws the intervals; needs matplotlib
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

import xpnet
from xpnet.losses import QuantileLoss
from xpnet.metrics import mae

QUANTILES = (0.05, 0.5, 0.95)


def deliveries(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return kilometres and hours, and the minutes that each delivery took."""
    rng = np.random.default_rng(seed)
    distance, hour = rng.uniform(0.5, 15, count), rng.uniform(8, 20, count)
    rush = np.exp(-((hour - 17) ** 2) / 8)
    delay = rng.gamma(2, 0.4 * distance * (1 + rush))  # never below 0, sometimes long
    return np.column_stack([distance, hour]), 6 + 2.2 * distance * (1 + 0.5 * rush) + delay


def main(picture: str | None = None, say: Callable[..., None] = print) -> dict[str, float]:
    x, t = deliveries(2000, seed=0)
    x_test, t_test = deliveries(10_000, seed=1)

    models = [xpnet.fit(x, t, loss=QuantileLoss(q), hidden=(32, 32)) for q in QUANTILES]
    found = np.column_stack([model.predict(x_test) for model in models])
    low, middle, high = np.sort(found, axis=1).T  # sorted: three networks may cross by a little

    inside = (low <= t_test) & (t_test <= high)
    short = x_test[:, 0] < 5
    scores = {
        "below": float((t_test < low).mean()),
        "inside": float(inside.mean()),
        "above": float((t_test > high).mean()),
        "inside, short trips": float(inside[short].mean()),
        "inside, long trips": float(inside[~short].mean()),
    }
    for i in range(3):
        say(
            f"{x_test[i, 0]:4.1f} km at {x_test[i, 1]:4.1f} h: {middle[i]:.0f} minutes, "
            f"from {low[i]:.0f} to {high[i]:.0f}; it took {t_test[i]:.0f}"
        )
    say(", ".join(f"{name} {100 * share:.1f} %" for name, share in scores.items()))
    say(f"mean width {np.mean(high - low):.1f} min, short {np.mean((high - low)[short]):.1f} min")
    say(f"mean absolute error of the median {mae(t_test, middle):.2f} min")
    if picture:
        draw(picture, models)
    return scores


def draw(picture: str, models: list[xpnet.Trainer]) -> None:
    """Draw the median and the interval against the distance, at 17 h."""
    from matplotlib.figure import Figure

    x, t = deliveries(4000, seed=2)
    evening = np.abs(x[:, 1] - 17) < 0.5
    distance = np.linspace(0.5, 15, 100)
    low, middle, high = (
        model.predict(np.column_stack([distance, np.full(100, 17.0)])).ravel() for model in models
    )
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(x[evening, 0], t[evening], 8, "0.55", label="deliveries from 16:30 to 17:30")
    axes.fill_between(distance, low, high, color="#0072b2", alpha=0.2, label="9 of 10 at 17:00")
    axes.plot(distance, middle, color="#0072b2", label="median at 17:00")
    axes.set(xlabel="distance (km)", ylabel="minutes")
    axes.set_title("Prediction intervals by quantiles", loc="left", weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
