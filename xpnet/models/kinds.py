"""Networks by a word: mlp, cnn and deep-cnn, with what each of them is if you say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.errors import UsageError, shown
from xpnet.models.cnn import PRESETS, cnn
from xpnet.models.mlp import mlp
from xpnet.models.network import Network

__all__ = ["KINDS", "OF_IMAGES", "layers_of", "network_of_kind", "takes_images"]

KINDS = ("mlp", *PRESETS)
# Settings of a convolution network alone.
OF_IMAGES = ("channels", "kernel", "padding", "pool")


def takes_images(kind: str) -> bool:
    """Whether a network of this kind takes images, and not rows of features.

    Raises
    ------
    UsageError
        There is no such kind.

    Examples
    --------
    >>> takes_images("mlp"), takes_images("cnn")
    (False, True)
    """
    if kind not in KINDS:
        raise UsageError(f"model is {shown(kind)}; expected one of {', '.join(KINDS)}")
    return kind != "mlp"


def layers_of(kind: str, channels: Any = None) -> dict[str, Any]:
    """Return the layers of a network of this kind.

    cnn and deep-cnn are networks of "Deep Learning from Scratch" (chapters 7 and 8), see
    `xpnet.models.cnn.PRESETS`. With channels of your own, the filters are 3 x 3, and keep the size
    of the images.

    Parameters
    ----------
    kind : {"mlp", "cnn", "deep-cnn"}
    channels : list, optional
        Your own, as for `xpnet.cnn`.

    Returns
    -------
    dict
        hidden, dropout; for images also channels, kernel, padding and pool.

    Examples
    --------
    >>> layers_of("mlp"), layers_of("cnn", [[16, 16], [32]])["padding"]
    ({'hidden': (100, 100), 'dropout': 0.0}, 'same')
    """
    if not takes_images(kind):
        return {"hidden": (100, 100), "dropout": 0.0}
    general = {"dropout": 0.0, "kernel": 3, "padding": "same", "pool": 2}
    preset = dict(PRESETS[kind])
    if channels is not None:
        preset = {"hidden": preset["hidden"], "dropout": preset.get("dropout", 0.0)}
        preset["channels"] = channels
    preset["hidden"] = tuple(preset["hidden"])
    return {**general, **preset}


def network_of_kind(
    kind: str,
    shape: Sequence[int],
    outputs: int,
    *,
    hidden: Sequence[int] | None = None,
    activation: Any = "relu",
    channels: Any = None,
    kernel: Any = None,
    padding: Any = None,
    pool: int | None = None,
    dropout: float | None = None,
    **options: Any,
) -> Network:
    """Build a network of a kind; what is None is as `layers_of` says.

    Parameters
    ----------
    kind : {"mlp", "cnn", "deep-cnn"}
    shape : sequence of int
        (channels, rows, columns) for images, (features,) for an mlp.
    outputs : int
    hidden, activation, dropout, channels, kernel, padding, pool, **options
        As for `xpnet.mlp` and `xpnet.cnn`.

    Raises
    ------
    UsageError
        An mlp is given settings of filters, or a setting is impossible.

    Examples
    --------
    >>> network_of_kind("cnn", (1, 28, 28), 10).params["W1"].shape
    (30, 1, 5, 5)
    """
    given = {"channels": channels, "kernel": kernel, "padding": padding, "pool": pool}
    layers = layers_of(kind, channels)
    if not takes_images(kind):
        for name, value in given.items():
            if value is not None:
                raise UsageError(f'{name} is for images: say model="cnn", or leave it out')
    given |= {"hidden": hidden, "dropout": dropout}
    layers |= {name: value for name, value in given.items() if value is not None}
    if not takes_images(kind):
        sizes = [*shape, *layers.pop("hidden"), outputs]
        return mlp(sizes, activation, **layers, **options)
    if not isinstance(activation, str):
        if len({*activation}) != 1:
            raise UsageError(
                f"activation is {shown(activation)}; expected one name: the hidden layers of a "
                f"{kind} share it"
            )
        activation = activation[0]
    return cnn(
        shape, layers.pop("channels"), outputs=outputs, activation=activation, **layers, **options
    )
