"""The settings of ``xpnet train``: a dataclass whose fields are the options, with their help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xpnet.commands.config.types import (
    L1,
    ActivationsOrNone,
    Augment,
    Beta,
    ChannelsOrNone,
    ClassWeight,
    Clip,
    Column,
    Columns,
    Count,
    Decay,
    Dropout,
    Dropped,
    Fall,
    File,
    Float,
    IdColumn,
    Init,
    Int,
    Kernel,
    Kind,
    LearningRate,
    Library,
    LossOrAuto,
    Metric,
    Padding,
    Pool,
    Rule,
    Seeds,
    SizesOrNone,
    Threshold,
)
from xpnet.parallel.group import TIMEOUT

__all__ = ["CALL_ONLY", "EXAMPLES", "FREE", "GROUPS", "Config"]


@dataclass(frozen=True)
class Config:
    """Train a network on the CPU or a GPU. Without options, train on the built-in digits.

    Several values make a sweep: --lr 0.1,0.01 --seed 0..9 trains a network for each combination,
    many at once, lists the settings, the best first, and keeps the best network. This is for
    --channels, --hidden and --activation (with a slash between two: 50/100,50), --init, --dropout,
    --lr, --weight-decay, --l1, --beta2, --clip-norm, --batch-size, --epochs and --seed.
    """

    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda if it is usable, else cpu."""
    backend: Library = "auto"
    """Array library; auto is numpy on the CPU and cupy on CUDA."""
    dataset: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """Data set by name: digits is built in; xpnet downloads the others once."""
    data_dir: File = None
    """Folder with the IDX files of mnist or fashion-mnist; xpnet then downloads nothing."""
    data: File = None
    """Your own data: a .csv, .tsv (.gz too) or .parquet table with a label column, .npz with x and
    t or x_train and y_train, or .npy with --labels: one file, a folder, or a pattern such as
    'part-*.npy'."""
    labels: File = None
    """.npy file with the targets for a --data file.npy, or a pattern: a file for each of --data."""
    label_column: Column = None
    """Label column of a table, by name or number."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line of a .csv or .tsv file has the names of the columns."""
    columns: Columns = ()
    """The columns of a table to use as features, by name or number."""
    drop: Dropped = ()
    """Columns of a table to leave out."""
    id: IdColumn = None
    """Column of a table that names each row: no feature; xpnet.predict prints it."""
    test_data: File = None
    """File to test on, like --data; by default xpnet sets a part of the data aside."""
    test_labels: File = None
    """.npy file with the targets for a --test-data file.npy."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """auto treats whole numbers and text as classes, and other numbers as regression targets."""
    standardize: bool = True
    """Scale your own float features (and regression targets) to mean 0, standard deviation 1."""
    test_fraction: float = 0.2
    """Share of the data to set aside for the test, if the data has no test part."""
    val_fraction: float = 0.0
    """Share of the training part to measure on after each epoch; 0 sets none aside. A sweep chooses
    by this part, and takes 0.1 if you name neither this nor --folds."""
    preset: Literal["auto", "book"] = "auto"
    """auto chooses network and training by the number of samples. book takes those of the book,
    K. Saitoh's Deep Learning from Scratch: 50 sigmoid units, SGD 0.1, batch 100, 17 epochs; with
    --model cnn and deep-cnn relu, Adam 0.001, batch 100, 20 epochs."""
    model: Kind = "mlp"
    """mlp takes rows of features; cnn and deep-cnn take images: convolutions, max pools, then
    hidden layers. Without --channels these are the networks of the book's chapters 7 and 8."""
    channels: ChannelsOrNone = None
    """Filters of the convolutions of a cnn: 16-16,32-32 has two blocks of two, and each block ends
    with a max pool."""
    kernel: Kernel = None
    """Size of the filters."""
    padding: Padding = None
    """Zeros around the images before each convolution; same keeps their size."""
    pool: Pool = None
    """Size of the max pool after each block; 1 for none."""
    batch_norm: bool = False
    """Normalize each hidden layer's values over the batch, before the activation."""
    hidden: SizesOrNone = None
    """Sizes of the hidden layers; "" for none."""
    activation: ActivationsOrNone = None
    loss: LossOrAuto = "auto"
    """auto is softmax for classes and squared for a regression; hinge is the loss of an SVM. The
    last four are for a regression; poisson is for counts, and the network then predicts rates."""
    quantile: Float = None
    """The quantile that --loss quantile predicts; by default 0.5, the median."""
    class_weight: ClassWeight = None
    """How much each class counts in the loss: balanced gives all classes the same total weight,
    and no=1,yes=5 says it by name."""
    threshold: Threshold = None
    """For two classes: predict the second where its probability is at least this. F1 finds the
    threshold with the best F1 on the validation part. By default the more probable class."""
    dropout: Dropout = None
    """Share of the hidden values that dropout sets to 0 in training; of a cnn those behind the
    blocks."""
    init: Init = None
    """Initial weights: he, xavier, a standard deviation, or auto: he for rectifiers."""
    optimizer: Rule = None
    """Update rule."""
    lr: LearningRate = None
    schedule: Fall = None
    """How the learning rate falls: step divides it by 10 after each third of the run, exponential
    lowers it to 1 %, cosine to 0, inverse as 1/t to 10 %. plateau halves it when the validation
    loss (or --metric; without a validation part the training loss) has not improved for 5 epochs,
    or for half of --patience if that is less."""
    warmup: int = 0
    """Steps in which the learning rate grows linearly before the schedule starts."""
    weight_decay: Decay = None
    """L2 penalty on the weights; adamw decouples it."""
    l1: L1 = 0.0
    """L1 penalty on the weights: many come close to 0."""
    beta2: Beta = None
    """How slowly adam and adamw forget the squares of old gradients."""
    clip_norm: Clip = None
    """Largest norm of the gradient."""
    augment: Augment = None
    """Move each image of a step up to so many pixels, 2 if you say none, and flip every other one
    left to right: shift,flip. For cnn and deep-cnn."""
    batch_size: Count = None
    """Samples per step."""
    epochs: Count = None
    """Passes through the training part."""
    patience: Int = None
    """Stop after this many epochs without a smaller validation loss, or a better --metric; keep the
    best weights."""
    metric: Metric = None
    """What --patience watches in place of the validation loss: f1, balanced_accuracy, roc_auc, mae
    and others."""
    init_from: File = None
    """Train on from this model, or folder of a run: with its network, weights, classes and encoding
    of the columns, and its optimizer's state if it fits."""
    target_acc: Float = None
    """End with status 4 if the test accuracy is below this."""
    seed: Seeds = 0
    """Random seed for split, initial weights, batch order and dropout; 0..9 are ten seeds. A sweep
    splits by the first one."""
    folds: Int = None
    """Cross-validate: split the training part into so many, hold each out once to measure every
    setting on it, then train the best setting on all of them."""
    ensemble: bool = False
    """Of a sweep, also measure the mean answer of the networks of the best setting, and keep all
    networks."""
    dtype: Literal["float32", "float64"] = "float32"
    """Data type of parameters and activations."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Precision of the matrix products in training. GPUs support all of them; some CPUs support
    bfloat16 with torch or jax."""
    out: File = None
    """Folder of the run; by default runs/DATASET-TIME."""
    resume: File = None
    """Continue the run in this folder with its settings; other options override them."""
    config: File = None
    """TOML file with settings, named as these options; the options you give override it."""
    print_config: bool = False
    """Print all settings as TOML and stop."""
    dry_run: bool = False
    """Check device, data and settings, describe the training, and stop."""
    plot: bool = False
    """Also draw curves, mistakes or predictions, weights and activations; needs matplotlib."""
    quiet: bool = False
    """Print only errors."""
    rank_timeout: float = TIMEOUT
    """Under mpirun: if one of the processes is lost, the others end within so many seconds."""


