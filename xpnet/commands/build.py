"""Build what a run trains: a new network by the settings, or a model that is trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpnet.backend.interface import Backend
from xpnet.backend.local import select_together
from xpnet.commands.config.defaults import schedule_of
from xpnet.commands.config.filters import filters_of
from xpnet.commands.config.settings import Config
from xpnet.commands.config.types import weights_of
from xpnet.commands.splits import Parts
from xpnet.data.cells import is_number
from xpnet.data.dataset import Dataset
from xpnet.data.images import channels_first
from xpnet.errors import DataError, UsageError, counted, listed, shown
from xpnet.losses import LOSSES
from xpnet.models import checkpoint, schema
from xpnet.models.kinds import network_of_kind, takes_images
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.optim import OPTIMIZERS
from xpnet.parallel import ALONE, Group
from xpnet.trainer.resume import optimizer_state
from xpnet.trainer.trainer import Trainer

__all__ = [
    "Source", "backend_of", "build_trainer", "check_fits", "class_weight_of", "network_of",
    "predicts_names", "rule_of", "source_of",
]  # fmt: skip


class Source(NamedTuple):
    """The model from which --init-from trains on, and the checkpoint with its optimizer's state."""

    model: Model
    checkpoint: tuple[dict[str, np.ndarray], dict[str, Any]] | None

    def state(self, optimizer: Any, state: Any) -> dict[str, np.ndarray] | None:
        """Return the optimizer's state if it fits and is that of the weights; else None."""
        if self.checkpoint is None:
            return None
        arrays, meta = self.checkpoint
        params = checkpoint.section(arrays, "params/")
        here = self.model.to_host()
        if not all(np.array_equal(params.get(name, ()), value) for name, value in here.items()):
            return None  # of the last step, and the model has the weights of the best epoch
        return optimizer_state(arrays, meta, optimizer, state)


def backend_of(config: Config, dtype: str, group: Group = ALONE) -> Backend:
    """Select the backend of a run, on a GPU for each rank; `dtype` is that of its parameters."""
    library = None if config.backend == "auto" else config.backend
    return select_together(group, config.device, library, dtype, config.precision)[0]


def class_weight_of(config: Config, train: Dataset) -> str | dict[int, float] | None:
    """Return the class weights by index; refuse those of unknown classes."""
    if config.class_weight in (None, "balanced"):
        return config.class_weight
    classes, weights = train.classes or (), weights_of(config.class_weight)
    for name in weights:
        if name not in classes:
            raise UsageError(f"--class-weight: no class {shown(name)}; there are {listed(classes)}")
    return {classes.index(name): weight for name, weight in weights.items()}


def check_fits(config: Config, parts: Parts) -> None:
    """Refuse options that do not fit the data."""
    for option, value in (
        ("--target-acc", config.target_acc), ("--class-weight", config.class_weight),
    ):  # fmt: skip
        if value is not None and parts.train.classes is None:
            raise UsageError(f"{option} needs classes; this is a regression")
    class_weight_of(config, parts.train)
    if config.threshold == "F1" and parts.val is not None and not np.any(parts.val.t):
        raise UsageError("--threshold F1 needs samples of the second class in the validation part")


def source_of(config: Config, group: Group = ALONE) -> Source | None:
    """Read the model that --init-from names; a run that is resumed has it in its checkpoint."""
    if config.init_from is None:
        return None
    given, found = config.init_from, None
    if config.resume is not None and checkpoint.numbered(config.resume / "checkpoints"):
        given = config.resume / "checkpoints"
        arrays, meta, path, _ = checkpoint.load_latest(given, schema.load)
    else:
        path = checkpoint.model_file(given)
        arrays, meta = schema.load(path)
        if (given / "sweep.csv").exists():
            pass  # its checkpoints are those of many networks
        elif given.is_dir() and checkpoint.numbered(given / "checkpoints"):
            found = checkpoint.load_latest(given / "checkpoints", schema.load)[:2]
        elif "identity" in meta:
            found = arrays, meta
    backend = backend_of(config, meta["dtype"], group)
    return Source(Model.unpacked(arrays, meta, path=path, backend=backend), found)


