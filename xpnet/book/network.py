"""What the book's networks of layers share: passes, gradients and scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array, namespace, squares
from xpnet.arrays.windows import stops
from xpnet.book import pickles
from xpnet.book.arrays import as_targets, like, run
from xpnet.book.gradient import numerical_gradient
from xpnet.book.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Pooling,
    ReLU,
    SoftmaxWithLoss,
)
from xpnet.errors import DataError, UsageError, listed, real, shown, whole

__all__ = [
    "LayeredNetwork", "Link", "conv_settings", "drawn", "image_sizes", "size_after", "weights_of",
]  # fmt: skip

Link = tuple[Any, str]  # a layer, and the name of an array in it


class LayeredNetwork:
    """A network of the book: `layers` in order, then `last_layer`.

    Parameters
    ----------
    params : dict of str to array
        To train the network, write ``params[name] -= ...``, or put another array, of any library,
        in its place: each forward reads them.
    layers : dict of str to layer, or list of layer
    links : mapping of str to (layer, str)
        For each parameter, the layer that has it, and its name there: ``"W1": (affine, "W")``.
        The layer then has the gradient as ``dW``.
    weight_decay_lambda : float
        The loss has λ/2 Σ W² added, of all weights W1, W2, ... but not of the biases.

    Attributes
    ----------
    params, layers
        As above. You may put another layer, of your own too, in place of one; under a name with
        "Dropout" or "BatchNorm", its forward takes `train_flg`.
    last_layer : SoftmaxWithLoss
    """

    def __init__(
        self,
        params: dict[str, Array],
        layers: dict[str, Any] | list[Any],
        links: Mapping[str, Link],
        weight_decay_lambda: float = 0,
    ) -> None:
        self.params = params
        self.layers = layers
        self.last_layer = SoftmaxWithLoss()
        self.weight_decay_lambda = real("weight_decay_lambda", weight_decay_lambda, -math.inf)
        # By place, since you may put another layer there.
        places = {id(layer): place for place, layer in self._places()}
        self._links = {name: (places[id(layer)], at) for name, (layer, at) in links.items()}
        self._linked = {name: params[name] for name in links}  # as of the last forward

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return the scores of x, shape=(N, C); with `train_flg`, as in training."""
        return self._scores(x, train_flg)

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Array:
        """Return the mean cross-entropy of a batch, and the decay's share.

        Parameters
        ----------
        x : array, shape=(N, ...)
        t : array, shape=(N,) or (N, C)
            Class indices, or one-hot rows.
        train_flg : bool

        Raises
        ------
        ValueError
            The shapes do not fit.
        """
        loss = self.last_layer.forward(self.predict(x, **self._mode(train_flg)), t)
        if not self.weight_decay_lambda:
            return loss
        return loss + sum(
            0.5 * self.weight_decay_lambda * squares(self.params[name]) for name in self._weights()
        )

    def accuracy(self, x: Array, t: Array, batch_size: int | None = None) -> float:
        """Return the share of samples, from 0 to 1, whose largest score is the target's.

        Parameters
        ----------
        x : array, shape=(N, ...)
        t : array, shape=(N,) or (N, C)
        batch_size : int, optional
            Predict so many samples at once; by default all.

        Raises
        ------
        ValueError
            There are not as many targets as samples, or `batch_size` is below 1.
        """
        for name, a in (("x", x), ("t", t)):
            if not getattr(a, "shape", ()):
                got = type(a).__name__
                raise ValueError(f"accuracy got {name} of type {got}; expected an array of samples")
        n = int(x.shape[0])
        if int(t.shape[0]) != n:
            raise ValueError(f"accuracy: {n} samples, {t.shape[0]} targets; expected as many")
        size = max(n, 1) if batch_size is None else whole("batch_size", batch_size, 1)
        parts = (slice(start, min(start + size, n)) for start in range(0, n, size))
        return sum(_hits(self.predict(x[part, ...]), t[part, ...]) for part in parts) / max(n, 1)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradients by the layers' backward passes, last layer to first."""
        self._loss_in_training(x, t)
        run(self._back, self.last_layer.backward(1))
        layers: Any = self.layers
        grads = {
            name: getattr(layers[place], f"d{at}") for name, (place, at) in self._links.items()
        }
        if self.weight_decay_lambda:
            for name in self._weights():  # not in place: the layer's dW has no decay
                grads[name] = grads[name] + self.weight_decay_lambda * self.params[name]
        return grads

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradients by central differences: slow, to check `gradient`.

        All losses see the same dropout masks: those that `numpy.random` draws next. Call
        ``numpy.random.seed`` with one number before this and before `gradient` to compare them.
        """
        drops = any(
            isinstance(layer, Dropout) or "Dropout" in str(place) for place, layer in self._places()
        )
        state = np.random.get_state()

        def loss_at(_: Array) -> float:
            if drops:
                np.random.set_state(state)
            return float(self.loss(x, t, **self._mode(True)))

        return {name: numerical_gradient(loss_at, self.params[name]) for name in self._links}

    def save_params(self, file_name: str | PathLike[str] = "params.pkl") -> None:
        """Write the parameters into a file that the book's scripts can read.

        Running statistics of batch normalization are no parameters, and are not in the file.
        """
        pickles.save(file_name, self.params)

    def load_params(self, file_name: str | PathLike[str] = "params.pkl") -> None:
        """Read the parameters from a file of `save_params`, or one of the book's.

        Raises
        ------
        DataError
            The file holds something else, or parameters of other names or shapes.
        """
        loaded = pickles.load(file_name)
        shapes = {name: tuple(p.shape) for name, p in self.params.items()}
        found = {name: tuple(p.shape) for name, p in loaded.items()}
        if found != shapes:
            raise DataError(f"{file_name} holds {found}; expected {shapes}: another network?")
        for name, p in loaded.items():
            self.params[name] = like(p, self.params[name])
        self._link()

    def _loss_in_training(self, x: Array, t: Array) -> Array:
        """Run the forward pass before `gradient`: by `loss`, which a subclass may override."""
        return self.loss(x, t, **self._mode(True))

    def _mode(self, train_flg: bool) -> dict[str, bool]:
        """Return the argument for `predict` and `loss`, where it matters.

        The methods of a subclass need not take it, as the book's in chapters 4, 5 and 7 do not.
        """
        return {"train_flg": train_flg} if any(_has_modes(*p) for p in self._places()) else {}

    def _scores(self, x: Array, train_flg: bool) -> Array:
        self._link()
        return run(self._forward, x, train_flg)

    def _forward(self, x: Array, train_flg: bool) -> Array:
        waiting: ReLU | None = None  # a pool after it may take its place
        for place, layer in self._places():
            if waiting is not None:
                after = type(layer) is Pooling and not layer.pad
                x = layer.forward_after(waiting, x) if after else waiting.forward(x)
                waiting = None
                if after:
                    continue
            if type(layer) is ReLU:
                waiting = layer
            elif _has_modes(place, layer):
                x = layer.forward(x, train_flg)
            else:
                x = layer.forward(x)
        return x if waiting is None else waiting.forward(x)

    def _back(self, dout: Array) -> None:
        """Run the backward passes. The first layer's dx is no gradient of a parameter."""
        first, *others = [layer for _, layer in self._places()]
        done: ReLU | None = None
        for layer in reversed(others):
            if type(layer) is Pooling and layer.relu is not None:
                dout, done = layer.backward_with_relu(dout), layer.relu
            elif layer is not done:
                dout = layer.backward(dout)
        if type(first).backward in (Affine.backward, Convolution.backward):
            first.backward(dout, needs_dx=False)
        else:
            first.backward(dout)

    def _places(self) -> Iterable[tuple[Any, Any]]:
        """Return name or index, and layer, of each."""
        return self.layers.items() if isinstance(self.layers, dict) else enumerate(self.layers)

    def _weights(self) -> Iterator[str]:
        return (name for name, (_, at) in self._links.items() if at == "W")

    def _link(self) -> None:
        """Give each layer its parameters; or take them from a layer whose array you replaced."""
        layers: Any = self.layers
        for name, (place, at) in self._links.items():
            layer, p = layers[place], self.params[name]
            own = getattr(layer, at, p)
            if own is not p and own is not self._linked[name] and p is self._linked[name]:
                p = self.params[name] = own
            setattr(layer, at, p)
            self._linked[name] = p


