"""How a network is trained if you say nothing: settings by the size of the training part.

The command line, `xpnet.fit` and `xpnet.Trainer` all take them from here. docs/defaults.md compares
them with scikit-learn's, and benchmarks/RESULTS.md lists what was tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xpnet import optim
from xpnet.errors import whole

__all__ = ["BOOK_OF", "Defaults", "defaults"]


@dataclass(frozen=True)
class Defaults:
    """The settings of a training.

    Attributes
    ----------
    hidden : tuple of int
        Sizes of the hidden layers of an mlp.
    activation, init : str
        As for `xpnet.mlp`.
    batch_size, epochs : int
    optimizer, schedule : str
        A name in `xpnet.optim.OPTIMIZERS`, and how its rate falls.
    lr, weight_decay, beta2 : float
        The rate at the start, and AdamW's λ and β₂.
    """

    batch_size: int
    epochs: int
    weight_decay: float
    hidden: tuple[int, ...] = (100, 100)
    activation: str = "relu"
    init: str = "auto"
    optimizer: str = "adamw"
    lr: float = 0.01
    schedule: str = "cosine"
    beta2: float = 0.98  # forgets old gradients: 0.999 remembers more steps than small data has

    def rule(self, steps: int) -> optim.Optimizer:
        """Return the optimizer for a training of `steps` steps."""
        rate = optim.cosine(self.lr, steps)
        return optim.AdamW(rate, weight_decay=self.weight_decay, beta2=self.beta2)


def defaults(n: int, batch_size: int | None = None, *, convolution: bool = False) -> Defaults:
    """Return the settings for `n` training samples.

    A batch has n / 32 samples, between 16 and 128. There are as many steps as samples, between 300
    and 2,000, and at least 20 epochs of batches of 128; in whole epochs. The weight decay is
    3,000 / n, at most 1: little data needs more of it.

    Filters are used at every place of an image, so a network of them needs a lower rate, 0.003,
    and fewer epochs, at least 5.

    Parameters
    ----------
    n : int
    batch_size : int, optional
        Your own; the number of steps then stays the same.
    convolution : bool
        Whether the network has convolutions.

    Examples
    --------
    >>> defaults(150).batch_size, defaults(150).epochs
    (16, 30)
    >>> defaults(60_000).weight_decay
    0.05
    >>> defaults(60_000, convolution=True).epochs, defaults(60_000, convolution=True).lr
    (5, 0.003)
    """
    n = whole("n", n, 1)
    batch = min(max(n // 32, 16), 128) if batch_size is None else whole("batch_size", batch_size, 1)
    least = 5 if convolution else 20
    steps = max(min(max(n, 300), 2000), least * n / 128)
    per_epoch = -(-n // batch)
    return Defaults(
        batch_size=batch,
        epochs=-(-int(steps) // per_epoch),
        weight_decay=min(1.0, 3000 / n),
        lr=0.003 if convolution else 0.01,
    )


# `xpnet train --preset book`: the network in chapter 4 of K. Saitoh's "Deep Learning from Scratch".
# 17 epochs of MNIST are its 10,000 steps. Those of chapters 7 and 8 for --model cnn and deep-cnn.
BOOK: dict[str, Any] = {
    "hidden": (50,),
    "activation": ("sigmoid",),
    "init": 0.01,
    "batch_size": 100,
    "epochs": 17,
    "optimizer": "sgd",
    "lr": 0.1,
    "schedule": "constant",
    "weight_decay": 0.0,
    "beta2": None,
}

_IMAGES: dict[str, Any] = {
    **BOOK,
    "activation": ("relu",),
    "epochs": 20,
    "optimizer": "adam",
    "lr": 0.001,
}
BOOK_OF = {
    "mlp": BOOK,
    "cnn": {**_IMAGES, "hidden": (100,)},
    "deep-cnn": {**_IMAGES, "hidden": (50,), "init": "auto"},
}
