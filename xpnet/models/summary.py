"""What a network is made of, as a table: its layers, their output shapes and parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from html import escape
from typing import Any

import numpy as np

from xpnet.errors import shortened
from xpnet.gates.arrays import MatMul
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node
from xpnet.layers.affine import Affine
from xpnet.layers.convolution import Convolution
from xpnet.losses import LOSSES
from xpnet.models.tables import Table

__all__ = [
    "Layer", "Summary", "activations_of", "in_words", "layers_of", "loss_in_words", "sized",
    "sizes_of",
]  # fmt: skip

Shape = tuple[int | str, ...]

# Settings that make a gate repeatable and tell a reader nothing.
UNTOLD = ("seed", "layer")


@dataclass(frozen=True)
class Layer:
    """One line of a summary: an input of the network, or a gate.

    Attributes
    ----------
    name : str
        The node's name, such as Affine1.
    kind : str
        What it computes: "Affine", "Dropout(ratio=0.1)"; "input" for an input.
    output : tuple of int or str, or None
        Shape of its output: "N" stands for the samples of a batch. None if it is unknown.
    parameters : int
        The number of its trained numbers. What several gates share counts at the first.
    inputs : tuple of str
        The names of the nodes that it takes, without parameters.
    """

    name: str
    kind: str
    output: Shape | None
    parameters: int
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Summary:
    """The layers of a network with their shapes and parameters, and what else is in use.

    Print it for a table of text; a notebook shows it as HTML. `Network.summary`, `Model.summary`
    and `Trainer.summary` return one.

    Attributes
    ----------
    layers : tuple of Layer
        In the order of evaluation.
    parameters : int
        The number of all trained numbers.
    facts : tuple of (str, str)
        Everything below the table: what it is about, and what there is to say of it.

    Examples
    --------
    >>> import xpnet
    >>> print(xpnet.mlp([784, 512, 10]).summary())
    layer    kind    output    parameters
    -------  ------  --------  ----------
    x        input   (N, 784)
    Affine1  Affine  (N, 512)     401,920
    ReLU1    ReLU    (N, 512)           0
    Affine2  Affine  (N, 10)        5,130
    <BLANKLINE>
    parameters  407,050
    loss        softmax
    """

    layers: tuple[Layer, ...]
    parameters: int
    facts: tuple[tuple[str, str], ...] = ()

    def table(self) -> Table:
        """Return the layers as a table; what each takes is there if they are no plain chain."""
        names = [layer.name for layer in self.layers]
        chain = all(
            layer.inputs == (before,)
            for before, layer in zip(names, self.layers[1:], strict=False)
        )  # fmt: skip
        header = ("layer", "kind", *(() if chain else ("takes",)), "output", "parameters")
        rows = []
        for layer in self.layers:
            takes = () if chain else (shortened(", ".join(layer.inputs)),)
            count = "" if layer.kind == "input" else f"{layer.parameters:,}"
            what = shortened(layer.name), shortened(layer.kind)
            rows.append((*what, *takes, _shape_in_words(layer.output), count))
        return Table(header, rows, frozenset({len(header) - 1}))

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.facts), default=0)
        facts = [f"{name.ljust(width)}  {words}" for name, words in self.facts]
        return "\n".join([self.table().text(), *([""] if facts else []), *facts])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        style = ' style="text-align: left"'
        rows = "\n".join(
            f"<tr><th{style}>{escape(name)}</th><td{style}>{escape(words)}</td></tr>"
            for name, words in self.facts
        )
        facts = f"\n<table>\n<tbody>\n{rows}\n</tbody>\n</table>" if rows else ""
        return self.table().html() + facts


# -- Making one ------------------------------------------------------------------------


def layers_of(
    graph: Graph,
    scores: Node,
    loss: Node,
    params: Mapping[str, Any],
    statistics: Mapping[str, Any],
    input_shape: tuple[int, ...] | None,
) -> tuple[Layer, ...]:
    """List the gates of a network from its inputs to its scores.

    If the loss has parameters of its own, it is the last line.
    """
    values = {**params, **statistics}
    nodes = graph.nodes_topologically_sorted(scores)
    shapes = _shapes(graph, nodes, values, input_shape)
    absent = {node.name for node in nodes if node.gate is None and node.optional}
    layers, seen = [], set[str]()
    for node in nodes:
        if node.name in values or node.name in absent:
            continue
        own = [name for name in dict.fromkeys(node.inputs) if name in params and name not in seen]
        seen.update(own)
        takes = tuple(name for name in node.inputs if name not in values and name not in absent)
        kind = "input" if node.gate is None else _kind(node, params)
        count = sum(_size(params[name]) for name in own)
        layers.append(Layer(node.name, kind, shapes.get(node.name), count, takes))
    if left := sum(_size(value) for name, value in params.items() if name not in seen):
        layers.append(Layer(loss.name, in_words(loss.gate), (), left, (scores.name,)))
    return tuple(layers)


def _kind(node: Node, params: Mapping[str, Any]) -> str:
    """Name a gate with its settings; a convolution also with the size of its filters."""
    if isinstance(node.gate, Convolution) and np.ndim(params.get(node.inputs[1], 0.0)) == 4:
        return in_words(node.gate, kernel=np.shape(params[node.inputs[1]])[2:])
    return in_words(node.gate)


def _shapes(
    graph: Graph, nodes: Sequence[Node], values: Mapping[str, Any], shape: tuple[int, ...] | None
) -> dict[str, Shape]:
    """Find the shape of each node by running batches of 2 and of 3 samples; {} if none can run."""
    shape = _input_shape(nodes, values) if shape is None else shape
    if shape is None:
        return {}
    computed = [node for node in nodes if node.gate is not None]
    for dtype in (np.float64, np.int64):  # a network may begin by looking up whole numbers
        found = []
        for samples in (2, 3):
            x = np.zeros((samples, *shape), dtype)
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made, _ = graph.forward({**values, "x": x}, *computed)
            except Exception:  # a gate of the user's own may raise anything: then try the other
                break
            outputs = [made] if len(computed) == 1 else made
            named = zip([node.name for node in computed], outputs, strict=True)
            found.append({"x": x.shape} | {name: np.shape(value) for name, value in named})
        if len(found) == 2:
            return {name: _general(found[0][name], found[1][name]) for name in found[0]}
    return {}


def _input_shape(nodes: Sequence[Node], values: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of a sample by the first weights that x meets, for a network that does not say."""
    for node in nodes:
        if isinstance(node.gate, Affine | MatMul) and node.inputs[0] == "x":
            weights = np.shape(values.get(node.inputs[1], 0.0))
            return weights[:1] if len(weights) == 2 else None
    return None