def weights_of(layers: Mapping[int, Any]) -> dict[str, Link]:
    """Return the links of numbered layers: ``{"W1": (layer, "W"), "b1": (layer, "b"), ...}``."""
    return {f"{at}{i}": (layer, at) for i, layer in layers.items() for at in ("W", "b")}


def _has_modes(place: Any, layer: Any) -> bool:
    """Say whether a layer's forward takes `train_flg`: by its class, or, as the book, its name."""
    if isinstance(layer, Dropout | BatchNormalization):
        return True
    return isinstance(place, str) and ("Dropout" in place or "BatchNorm" in place)


def drawn(sizes: Mapping[str, int], stds: Sequence[float], first: int = 1) -> dict[str, np.ndarray]:
    """Draw the weights of affine layers by `numpy.random.randn`; biases are 0.

    Parameters
    ----------
    sizes : mapping of str to int
        Of the input, the hidden layers and the output, under the names of the settings.
    stds : sequence of float
        Standard deviation of each layer's weights.
    first : int
        Number of the first layer.

    Raises
    ------
    UsageError
        A size is not a whole number of at least 1, or a deviation no number.
    """
    counts = [whole(name, size, 1) for name, size in sizes.items()]
    params = {}
    pairs = zip(stds, counts, counts[1:], strict=False)
    for i, (std, fan_in, fan_out) in enumerate(pairs, first):
        params[f"W{i}"] = real("weight_init_std", std, -math.inf) * np.random.randn(fan_in, fan_out)
        params[f"b{i}"] = np.zeros(fan_out)
    return params


