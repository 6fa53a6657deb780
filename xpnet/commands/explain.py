"""``python -m xpnet.explain`` lists a network's variables after a run on one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from xpnet import datasets
from xpnet.commands.config.filters import filters_of, refuse_filters
from xpnet.commands.config.types import (
    Channels,
    File,
    Float,
    Image,
    Kernel,
    Loss,
    ModelOrKind,
    OneActivations,
    OneSizes,
    Padding,
    Pool,
)
from xpnet.commands.exits import emit, run, say
from xpnet.commands.usage import read
from xpnet.data.dataset import Dataset, Scaling
from xpnet.data.images import channels_first
from xpnet.errors import LARGEST, UsageError, whole
from xpnet.files import write_whole
from xpnet.layers.dropout import Dropout
from xpnet.layers.normalization import BatchNorm
from xpnet.losses import LOSSES
from xpnet.models import checkpoint
from xpnet.models.kinds import KINDS, network_of_kind, takes_images
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.show.draw import picture
from xpnet.show.explain import Explanation, explain

__all__ = ["main"]


@dataclass(frozen=True)
class Arguments:
    """Explain a network: list every variable of a run on one batch, and the cost of each layer.

    The tables show each variable's name in code and in theory, shape, formula and norm, forward and
    backward; and each layer's parameters, floating-point operations and bytes.
    """

    inputs: int = 784
    """Number of inputs of an mlp."""
    image: Image = None
    """Shape of the images of a cnn: channels, rows, columns; by default 1,28,28."""
    channels: Channels = None
    """Filters of the convolutions of a cnn: 16-16,32-32 has two blocks of two."""
    kernel: Kernel = None
    """Size of the filters."""
    padding: Padding = None
    """Zeros around the images before each convolution; same keeps their size."""
    pool: Pool = None
    """Size of the max pool after each block; 1 for none."""
    batch_norm: bool = False
    """Normalize each hidden layer's values over the batch."""
    hidden: OneSizes = None
    """Sizes of the hidden layers; "" for none."""
    outputs: int = 10
    """Number of outputs."""
    activation: OneActivations = None
    loss: Loss = "softmax"
    """Loss."""
    dropout: Float = None
    """Share of the hidden values that dropout sets to 0."""
    model: ModelOrKind = None
    """Explain the trained network of this run's folder, model.npz or checkpoint instead; or cnn or
    deep-cnn, a new convolution network."""
    dataset: Literal["random", "digits", "mnist", "fashion-mnist"] = "random"
    """Take the batch, and the numbers of inputs and outputs, from this data set."""
    data_dir: File = None
    """Folder with the IDX files of mnist or fashion-mnist; xpnet then downloads nothing."""
    batch_size: int = 100
    """Number of samples."""
    dtype: Literal["float32", "float64"] = "float32"
    """Data type of parameters and activations."""
    seed: int = 0
    """Random seed for weights and data."""
    format: Literal["text", "markdown", "html"] = "text"
    """Format of the tables."""
    out: File = None
    """Write the tables into this file instead of printing them."""
    draw: File = None
    """Also draw the circuit into this file: .svg, .dot (Graphviz) or .mmd (Mermaid)."""
    expand: bool = False
    """Draw every gate, instead of one box per layer."""


GROUPS = {
    "Network": (
        "model",
        "inputs",
        "image",
        "channels",
        "kernel",
        "padding",
        "pool",
        "batch_norm",
        "hidden",
        "outputs",
        "activation",
        "loss",
        "dropout",
    ),
    "Batch": ("dataset", "data_dir", "batch_size", "dtype", "seed"),
    "Output": ("format", "out", "draw", "expand"),
}
EXAMPLES = (
    "--inputs 4 --hidden 3 --outputs 2 --batch-size 5",
    "--model runs/mine --dataset digits --format html --out run.html",
    "--hidden 50,20 --draw circuit.svg",
    "--model cnn --channels 8-8,16 --batch-size 10",
)


def _kind(a: Arguments) -> str:
    """Return the kind of network that is built; "" for one that is loaded."""
    if a.model is None:
        return "mlp"
    # The folder of a run may be called cnn.
    return str(a.model) if str(a.model) in KINDS and not a.model.exists() else ""


def _network(a: Arguments) -> tuple[Network, dict[str, np.ndarray], Scaling]:
    kind = _kind(a)
    if not kind:
        assert a.model is not None
        model = Model.load(checkpoint.model_file(a.model))
        return model.network, model.to_host(), model.feed.scaling_of(np.dtype("uint8"))
    shape, hidden, activation = a.image or (1, 28, 28), a.hidden, a.activation
    if not takes_images(kind):
        refuse_filters(a, "image")
        shape, hidden = (a.inputs,), (50,) if hidden is None else hidden
        activation = activation or ("sigmoid",)
        activation = activation * len(hidden) if len(activation) == 1 else activation
    network = network_of_kind(
        kind, shape, a.outputs, hidden=hidden, activation=list(activation or ("relu",)),
        batch_norm=a.batch_norm, loss=a.loss, dropout=a.dropout, seed=a.seed, **filters_of(a),
    )  # fmt: skip
    return network, network.values, Scaling()