def _general(of_two: tuple[int, ...], of_three: tuple[int, ...]) -> Shape:
    """A shape for any number of samples, N, by the shapes for 2 and for 3 of them."""
    if len(of_two) != len(of_three):
        return ("?",)
    general: list[int | str] = []
    for two, three in zip(of_two, of_three, strict=True):
        each = three - two
        if not each:
            general.append(two)
        elif two == 2 * each:
            general.append("N" if each == 1 else f"{each} N")
        else:
            general.append("?")
    return tuple(general)


# -- Words -----------------------------------------------------------------------------


def in_words(thing: Any, **more: Any) -> str:
    """Name a gate, a rule or a schedule with its first setting and those that are not the default.

    If there is something more to say, it stands in the first setting's place.

    Examples
    --------
    >>> from xpnet.layers import Dropout, MaxPool
    >>> in_words(Dropout(0.2, seed=3)), in_words(MaxPool(3, stride=2))
    ('Dropout(ratio=0.2)', 'MaxPool(size=3, stride=2)')
    """
    name = type(thing).__name__.lstrip("_")
    if not is_dataclass(thing) or isinstance(thing, type):
        return name
    settings = [f"{key}={_value_in_words(value)}" for key, value in more.items()]
    first = None
    for i, setting in enumerate(fields(thing)):
        value = getattr(thing, setting.name, None)
        first = first if i else value
        if setting.name in UNTOLD or not setting.repr:
            continue
        plain = setting.default is not MISSING and _is_default(value, setting.default, first)
        if not plain or not (i or more):
            settings.append(f"{setting.name}={_value_in_words(value)}")
    return f"{name}({', '.join(settings)})" if settings else name


