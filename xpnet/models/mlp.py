"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from xpnet.errors import UsageError, real, shown, whole
from xpnet.gates.protocol import Gate
from xpnet.graph.graph import Graph
from xpnet.layers.activations import ACTIVATIONS
from xpnet.layers.affine import Affine
from xpnet.layers.dropout import Dropout
from xpnet.losses import LOSSES
from xpnet.models.initializers import check_memory, initializer
from xpnet.models.network import Network

__all__ = ["BUILDERS", "mlp"]


def mlp(
    sizes: Sequence[int],
    activation: str | Sequence[str] = "relu",
    *,
    loss: str | Gate | tuple[str, Mapping[str, Any]] = "softmax",
    dropout: float = 0.0,
    init: str | float = "auto",
    seed: int = 0,
    params: Mapping[str, np.ndarray] | None = None,
) -> Network:
    """A multi-layer perceptron: Affine, activation, ..., Affine, loss.

    Parameters
    ----------
    sizes : sequence of int
        Sizes of input, hidden layers and output: [784, 50, 10].
    activation : str, or sequence of str
        One of sigmoid, tanh, relu, leaky_relu and identity, for all hidden layers. Or a list with
        one name per hidden layer; one more name adds an activation to the output.
    loss : str, gate, or (str, mapping)
        A name of `xpnet.losses.LOSSES`: softmax, sigmoid, hinge, squared, absolute, huber,
        quantile or poisson; or a gate, such as ``QuantileLoss(0.9)``; or a name with the gate's
        settings, ``("quantile", {"quantile": 0.9})``. A file keeps a gate of xpnet with its
        settings. A network with a gate of your own counts as built by hand.
    dropout : float
        Ratio of the dropout after each hidden activation.
    init : str or float
        auto, he, xavier, or a standard deviation.
    seed : int
        Random seed for the weights and the dropout masks.
    params : mapping of str to array, optional
        Initial weights and biases, W1, b1, W2, ...; without them, `mlp` draws new ones.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        There are too few sizes, a size is not positive, a name or a setting is unknown or
        impossible, or the number of activations is wrong; or one of `params` is missing or has a
        wrong shape.

    Examples
    --------
    >>> network = mlp([784, 50, 10], "sigmoid")
    >>> network.params["W1"].shape
    (784, 50)
    """
    sizes = [whole("each of sizes", n, 1) for n in _listed("sizes", sizes)]
    if len(sizes) < 2:
        raise UsageError(f"sizes is {sizes}; expected at least two whole numbers")
    layers = len(sizes) - 1
    one = isinstance(activation, str)
    names = [activation] * (layers - 1) if one else _listed("activation", activation)
    if len(names) == layers - 1:
        names.append("identity")
    if len(names) != layers:
        raise UsageError(
            f"{len(names)} activations for {layers} layers; expected {layers - 1} (hidden layers) "
            f"or {layers} (with the output)"
        )
    loss_gate = _loss_gate(loss)
    loss_form = _plain_loss(loss_gate)
    # Plain numbers: they are stored as JSON.
    seed, dropout = whole("seed", seed), real("dropout", dropout, 0.0, 1.0)
    init = init if isinstance(init, str) else real("init", init, 0.0)
    if params is None:
        check_memory(sizes)
    rng = np.random.default_rng(seed)
    graph, values = Graph(), dict[str, np.ndarray]()
    node = graph.input("x")
    t = graph.input("t")
    weight = graph.input("weight", optional=True)
    step = graph.input("step", optional=True)
    for i, (name, fan_in, fan_out) in enumerate(zip(names, sizes, sizes[1:], strict=False), 1):
        gate = _lookup("activation", name, ACTIVATIONS)()
        W, b = graph.inputs(f"W{i} b{i}")
        draw = initializer(init, name)
        if params is None:
            values |= {W.name: draw(rng, fan_in, fan_out), b.name: np.zeros(fan_out)}
        else:
            shapes = {W.name: (fan_in, fan_out), b.name: (fan_out,)}
            values |= {key: _given(params, key, shape) for key, shape in shapes.items()}
        node = graph.apply(Affine(), node, W, b)
        if name != "identity":
            node = graph.apply(gate, node)
        if dropout and i < layers:
            node = graph.apply(Dropout(dropout, seed, i), node, step)
    arguments = {"sizes": sizes, "activation": names, "dropout": dropout, "init": init}
    named = loss_form is not None  # a gate of the user's own has no place in a file
    return Network(
        graph,
        values,
        scores=node,
        loss=graph.apply(loss_gate, node, t, weight),
        outputs=sizes[-1],
        input_shape=(sizes[0],),
        builder="mlp" if named else "",
        arguments={**arguments, "seed": seed, "loss": loss_form} if named else {},
    )


def _given(params: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    found = tuple(params[name].shape) if name in params else "missing"
    if found != shape:
        raise ValueError(f"params: {name} is {found}, expected shape {shape}")
    return params[name]


def _listed(name: str, values: Any) -> list[Any]:
    """Return a sequence as a list; refuse a single number or text."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is {shown(values)}; expected a list")
    return list(values)


def _loss_gate(loss: Any) -> Any:
    """Return the gate that a name, or a pair of a name and settings, stands for; or a gate."""
    if hasattr(loss, "forward") and not isinstance(loss, type):
        if getattr(loss, "per_model", False):
            raise UsageError(f"loss is {loss}; expected one without per_model=True")
        return loss
    pair = isinstance(loss, tuple | list) and len(loss) == 2 and isinstance(loss[1], Mapping)
    name, settings = loss if pair else (loss, {})
    gate = _lookup("loss", name, LOSSES)
    known = [field.name for field in fields(gate) if field.name != "per_model"]
    for setting in settings:
        if setting not in known:
            raise UsageError(
                f"loss {name}: its setting is {shown(setting)}; expected {' or '.join(known)}"
            )
    return gate(**settings)


def _plain_loss(gate: Any) -> str | list[Any] | None:
    """Return what a file keeps of a loss, and `_loss_gate` reads: its name, or [name, settings].

    Only settings that are not the default are there; None stands for a gate of the user's own.
    """
    for name, kind in LOSSES.items():
        if type(gate) is kind:
            settings = {
                field.name: value
                for field in fields(kind)
                if (value := getattr(gate, field.name)) != field.default
            }
            return [name, settings] if settings else name
    return None


def _lookup(what: str, name: Any, table: dict[str, type]) -> type:
    if not isinstance(name, str) or name not in table:
        raise UsageError(f"{what} is {shown(name)}; expected one of {', '.join(table)}")
    return table[name]


# The functions that rebuild a network from a file, by name. Each takes the plain arguments that the
# file stores, and `params`, the arrays to use instead of drawing new ones.
BUILDERS: dict[str, Callable[..., Network]] = {"mlp": mlp}