def build_trainer(
    config: Config,
    parts: Parts,
    backend: Backend,
    source: Source | None = None,
    group: Group = ALONE,
) -> Trainer:
    """Build the network, the optimizer and the trainer from the settings, or around a model."""
    assert config.epochs is not None  # it is settled
    assert config.batch_size is not None
    steps = config.epochs * -(-len(parts.train) // config.batch_size)
    optimizer, decay = rule_of(config, steps)
    options: dict[str, Any] = {
        "weight_decay": decay,
        "l1": config.l1,
        "clip_norm": config.clip_norm,
        "augment": config.augment,
        "seed": config.seed,
        "group": group,
    }
    if source is not None:
        trainer = Trainer(source.model, optimizer, **options)
        if state := source.state(optimizer, trainer.state):
            trainer.state = trainer.feed.copies(state)
    else:
        trainer = Trainer(
            network_of(config, parts.train),
            optimizer,
            backend=backend,
            dtype=config.dtype,
            scaling=parts.train.scaling,
            target_scaling=parts.train.target_scaling,
            classes=parts.train.classes,
            columns=None if parts.encoder else parts.train.columns,
            encoder=parts.encoder,
            **options,
        )
        trainer.model.predicts_names = predicts_names(parts)
    if config.threshold is not None:  # F1 finds its own at the end
        trainer.model.threshold = 0.5 if config.threshold == "F1" else float(config.threshold)
    if config.metric is not None:
        trainer.model.check_metric(config.metric)
    return trainer


def rule_of(config: Config, steps: int) -> tuple[Any, float]:
    """Return the optimizer of a run of `steps` steps, and the weight decay of the trainer."""
    assert config.optimizer is not None  # it is settled
    rule = OPTIMIZERS[config.optimizer]
    decouples = hasattr(rule, "weight_decay")  # AdamW decays the weights itself
    decay = config.weight_decay or 0.0
    own = {"weight_decay": decay} if decouples else {}
    if config.beta2 is not None:
        own["beta2"] = config.beta2
    return rule(lr=schedule_of(config, steps), **own), 0.0 if decouples else decay


def predicts_names(parts: Parts) -> bool:
    """Whether a model answers with names: text comes back as text.

    A number is a name too, but then its index is what NumPy has.
    """
    numbers = all(map(is_number, parts.train.classes or ("0",)))
    return parts.encoder is not None and not numbers


def network_of(config: Config, train: Dataset) -> Network:
    """Build the network of a run, for its training part."""
    loss = config.loss
    if loss == "auto":
        loss = "squared" if train.classes is None else "softmax"
    real = [name for name, gate in LOSSES.items() if gate.targets == "real"]
    if train.classes is None and loss not in real:
        raise UsageError(f"--loss {loss} is for classes; a regression needs one of {listed(real)}")
    # The book has squares of one-hot rows too.
    if train.classes is not None and loss in real and loss != "squared":
        raise UsageError(
            f"--loss {loss} is for a regression, but the labels are classes; if they are numbers, "
            "say --task regression"
        )
    outputs = 1 if loss == "sigmoid" and train.outputs == 2 else train.outputs
    assert config.hidden is not None  # it is settled
    assert config.activation is not None
    assert config.init is not None
    hidden = list(config.hidden)
    activation = config.activation
    filters: dict[str, Any] = {}
    shape: tuple[int, ...] = (int(np.prod(train.x.shape[1:])),)
    if takes_images(config.model):
        shape, filters = _image_shape(config, train), filters_of(config)
    elif len(activation) == 1:
        activation = activation * len(hidden)
    return network_of_kind(
        config.model,
        shape,
        outputs,
        hidden=hidden,
        activation=list(activation),
        batch_norm=config.batch_norm,
        loss=loss if config.quantile is None else (loss, {"quantile": config.quantile}),
        dropout=config.dropout,
        init=config.init,
        seed=config.seed,
        **filters,
    )


def _image_shape(config: Config, train: Dataset) -> tuple[int, ...]:
    """Return (channels, rows, columns) of the images of a run; refuse what is none."""
    source = config.dataset if config.data is None else str(config.data)
    if train.columns:
        raise DataError(
            f"{source}: is a table of {counted(len(train.columns), 'feature')}, and --model "
            f"{config.model} takes images: .npy or .npz with x of shape (N, rows, columns) or "
            "(N, channels, rows, columns)"
        )
    named = train.image_shape if config.data is None else None
    return channels_first(train.x.shape, named, source)
