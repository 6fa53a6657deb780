"""A trained model: a network with its parameters and all that it needs to predict."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.backend.interface import Backend
from xpnet.backend.select import select
from xpnet.data.checks import check_features, check_targets, checked_scaling, host
from xpnet.data.dataset import Scaling
from xpnet.data.encoder import Encoder
from xpnet.data.frames import frame_table, is_frame
from xpnet.data.images import misfit
from xpnet.data.labels import array_targets, labels_of, text_targets
from xpnet.data.loader import Feed
from xpnet.data.table import Table
from xpnet.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    UsageError,
    XpnetError,
    counted,
    listed,
    real,
    shown,
)
from xpnet.metrics import (
    METRICS,
    classification_scores,
    higher_is_better,
    measure,
    regression_scores,
)
from xpnet.models import checkpoint, schema
from xpnet.models.evaluation import Evaluation, class_indices
from xpnet.models.fitting import (
    difference,
    inputs_of,
    misnamed,
    misscaled,
    rebuilt,
    undivided,
    unmeasured,
)
from xpnet.models.network import Network
from xpnet.models.summary import Summary, sized
from xpnet.parallel.group import ALONE, Group

__all__ = ["Model"]


class Model:
    """A network and its parameters: it predicts, evaluates, saves and loads.

    Parameters
    ----------
    network : Network
        The model starts from copies of its initial parameters.
    backend : Backend, optional
        From `xpnet.select`; NumPy by default.
    dtype : {"float32", "float64"}
    scaling : Scaling, optional
        The scaling of x before it enters the network. By default uint8 values are divided by 255,
        and all others stay as they are.
    target_scaling : Scaling, optional
        The scaling of a regression's targets. You give targets and get predictions in their own
        units; only losses are in scaled units. It must keep targets >= 0 where the loss needs
        them (`xpnet.losses.PoissonLoss`): shift 0, scale > 0.
    classes : sequence of str, optional
        Names of the classes.
    columns : sequence of str, optional
        Names of the features.
    encoder : Encoder, optional
        From `xpnet.data.Encoder.of`: it makes features of data frames and tables. It brings its own
        scaling and the names of the features. Arrays are features already.
    threshold : float in [0, 1], optional
        For two classes: predict the second one where its probability is at least this. By
        default the more probable one.

    Attributes
    ----------
    params : dict of str to array
        The parameters, and the network's statistics, arrays of the backend. A `xpnet.Trainer`
        consumes and replaces them.
    classifies : bool
        Whether `predict` returns classes.
    sample_dtype : str or None
        The dtype of the training samples. x must not be uint8 if they were floats. Without
        `scaling`, x must be uint8 if they were, and must not be if they were not: the model divides
        only uint8 values by 255.
    predicts_names : bool
        Whether `predict` returns the names in `classes`, since the labels of the training were
        text; otherwise it returns their indices.
    label_dtype : str
        The dtype of the labels, where `predict` returns numbers that do not count from 0: 1, 2, 3,
        or -1 and 1. "" otherwise.
    flat : bool
        Whether `predict` returns the values of a regression with one target as shape=(N,), since
        `xpnet.fit` was given such targets.

    Notes
    -----
    A pickle holds host arrays and the backend's name. If you cannot use that backend where you
    open it, the model opens on NumPy and warns once; `backend` says where it is.

    Examples
    --------
    >>> import xpnet
    >>> model = xpnet.Model(xpnet.mlp([3, 4, 2]), classes=["no", "yes"])
    >>> model.predict_proba(np.zeros((1, 3), np.float32)).tolist()
    [[0.5, 0.5]]
    """

    def __init__(
        self,
        network: Network,
        *,
        backend: Backend | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        scaling: Scaling | None = None,
        target_scaling: Scaling | None = None,
        classes: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        threshold: float | None = None,
    ) -> None:
        if backend is not None and not isinstance(backend, Backend):
            raise UsageError(
                f"backend is {shown(backend)}; expected one such as xpnet.select('cpu', 'jax')"
            )
        if dtype not in ("float32", "float64"):
            raise UsageError(f"dtype is {shown(dtype)}; expected float32 or float64")
        if network.outputs is None:
            raise UsageError(
                "the network does not say how many outputs it has; pass outputs=... to Network"
            )
        self.network = network
        self.backend = backend or select("cpu")
        # As text, whatever a caller has: the labels themselves, say, np.unique(t).
        self.classes = None if classes is None else tuple(map(str, classes))
        self.columns = () if columns is None else tuple(map(str, columns))
        self.encoder: Encoder | None = None
        if encoder is not None:
            if not isinstance(encoder, Encoder):
                raise UsageError(
                    f"encoder is {shown(encoder)}; expected one: xpnet.data.Encoder.of(frame)"
                )
            if columns is not None and self.columns != encoder.names:
                raise UsageError("columns are the encoder's own: leave them out")
            self._take(encoder)
            scaling = encoder.scaling if scaling is None else scaling
        if fault := misnamed(network, self.classes, self.columns):
            raise UsageError(f"the model {fault}")
        self.dtype = dtype
        self.rescale(scaling, target_scaling)
        for name, value in network.values.items():
            if host(value, name).dtype.kind != "f":
                raise UsageError(f"{name} has dtype {value.dtype}; expected float64 or float32")
        self.params: dict[str, Array] = self.feed.copies(network.values)
        self.classifies: bool = network.loss_gate.targets != "real"
        self.sample_dtype: str | None = None
        self.predicts_names = False
        self.label_dtype, self.flat = "", False
        self.threshold = threshold

    def sibling(self, network: Network, params: Mapping[str, np.ndarray]) -> Model:
        """Return a model like this one, with another network of its inputs and outputs.

        Parameters
        ----------
        network : Network
        params : mapping of str to array
            Its parameters, on the host.
        """
        model = object.__new__(type(self))
        model.__dict__.update(self.__dict__)
        model.network = network
        model.rescale(self.feed.scaling, self.feed.target_scaling)
        model.params = model.feed.copies(params)
        return model

    def rescale(self, scaling: Scaling | None, target_scaling: Scaling | None) -> None:
        """Take other scalings: of the samples, and of a regression's targets.

        Raises
        ------
        UsageError
            A scaling is none, or makes negative targets of those that the loss takes.
        """
        target_scaling = checked_scaling(target_scaling, "target_scaling")
        if fault := misscaled(self.network, target_scaling):
            raise UsageError(f"target_scaling: {fault}")
        self.feed = Feed(
            self.backend,
            self.dtype,
            checked_scaling(scaling),
            target_scaling,
            self.network.input_shape,
        )
        self.evaluation = Evaluation(self.network, self.feed)

    @property
    def threshold(self) -> float | None:
        """Of two classes: predict the second one from this probability on; None means 0.5."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        if value is not None:
            value = real("threshold", value, 0.0, 1.0, "[]")
            if fault := undivided(self.network):
                raise UsageError(f"threshold: {fault}")
        self._threshold = value

    # -- Words -------------------------------------------------------------------------

    def __repr__(self) -> str:
        where = f"{self.feed.dtype} on {self.backend.library}, {self.backend.device}"
        return f"<Model: {self.network.in_words}; {where}>"

    def summary(self) -> Summary:
        """Return a table of layers, output shapes and parameters, and what else is in use.

        Print it; a notebook shows it as HTML. See `Network.summary`.

        Examples
        --------
        >>> import xpnet
        >>> print(xpnet.Model(xpnet.mlp([3, 2]), classes=["no", "yes"]).summary())  # doctest: +SKIP
        layer    kind    output  parameters
        -------  ------  ------  ----------
        x        input   (N, 3)
        Affine1  Affine  (N, 2)           8
        <BLANKLINE>
        parameters  8 (32 bytes in float32)
        loss        softmax
        classes     no, yes
        scaling     x as it is; bytes (uint8) are divided by 255
        backend     numpy 2.4.6 on cpu (Intel(R) Xeon(R) Processor @ 2.50GHz, 23.5 GiB)
        """
        made = self.network.summary()
        facts = dict(made.facts)
        facts["parameters"] = sized(made.parameters, self.feed.dtype)
        if self.classes is not None:
            facts["classes"] = listed(self.classes, 10)
        if self.encoder is not None:
            columns = counted(len(self.encoder.columns), "column")
            features = counted(self.encoder.width, "feature")
            facts["encoder"] = f"from {columns} to {features}: {listed(self.encoder.columns, 10)}"
        elif self.columns:
            facts["features"] = listed(self.columns, 10)
        if self.feed.scaling is None:
            facts["scaling"] = "x as it is; bytes (uint8) are divided by 255"
        else:
            facts["scaling"] = self.feed.scaling.in_words("x")
        if self.feed.target_scaling is not None:
            facts["targets"] = self.feed.target_scaling.in_words("t")
        if self.threshold is not None:
            facts["threshold"] = f"{self.threshold:g}, for the second class"
        facts["backend"] = str(self.backend)
        return Summary(made.layers, made.parameters, tuple(facts.items()))

    # -- Tables and names --------------------------------------------------------------

    @contextmanager
    def learning_names(self, x: Any, t: Any, *, standardize: bool = False) -> Iterator[None]:
        """Take the columns of a frame, and the classes of text labels, if the model has none yet.

        They are forgotten where the block refuses the data. `standardize` asks the encoder for a
        scaling, which the model does not take.

        Raises
        ------
        DataError
            The frame makes more or fewer features than the network has inputs, or the labels more
            or fewer classes than it has outputs.
        """
        known = self.encoder, self.columns, self.classes, self.predicts_names
        try:
            self._learn_names(x, t, standardize)
            yield
        except XpnetError:
            self.encoder, self.columns, self.classes, self.predicts_names = known
            raise

    def learn_columns(self, x: Any, *, standardize: bool = False) -> None:
        """Take the columns of a frame or a table, if the model has none yet."""
        if (isinstance(x, Table) or is_frame(x)) and self.encoder is None and not self.columns:
            self._take(Encoder.of(x, standardize=standardize))

    def _learn_names(self, x: Any, t: Any, standardize: bool) -> None:
        self.learn_columns(x, standardize=standardize)
        labels = labels_of(t, "t")
        if isinstance(labels, list):
            if not self.classifies:
                raise DataError("t: got text, expected numbers: the loss is that of a regression")
            if self.classes is None:
                classes = text_targets(labels, "classification", None, "t", "t: row {}".format)[1]
                if fault := misnamed(self.network, classes, ()):
                    raise DataError(f"t {fault.replace('class names', 'different labels')}")
                self.classes = classes
            self.predicts_names = True

    def _take(self, encoder: Encoder) -> None:
        inputs = inputs_of(self.network)
        if inputs is not None and encoder.width != inputs:
            raise DataError(
                f"the table's {len(encoder.columns)} columns make {encoder.width} features, but "
                f"the network takes {inputs}: build it with encoder.width inputs, where encoder = "
                "xpnet.data.Encoder.of(frame)"
            )
        self.encoder, self.columns = encoder, encoder.names

    def features(self, x: Any, name: str = "x") -> Any:
        """Return samples as an array of features: of a frame or a table, by the encoder.

        Raises
        ------
        DataError
            A column is missing, or the model has no encoder and a column is no plain number.
        """
        if not isinstance(x, Table):
            if not is_frame(x):
                return x
            x = frame_table(x, name)
        if self.encoder is not None:
            return self.encoder.encode(x)
        return x.matrix(self.columns)

    # -- Checks ------------------------------------------------------------------------

    def checked_samples(
        self, x: Any, what: str = "", trained_on: Any = None, group: Group = ALONE
    ) -> Any:
        """Samples as NumPy's, if they fit the network; `what` goes into the message.

        `trained_on` is the dtype of the training samples, if it is not `sample_dtype` yet. The
        ranks of a group share the reading of what stays in a file.

        Raises
        ------
        DataError
        """
        x = host(self.features(x, f"x{what}"), f"x{what}")
        check_features(x, f"x{what}", group)
        self.check_shape(x.shape, f"x{what}")
        was = str(trained_on or self.sample_dtype or x.dtype)
        if np.dtype(was).kind == "f" and x.dtype == np.uint8:
            raise DataError(
                f"x{what}: got uint8, but the network was trained on {was}, and bytes often have "
                f"another unit, 0 to 255; give x as {was}, in the unit of the training"
            )
        if self.feed.scaling is None and (was == "uint8") != (x.dtype == np.uint8):
            raise DataError(
                f"x{what}: got {x.dtype}, but the network was trained on {was}, and without a "
                f"scaling only uint8 is divided by 255; give x as {was}, or train with scaling=..."
            )
        return x

    def check_shape(self, shape: Sequence[int], name: str = "x") -> None:
        """Refuse samples that do not have as many values as the network has inputs.

        A network of images, (channels, rows, columns), also refuses another order of these axes.

        Raises
        ------
        DataError
            The samples have more or fewer values.
        """
        expected = self.network.input_shape
        if expected is not None and len(expected) == 3:
            if fault := misfit(shape[1:], expected):
                raise DataError(f"{name}: {fault}")
        elif expected is not None and math.prod(shape[1:]) != math.prod(expected):
            raise DataError(
                f"{name}: got samples of shape {tuple(shape[1:])}, "
                f"expected {math.prod(expected)} features, as many as the network has inputs"
            )

    def checked_pair(
        self, x: Any, t: Any, what: str = "", trained_on: Any = None, group: Group = ALONE
    ) -> tuple[Any, np.ndarray]:
        """Samples and targets as NumPy's, if they fit the network and each other.

        Raises
        ------
        DataError
        """
        x = self.checked_samples(x, what, trained_on, group)
        return x, self.checked_targets(t, len(x), what)

    def checked_targets(self, t: Any, n: int, what: str = "") -> np.ndarray:
        """Targets as NumPy's, class indices for text, if they fit the network and n samples.

        Raises
        ------
        DataError
        """
        targets: np.ndarray = self._targets(t, f"t{what}")
        gate = self.network.loss_gate
        assert self.network.outputs is not None  # refused when the model was made
        check_targets(
            targets, n, self.network.outputs, gate.targets, f"t{what}",
            nonnegative=getattr(gate, "nonnegative", False),
        )  # fmt: skip
        return targets

    def _targets(self, t: Any, name: str) -> Any:
        """Targets as NumPy's; class indices for text."""
        labels = labels_of(t, name)
        if not isinstance(labels, list):
            numbers = host(labels, name)
            if self.classifies and numbers.shape[1:] == (1,) and (self.network.outputs or 0) > 1:
                numbers = numbers[:, 0]  # classes in a column
            if not self.label_dtype:
                return numbers
            return array_targets(numbers, len(numbers), "classification", self.classes, name)[0]
        if self.classes is None:
            raise DataError(f"{name}: got text, but the model has no names of classes")
        return text_targets(
            labels, "classification", self.classes, name, f"{name}: row {{}}".format
        )[0]

    def resident(self, x: Any, t: np.ndarray, *, own: bool = False) -> tuple[Any, np.ndarray]:
        """Checked samples and targets as `evaluation` takes them: x on the device, or a file."""
        classes = self.evaluation.classifies(t)
        return self.feed.samples_or_file(x, own=own), self.feed.targets(t, classes)

    # -- Answers -----------------------------------------------------------------------

    def evaluate(self, x: Any, t: Any) -> dict[str, float | None]:
        """Measure the model on a data set.

        Returns
        -------
        dict
            "loss" per sample. For classes "accuracy", "balanced_accuracy", "precision", "recall",
            "f1" (of the second of two classes; of more classes the mean) and, where the loss gives
            probabilities, "roc_auc", "average_precision" and "log_loss". For a regression "r2",
            and "mae" and "rmse" in the units of the targets. None where a number is not defined:
            R² if the targets do not vary, for example. See `xpnet.metrics`.

        Raises
        ------
        DataError
            x or t does not fit the network.
        """
        x, t = self.checked_pair(x, t)
        here, targets = self.resident(x, t)
        loss, score = self.evaluation.measure(self.params, here, targets)
        scores = self.evaluation.scores(self.params, here)
        if not self.evaluation.classifies(t):
            measured = regression_scores(t.reshape(len(t), -1), self.values(scores))
            return {"loss": loss, **measured, "r2": score}
        predicted, probabilities = self.decide(scores), self.probabilities(scores)
        measured = classification_scores(
            class_indices(t), predicted, probabilities, self._class_count
        )
        # What the loss gives no probabilities for is left out; what is not defined is None.
        if probabilities is None:
            measured = {
                name: measured[name] for name in measured if METRICS[name].needs == "classes"
            }
        return {"loss": loss, **measured}

    def check_metric(self, name: str) -> None:
        """Refuse a metric that is unknown, or that needs what the network does not give.

        Raises
        ------
        UsageError
        """
        higher_is_better(name)  # refuses an unknown one
        needs = METRICS[name].needs
        if (needs == "values") == self.classifies:
            kind = "a regression" if self.classifies else "classes"
            fitting = [n for n, m in METRICS.items() if (m.needs == "values") != self.classifies]
            raise UsageError(f"metric {name} is for {kind}; expected one of {listed(fitting)}")
        if needs == "probabilities" and not hasattr(self.network.loss_gate, "probabilities"):
            raise UsageError(
                f"metric {name} needs probabilities; train with the softmax or sigmoid loss, or "
                "take f1 or accuracy"
            )

    def metric(self, name: str, x: Any, t: np.ndarray, group: Group = ALONE) -> float | None:
        """Measure one metric; x is from `resident`, t as `checked_pair` returns it."""
        scores = self.evaluation.scores(self.params, x, group)
        if not self.evaluation.classifies(t):
            return measure(name, t.reshape(len(t), -1), self.values(scores))
        return measure(
            name, class_indices(t), self.decide(scores), self.probabilities(scores),
            classes=self._class_count,
        )  # fmt: skip

    @property
    def _class_count(self) -> int:
        return max(self.network.outputs or 0, 2)

    def scores(self, x: Any) -> np.ndarray:
        """Return the outputs, shape=(N, outputs).

        They are logits, margins, scaled values of a regression, or logarithms of rates.
        """
        x = self.feed.samples_or_file(self.checked_samples(x))
        return self.evaluation.scores(self.params, x)

    def hidden(self, x: Any) -> dict[str, np.ndarray]:
        """Return the outputs of the hidden layers by node name (ReLU1 ...), shape=(N, units).

        Those of a convolution are images, shape=(N, channels, H, W).
        """
        x = self.feed.samples_or_file(self.checked_samples(x))
        return self.evaluation.hidden(self.params, x)

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Return the class indices that scores stand for, shape=(N,)."""
        gate = self.network.loss_gate
        if self.threshold is None:
            return np.asarray(gate.decide(scores))
        chosen = np.asarray(gate.probabilities(scores))[:, 1] >= self.threshold
        return chosen.astype(np.asarray(gate.decide(scores[:1])).dtype)

    def probabilities(self, scores: np.ndarray) -> np.ndarray | None:
        """Return the probabilities that scores stand for; None if the loss gives none."""
        gate = self.network.loss_gate
        return np.asarray(gate.probabilities(scores)) if hasattr(gate, "probabilities") else None

    def values(self, scores: np.ndarray) -> np.ndarray:
        """Return the values of a regression that scores stand for, in the targets' units."""
        return self.feed.original(np.asarray(self.network.predictions(scores)))

    def predict(self, x: Any) -> np.ndarray:
        """Return classes, shape=(N,), or the values of a regression, shape=(N, outputs).

        From `xpnet.fit` with targets of shape (N,), the values have shape (N,) too.

        Classes are indices, which count from 0; if the model was trained on text labels, or by
        `xpnet.fit` on other numbers, they are the labels. The values of a regression are in the
        units of its targets.

        Raises
        ------
        DataError
            x does not fit the network.
        """
        scores = self.scores(x)
        if not self.classifies:
            values = self.values(scores)
            return values[:, 0] if self.flat else values
        return self.labelled(self.decide(scores))

    def labelled(self, chosen: np.ndarray) -> np.ndarray:
        """Return the labels of class indices, as `predict` does."""
        if self.label_dtype:
            answers: np.ndarray = _numbers(self.classes, self.label_dtype)[chosen]
            return answers
        return np.array(self.classes)[chosen] if self.predicts_names else chosen

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the probabilities of the classes, shape=(N, classes).

        Raises
        ------
        UsageError
            The loss is neither softmax nor sigmoid: its scores are not probabilities.
        """
        gate = self.network.loss_gate
        if not hasattr(gate, "probabilities"):
            raise UsageError(
                f"{type(gate).__name__} gives scores, not probabilities; "
                "train with the softmax or sigmoid loss, or call scores()"
            )
        return np.asarray(gate.probabilities(self.scores(x)))

    # -- Files, pickles, copies --------------------------------------------------------

    def to_host(self) -> dict[str, np.ndarray]:
        """Return the parameters and statistics as NumPy arrays."""
        return {name: self.backend.to_numpy(value) for name, value in self.params.items()}

    def packed(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, meta) for `checkpoint.save`; `unpacked` reads them back."""
        arrays = {f"params/{name}": value for name, value in self.to_host().items()}
        scalings = {"scaling": self.feed.scaling, "target_scaling": self.feed.target_scaling}
        for name, scaling in scalings.items():
            if scaling is not None:
                arrays[f"{name}/shift"] = np.asarray(scaling.shift, np.float64)
                arrays[f"{name}/scale"] = np.asarray(scaling.scale, np.float64)
        return arrays, {
            "format": schema.FORMAT,
            "builder": self.network.builder,
            "arguments": self.network.arguments,
            "gates": self.network.gates,
            "dtype": self.feed.dtype,
            "classifies": self.classifies,
            "classes": self.classes,
            "columns": self.columns,
            "sample_dtype": self.sample_dtype,
            "encoder": None if self.encoder is None else self.encoder.plain(),
            "threshold": self.threshold,
            "predicts_names": self.predicts_names,
            "label_dtype": self.label_dtype,
            "flat": self.flat,
            "extra": {},
        }

    def save(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Save network, parameters, scaling and names as one file that `load` reads.

        Parameters
        ----------
        path : path
        extra : mapping, optional
            Meta data to add: text, finite numbers, lists, and dicts with text as keys.

        Raises
        ------
        UsageError
            JSON cannot hold `extra`.
        CheckpointError
            A parameter or a scaling is not finite.
        OSError
            The file cannot be written. An old file at `path` is unchanged.
        """
        arrays, meta = self.packed()
        meta = checkpoint.plain(meta | {"extra": dict(extra or {})})
        schema.check(arrays, meta, path)
        checkpoint.save(path, arrays, meta)

    @classmethod
    def load(cls, path: str | Path, *, network: Network | None = None, **options: Any) -> Model:
        """Load a model from a file that `save` wrote, or from the checkpoint of a run.

        A checkpoint gives the parameters of its last step, even with early stopping.

        Parameters
        ----------
        path : path
        network : Network, optional
            Needed for a network that you built by hand, without `xpnet.mlp`. It must have the same
            gates as the one in the file.
        **options
            The options of `Model`, such as backend; they override the file's values.

        Raises
        ------
        CheckpointError
            The file is missing or damaged, xpnet did not write it, or `network` differs from it.
        """
        arrays, meta = schema.load(path)
        return cls.unpacked(arrays, meta, path=path, network=network, **options)

    @classmethod
    def unpacked(
        cls,
        arrays: Mapping[str, np.ndarray],
        meta: Mapping[str, Any],
        *,
        path: str | Path,
        network: Network | None = None,
        **options: Any,
    ) -> Model:
        """As `load`, from what `schema.load` has read; `path` is for messages."""
        params = checkpoint.section(arrays, "params/")
        network = rebuilt(meta, params, path) if network is None else network
        shapes = {name: p.shape for name, p in network.values.items()}
        if {name: p.shape for name, p in params.items()} != shapes:
            raise CheckpointError(f"{path}: its parameters do not fit the network {shapes}")
        if other := difference(meta, network):
            raise CheckpointError(f"{path}: is of another network: {other}")
        if fault := unmeasured(network, params):
            raise CheckpointError(f"{path}: {fault}")
        kept: dict[str, Any] = {name: meta[name] for name in ("dtype", "classes", "columns")}
        for name, size in (("scaling", inputs_of(network)), ("target_scaling", network.outputs)):
            if f"{name}/shift" not in arrays:
                continue
            kept[name] = Scaling(arrays[f"{name}/shift"], arrays[f"{name}/scale"])
            if any(part.ndim and part.size != (size or part.size) for part in kept[name]):
                raise CheckpointError(f"{path}: its {name} does not fit the network")
        if fault := misnamed(network, kept["classes"], kept["columns"]):
            raise CheckpointError(f"{path}: {fault}")
        if fault := misscaled(network, kept.get("target_scaling")):
            raise CheckpointError(f"{path}: target_scaling: {fault}")
        if meta["threshold"] is not None:
            fault = undivided(network) or (
                "" if 0 <= meta["threshold"] <= 1 else "it is not a share"
            )
            if fault:
                raise CheckpointError(f"{path}: its threshold does not fit: {fault}")
        if meta["sample_dtype"] is not None and not _is_dtype(meta["sample_dtype"]):
            raise CheckpointError(f"{path}: its sample_dtype is {shown(meta['sample_dtype'])}")
        if meta["predicts_names"] and kept["classes"] is None:
            raise CheckpointError(f"{path}: has no names of classes, which it predicts")
        if meta["label_dtype"]:
            try:
                _numbers(kept["classes"], meta["label_dtype"])
            except (ValueError, OverflowError, TypeError) as error:
                raise CheckpointError(
                    f"{path}: its classes are no {meta['label_dtype']}, which it predicts"
                ) from error
        encoder = None
        if meta["encoder"] is not None:
            try:
                encoder = Encoder.from_plain(meta["encoder"])
            except ValueError as error:
                raise CheckpointError(
                    f"{path}: its encoder is not as xpnet writes it: {error}"
                ) from error
            if encoder.names != tuple(kept["columns"]):
                raise CheckpointError(f"{path}: its encoder does not make its features")
        if not meta["classifies"] and network.loss_gate.targets != "real":
            raise CheckpointError(f"{path}: {type(network.loss_gate).__name__} is for classes")
        model = cls(network, **{**kept, **options})
        model.params = model.feed.copies(params)
        model.classifies = meta["classifies"]
        model.sample_dtype = meta["sample_dtype"]
        model.predicts_names = meta["predicts_names"]
        model.label_dtype, model.flat = meta["label_dtype"], meta["flat"]
        if encoder is not None and "columns" not in options:
            model.encoder = encoder
        model.threshold = options.get("threshold", meta["threshold"])
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        # What no builder can make again travels itself.
        network = None if self.network.builder else self.network
        where = (self.backend.device, self.backend.library, self.feed.dtype)
        return _opened, (*self.packed(), network, where, self.backend.precision)

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        arrays, meta = self.packed()
        return type(self).unpacked(
            arrays, meta, path="a copy", network=self.network, backend=self.backend
        )


def _numbers(names: Sequence[str] | None, dtype: str) -> np.ndarray:
    """Return the numbers that names of classes stand for."""
    number = float if dtype == "float64" else int  # an id may have 20 digits
    return np.array([number(name) for name in names], dtype)  # type: ignore[union-attr]


def _is_dtype(name: str) -> bool:
    try:
        return bool(np.dtype(name).kind in "biuf")
    except TypeError:
        return False


def _opened(
    arrays: dict[str, np.ndarray],
    meta: dict[str, Any],
    network: Network | None,
    where: tuple[str, str, str],
    precision: str,
) -> Model:
    """A model out of a pickle, on its own backend, or on NumPy."""
    try:
        backend = select(*where, precision=precision)
    except DeviceError as error:
        backend = select("cpu")
        warnings.warn(
            f"cannot use the model's backend {where[1]}, {where[0]} here ({error}); the model "
            "is now on numpy, cpu",
            RuntimeWarning,
            stacklevel=2,
        )
    return Model.unpacked(arrays, meta, path="the pickle", network=network, backend=backend)
