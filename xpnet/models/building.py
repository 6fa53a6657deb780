"""What the builders of networks share: the graph's frame, layers with their parameters, names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from xpnet.errors import UsageError, real, shown, whole
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node
from xpnet.layers.activations import ACTIVATIONS
from xpnet.layers.affine import Affine
from xpnet.layers.convolution import Convolution
from xpnet.layers.dropout import Dropout
from xpnet.layers.normalization import BatchNorm
from xpnet.layers.pooling import MaxPool
from xpnet.losses import LOSSES
from xpnet.models.initializers import initializer
from xpnet.models.network import Network

__all__ = ["Building", "listed_of", "lookup", "loss_gate_of", "plain_loss"]


class Building:
    """A network that grows layer by layer: its graph, parameters and statistics.

    Parameters
    ----------
    loss : str, gate, or (str, mapping)
        As for `xpnet.mlp`.
    dropout, init, seed
        As for `xpnet.mlp`.
    params : mapping of str to array, optional
        The parameters and statistics to use; without them, new ones are drawn.

    Attributes
    ----------
    node : Node
        The output of the newest layer.
    arguments : dict
        The builder's arguments so far, plain values that a file keeps.
    """

    def __init__(
        self,
        loss: Any,
        dropout: float,
        init: str | float,
        seed: int,
        params: Mapping[str, np.ndarray] | None,
    ) -> None:
        self.loss = loss_gate_of(loss)
        # Plain numbers: they are stored as JSON.
        self.seed, self.dropout = whole("seed", seed), real("dropout", dropout, 0.0, 1.0)
        self.init = init if isinstance(init, str) else real("init", init, 0.0)
        self._given = params
        self._rng = np.random.default_rng(self.seed)
        self._layers = 0
        self.graph = Graph()
        self.params: dict[str, np.ndarray] = {}
        self.statistics: dict[str, np.ndarray] = {}
        self.node: Node = self.graph.input("x")
        self._t = self.graph.input("t")
        self._weight = self.graph.input("weight", optional=True)
        self._step = self.graph.input("step", optional=True)

    def affine(self, fan_in: int, fan_out: int, activation: str, batch_norm: bool = False) -> None:
        """Add an affine layer, batch normalization if wanted, and an activation."""
        fans = fan_in, fan_out
        self._weigh(Affine(), (fan_in, fan_out), fans, fan_out, activation, batch_norm)
        self._activate(activation)

    def convolution(
        self,
        gate: Convolution,
        shape: tuple[int, ...],
        activation: str,
        batch_norm: bool,
        pool: int,
    ) -> None:
        """Add filters of `shape` = (F, C, KH, KW), normalization, a pool if above 1, activation."""
        filters, channels, kh, kw = shape
        fans = channels * kh * kw, filters * kh * kw
        self._weigh(gate, shape, fans, filters, activation, batch_norm)
        # All activations are increasing, so the largest value is the same before and after them;
        # but after the pool they compute a quarter of the values.
        if pool > 1:
            self.apply(MaxPool(pool))
        self._activate(activation)

    def _weigh(
        self,
        gate: Any,
        shape: tuple[int, ...],
        fans: tuple[int, int],
        outputs: int,
        activation: str,
        batch_norm: bool,
    ) -> None:
        lookup("activation", activation, ACTIVATIONS)
        draw = initializer(self.init, activation)
        self._layers += 1
        i = self._layers
        inputs = [self._parameter(f"W{i}", shape, lambda: draw(self._rng, *fans, shape))]
        if not batch_norm:  # its mean would take a bias away again
            inputs.append(self._parameter(f"b{i}", (outputs,), lambda: np.zeros(outputs)))
        self.node = self.graph.apply(gate, self.node, *inputs)
        if batch_norm:
            zeros, ones = lambda: np.zeros(outputs), lambda: np.ones(outputs)
            own = [
                self._parameter(f"gamma{i}", (outputs,), ones),
                self._parameter(f"beta{i}", (outputs,), zeros),
                self._parameter(f"mean{i}", (outputs,), zeros, self.statistics),
                self._parameter(f"var{i}", (outputs,), ones, self.statistics),
            ]
            self.node = self.graph.apply(BatchNorm(), self.node, *own, self._step)

    def _activate(self, activation: str) -> None:
        if activation != "identity":
            self.apply(ACTIVATIONS[activation]())

    def drop(self) -> None:
        """Add dropout after the newest layer, if there is to be any."""
        if self.dropout:
            gate = Dropout(self.dropout, self.seed, self._layers)
            self.node = self.graph.apply(gate, self.node, self._step)

    def apply(self, gate: Any) -> None:
        """Add a gate without parameters."""
        self.node = self.graph.apply(gate, self.node)

    def network(
        self,
        builder: str,
        arguments: Mapping[str, Any],
        input_shape: tuple[int, ...],
        outputs: int,
    ) -> Network:
        """Add the loss, and return the network; `arguments` are those of the builder alone."""
        form = plain_loss(self.loss)
        named = form is not None  # a gate of the user's own has no place in a file
        shared = {"dropout": self.dropout, "init": self.init, "seed": self.seed, "loss": form}
        return Network(
            self.graph,
            self.params,
            scores=self.node,
            loss=self.graph.apply(self.loss, self.node, self._t, self._weight),
            outputs=outputs,
            input_shape=input_shape,
            statistics=self.statistics,
            builder=builder if named else "",
            arguments={**arguments, **shared} if named else {},
        )

    def _parameter(
        self,
        name: str,
        shape: tuple[int, ...],
        make: Any,
        where: dict[str, np.ndarray] | None = None,
    ) -> Node:
        where = self.params if where is None else where
        where[name] = make() if self._given is None else _given(self._given, name, shape)
        return self.graph.input(name)


def _given(params: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    found = tuple(params[name].shape) if name in params else "missing"
    if found != shape:
        raise ValueError(f"params: {name} is {found}, expected shape {shape}")
    return params[name]


def listed_of(name: str, values: Any) -> list[Any]:
    """Return a sequence as a list; refuse a single number or text."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is {shown(values)}; expected a list")
    return list(values)


def loss_gate_of(loss: Any) -> Any:
    """Return the gate that a name, or a pair of a name and settings, stands for; or a gate."""
    if hasattr(loss, "forward") and not isinstance(loss, type):
        if getattr(loss, "per_model", False):
            raise UsageError(f"loss is {loss}; expected one without per_model=True")
        return loss
    pair = isinstance(loss, tuple | list) and len(loss) == 2 and isinstance(loss[1], Mapping)
    name, settings = loss if pair else (loss, {})
    gate = lookup("loss", name, LOSSES)
    known = [field.name for field in fields(gate) if field.name != "per_model"]
    for setting in settings:
        if setting not in known:
            raise UsageError(
                f"loss {name}: its setting is {shown(setting)}; expected {' or '.join(known)}"
            )
    return gate(**settings)


def plain_loss(gate: Any) -> str | list[Any] | None:
    """Return what a file keeps of a loss, and `loss_gate_of` reads: its name, or [name, settings].

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


def lookup(what: str, name: Any, table: dict[str, type]) -> type:
    if not isinstance(name, str) or name not in table:
        raise UsageError(f"{what} is {shown(name)}; expected one of {', '.join(table)}")
    return table[name]