def sizes_of(arguments: Mapping[str, Any]) -> list[str]:
    """Return the layers of a network by its builder's arguments; [] if you built it by hand.

    Examples
    --------
    >>> import xpnet
    >>> sizes_of(xpnet.mlp([784, 50, 10]).arguments)
    ['784', '50', '10']
    >>> sizes_of(xpnet.cnn((1, 28, 28), [[8, 16], 32], [100]).arguments)
    ['1x28x28', 'conv 8', 'conv 16', 'pool', 'conv 32', 'pool', '100', '10']
    """
    if "channels" not in arguments:
        return [*map(str, arguments.get("sizes", ()))]
    sizes = ["x".join(map(str, arguments["input_shape"]))]
    for block in arguments["channels"]:
        sizes += [f"conv {filters}" for filters in block]
        sizes += ["pool"] if arguments["pool"] > 1 else []
    sizes += ["global mean"] if arguments["global_pool"] else []
    return [*sizes, *map(str, [*arguments["hidden"], arguments["outputs"]])]


def activations_of(arguments: Mapping[str, Any]) -> list[str]:
    """Return the activations of a network by its builder's arguments.

    One name where all hidden layers have it and the output has none; else the name of each.
    """
    names = arguments.get("activation", ["identity"])
    if isinstance(names, str):
        return [names]
    plain = len({*names[:-1]}) <= 1 and names[-1] == "identity"
    return [*(names[:-1][:1] if plain else names)]


def loss_in_words(gate: Any) -> str:
    """Name a loss as `xpnet.mlp` does, with the settings that are not the default."""
    for name, kind in LOSSES.items():
        if type(gate) is kind:
            settings = [
                f"{setting.name} {_value_in_words(value)}".removeprefix(f"{name} ")
                for setting in fields(kind)
                if not _same(value := getattr(gate, setting.name), setting.default)
            ]
            return f"{name} ({', '.join(settings)})" if settings else name
    return in_words(gate)


def sized(numbers: int, dtype: str) -> str:
    """Return a number of numbers with their memory: "407,050 (1.6 MiB in float32)"."""
    size, unit = float(numbers * np.dtype(dtype).itemsize), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{numbers:,} ({size:.{0 if unit == 'bytes' else 1}f} {unit} in {dtype})"


def _same(value: Any, default: Any) -> bool:
    try:
        return value is default or bool(value == default)
    except (TypeError, ValueError):  # an array, whose comparison is not one truth value
        return False


def _is_default(value: Any, default: Any, first: Any) -> bool:
    """Whether a gate made of the default has this value: the pair of it, or the first setting."""
    pair = isinstance(value, tuple) and value == (first if default is None else (default, default))
    return pair or _same(value, default)


def _value_in_words(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]  # of rows and of columns
    if isinstance(value, float):
        return f"{value:.6g}"
    if is_dataclass(value) and not isinstance(value, type):
        return in_words(value)
    if callable(value):  # a schedule of the user's own, whose repr has an address in memory
        return str(getattr(value, "__name__", type(value).__name__))
    if np.ndim(value) and hasattr(value, "shape"):
        return f"array of {tuple(value.shape)}"
    return shortened(" ".join(repr(value).split()))


def _shape_in_words(shape: Shape | None) -> str:
    if shape is None:
        return "?"
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _size(value: Any) -> int:
    return math.prod(np.shape(value))