# The types of options that take any text.
FREE = ("File", "Column", "Columns", "Dropped", "IdColumn", "ClassWeight", "str")
# These options control one call and do not belong to the run. A file may set the first three.
CALL_ONLY = ("out", "plot", "quiet", "resume", "config", "print_config", "dry_run")
# The options in --help, in this order; a test holds that each is in one group.
GROUPS = {
    "Data": (
        "data", "labels", "label_column", "header", "columns", "drop", "id", "task", "dataset",
        "data_dir", "test_data", "test_labels", "test_fraction", "val_fraction", "standardize",
    ),
    "Network": (
        "preset", "model", "channels", "kernel", "padding", "pool", "batch_norm", "hidden",
        "activation", "loss", "quantile", "dropout", "init", "init_from", "threshold",
    ),
    "Training": (
        "epochs", "batch_size", "augment", "optimizer", "lr", "schedule", "warmup", "weight_decay",
        "l1",
        "beta2", "clip_norm", "class_weight", "patience", "metric", "seed", "folds", "ensemble",
    ),
    "Device": ("device", "backend", "dtype", "precision"),
    "Run": (
        "out", "resume", "config", "print_config", "dry_run", "plot", "target_acc", "quiet",
        "rank_timeout",
    ),
}  # fmt: skip
EXAMPLES = (
    "--data titanic.csv --label-column survived --drop name",
    "--data fraud.csv --class-weight balanced --plot",
    "--dataset mnist --hidden 512,256 --device cuda",
    "--dataset mnist --model cnn --channels 16-16,32-32 --augment shift",
    "--data titanic.csv --lr 0.03,0.01,0.003 --hidden 50/100,50 --seed 0..4",
)