def _check(a: Arguments) -> None:
    for name in ("inputs", "outputs", "batch_size", "seed"):
        value, least = getattr(a, name), 0 if name == "seed" else 1
        whole(f"--{name.replace('_', '-')}", value, least, LARGEST)
    size = a.inputs, a.image, a.outputs
    if a.dataset != "random" and size != (Arguments.inputs, None, Arguments.outputs):
        raise UsageError(
            "--dataset sets the numbers of inputs and outputs; leave out --inputs, --image and "
            "--outputs"
        )
    if a.data_dir is not None and a.dataset in ("random", "digits"):
        raise UsageError("--data-dir needs --dataset mnist or fashion-mnist")
    if a.outputs < 2 and LOSSES[a.loss].targets == "probabilities":
        raise UsageError(f"--loss {a.loss} needs --outputs 2 or more, got {a.outputs}")
    if a.dropout is not None and not 0.0 <= a.dropout < 1.0:
        raise UsageError(f"--dropout {a.dropout}: expected 0 <= ratio < 1")
    for option, path in (("out", a.out), ("draw", a.draw)):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"--{option} {path}: the folder {path.parent} does not exist")
    if a.out is not None and a.out == a.draw:
        raise UsageError(f"--draw {a.draw} is also the file of --out; choose another name")
    if not _kind(a):
        for name in GROUPS["Network"][1:]:
            if getattr(a, name) != getattr(Arguments, name):
                word = name.replace("_", " ")
                raise UsageError(
                    f"--model has its own {word}; leave out --{word.replace(' ', '-')}"
                )
    if a.draw is not None and a.draw.suffix not in (".svg", ".dot", ".mmd"):
        raise UsageError(f"--draw {a.draw}: expected a name ending with .svg, .dot or .mmd")


def _command(a: Arguments) -> int:
    _check(a)
    data = None
    if a.dataset != "random":
        data = datasets.load(a.dataset, a.data_dir)[0]
        a = replace(a, inputs=int(np.prod(data.x.shape[1:])), outputs=data.outputs)
        if takes_images(_kind(a) or "mlp"):
            a = replace(a, image=channels_first(data.x.shape, data.image_shape))
    network, params, scaling = _network(a)
    params = {name: p.astype(a.dtype) for name, p in params.items()}
    x, t = _batch(a, network, data, scaling)
    gates = [node.gate for node in network.graph.nodes.values()]
    stepwise = any(isinstance(gate, Dropout | BatchNorm) for gate in gates)
    inputs = {"step": np.asarray([1], np.int32)} if stepwise else {}
    found = explain(network, x, t, params, **inputs)
    text, drawing = _render(found, a.format), ""
    if a.draw is not None:  # an error here comes before anything is written
        trace = network.graph.trace({**params, "x": x, "t": t, **inputs}, network.loss)
        nodes = network.graph.nodes_topologically_sorted(network.loss)
        try:
            drawing = picture(nodes, trace, a.draw.suffix, expand=a.expand)
        except ValueError as error:
            raise UsageError(f"--draw {a.draw}: {error}") from error
    if a.out is None:
        emit(text, "replace")
    else:
        write_whole(a.out, text)
        say(f"wrote {a.out}")
    if a.draw is not None:
        write_whole(a.draw, drawing)
        say(f"drew {a.draw}")
    return 0


def _batch(
    a: Arguments, network: Network, data: Dataset | None, scaling: Scaling
) -> tuple[np.ndarray, np.ndarray]:
    """Return samples, scaled as in training, and targets; both are random without a data set."""
    rng = np.random.default_rng(a.seed)
    outputs, shape = network.outputs or 0, network.input_shape or ()
    features = math.prod(shape)
    t = rng.integers(0, max(outputs, 2), a.batch_size)
    if data is None:
        x = rng.random((a.batch_size, *shape))
    else:
        x, t = data.x[: a.batch_size].reshape(-1, a.inputs).astype(np.float64), data.t[: len(t)]
        if a.inputs != features or data.outputs != max(outputs, 2):
            raise UsageError(
                f"--dataset {a.dataset} has {a.inputs} inputs and {data.outputs} classes, but the "
                f"network has {features} inputs and {outputs} outputs"
            )
        shift, scale = map(np.ravel, data.scaling if _kind(a) else scaling)
        x = ((x - shift) * scale).reshape(-1, *shape)
    if network.loss_gate.targets == "real" and data is None:
        return x.astype(a.dtype), rng.random((a.batch_size, outputs)).astype(a.dtype)
    return x.astype(a.dtype), t


def _render(found: Explanation, form: str) -> str:
    if form == "html":
        style = "table { border-collapse: collapse } td, th { padding: 2px 10px; text-align: left }"
        style += " th { border-bottom: 1px solid #999 }"
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>xpnet</title>\n'
            f"<style>{style} body {{ font-family: sans-serif }}</style>\n{found.html()}\n</html>\n"
        )
    return found.markdown() if form == "markdown" else f"{found}\n"


def main(args: Sequence[str] | None = None, prog: str = "python -m xpnet.explain") -> int:
    """Run the command; return the exit status."""
    return run(lambda: _command(read(Arguments, args, prog, groups=GROUPS, examples=EXAMPLES)))