def conv_settings(name: str, param: Mapping[str, int]) -> tuple[int, int, int, int]:
    """Return filter_num, filter_size, pad and stride of the book's dict.

    Raises
    ------
    UsageError
        One is missing, unknown or no whole number.
    """
    keys = ("filter_num", "filter_size", "pad", "stride")
    missing = [key for key in keys if key not in param]
    if missing:
        raise UsageError(f"{name} is {dict(param)}; expected {', '.join(missing)} too")
    unknown = [key for key in param if key not in keys]
    if unknown:
        raise UsageError(f"{name} has {listed(unknown)}; expected {', '.join(keys)} alone")
    filters, kernel, pad, stride = (
        whole(f"{key} of {name}", param[key], int(key != "pad")) for key in keys
    )
    return filters, kernel, pad, stride


def image_sizes(input_dim: Sequence[int]) -> tuple[int, list[int]]:
    """Return the channels, and rows and columns, of images.

    Raises
    ------
    UsageError
        They are no three sizes.
    """
    if not isinstance(input_dim, Sequence) or len(input_dim) != 3:
        raise UsageError(
            f"input_dim is {shown(input_dim)}; expected three sizes, (channels, rows, columns)"
        )
    channels, *size = (whole("a size in input_dim", n, 1) for n in input_dim)
    return channels, size


def size_after(size: Sequence[int], name: str, kernel: int, pad: int, stride: int) -> list[int]:
    """Return rows and columns of images after a convolution or a pool.

    Raises
    ------
    UsageError
        No window fits.
    """
    after = [stops(n, kernel, stride, pad) for n in size]
    if min(after) < 1:
        raise UsageError(
            f"{name}: windows of {kernel} do not fit images of {tuple(size)} padded by {pad}; "
            "expected larger images, or smaller filters"
        )
    return after


def _hits(scores: Array, t: Array) -> int:
    """Count the samples whose largest score is the target's.

    Raises
    ------
    ValueError
        The targets do not fit the scores.
    """
    t = as_targets(t, scores, "accuracy")
    xp = namespace(scores)
    labels = xp.argmax(t, axis=1) if t.ndim != 1 else t
    return int(xp.sum(xp.astype(xp.argmax(scores, axis=1) == labels, xp.int32)))
