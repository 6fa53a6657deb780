"""Chapter 6: optimizers, initial weights, batch normalization, overfitting, random search.

    python examples/book/ch06.py --out pictures --mnist FOLDER

Eight experiments in the chapter's order and with its numbers, each with its picture: five minutes
for all of them; --only runs some.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from chapter import Part, Size, accuracies, arguments, curves, load, panels, save

from xpnet.book.functions import relu, sigmoid
from xpnet.book.multi_layer_net import MultiLayerNet
from xpnet.book.multi_layer_net_extend import MultiLayerNetExtend
from xpnet.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from xpnet.book.trainer import Trainer
from xpnet.book.util import shuffle_dataset, smooth_curve

SIZES = {
    "iterations": Size(2000, 200, "batches, to compare optimizers and initial weights"),
    "norm_epochs": Size(20, 4, "epochs with and without batch normalization"),
    "decay_epochs": Size(201, 121, "epochs with and without weight decay"),
    "dropout_epochs": Size(301, 161, "epochs with and without dropout"),
    "trials": Size(100, 8, "trials of the random search"),
    "trial_epochs": Size(50, 30, "epochs of each trial"),
}

Numbers = dict[str, float]
Data = tuple[Part, Part]


# Optimizers


def optimizer_paths(options: argparse.Namespace, data: Data) -> Numbers:
    """Thirty steps of each optimizer down f = x² / 20 + y², which is steep in y and flat in x."""
    optimizers: dict[str, Any] = {
        "SGD": SGD(lr=0.95),
        "Momentum": Momentum(lr=0.1),
        "Nesterov": Nesterov(lr=0.1),
        "AdaGrad": AdaGrad(lr=1.5),
        "RMSprop": RMSprop(lr=0.1),
        "Adam": Adam(lr=0.3),
    }
    figure, axes = panels(2, 3, (3.6, 2.2), sharex=True, sharey=True)
    x, y = np.meshgrid(np.linspace(-8, 8, 161), np.linspace(-3, 3, 61))
    ends = {}
    for ax, (name, optimizer) in zip(axes.flat, optimizers.items(), strict=True):
        params, path = {"x": -7.0, "y": 2.0}, []
        for _ in range(30):
            path.append((params["x"], params["y"]))
            grads = {"x": params["x"] / 10, "y": 2 * params["y"]}
            optimizer.update(params, grads)
        ends[name] = float(np.hypot(params["x"], params["y"]))
        ax.contour(x, y, x**2 / 20 + y**2, np.arange(0.5, 6.5) ** 2 / 2, colors="0.8")
        ax.plot(*np.array(path).T, "o-", color="#d55e00", markersize=3.5, linewidth=1)
        ax.plot(0, 0, "k+", markersize=10)
        ax.set(xticks=[-8, -4, 0, 4, 8], yticks=[-2, 0, 2], title=f"{name}, lr {optimizer.lr}")
    for ax in axes[1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("y")
    save(figure, options, "ch06_optimizer_paths")
    print("distance from the minimum after 30 steps: " + listed(ends, ".2f"))
    return ends


def optimizer_losses(options: argparse.Namespace, data: Data) -> Numbers:
    """The same batches for four optimizers with their usual settings, each with its network."""
    optimizers = {"SGD": SGD(), "Momentum": Momentum(), "AdaGrad": AdaGrad(), "Adam": Adam()}
    networks = {name: five_layers(data[0][0].shape[1]) for name in optimizers}
    losses = train_side_by_side(networks, optimizers, data[0], options.iterations)
    return draw_losses(options, losses, "ch06_optimizer_losses", "optimizers", 1.0)


def five_layers(input_size: int, weight_init_std: float | str = "relu") -> Any:
    return MultiLayerNet(
        input_size=input_size,
        hidden_size_list=[100, 100, 100, 100],
        output_size=10,
        weight_init_std=weight_init_std,
    )


def train_side_by_side(
    networks: dict[str, Any], optimizers: dict[str, Any], train: Part, iterations: int
) -> dict[str, list[float]]:
    """Give every network the same batches of 128; the loss of each after each update."""
    x_train, t_train = train
    train_loss: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(iterations):
        batch_mask = np.random.choice(len(x_train), 128)
        x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
        for name, network in networks.items():
            grads = network.gradient(x_batch, t_batch)
            optimizers[name].update(network.params, grads)
            train_loss[name].append(float(network.loss(x_batch, t_batch)))
    return train_loss


def draw_losses(
    options: argparse.Namespace,
    losses: dict[str, list[float]],
    name: str,
    title: str,
    highest: float,
) -> Numbers:
    """Draw the losses, smoothed; return the mean of the last tenth of each."""
    figure, axes = panels(size=(6, 4))
    smoothed = {key: smooth_curve(np.array(values)) for key, values in losses.items()}
    curves(axes[0, 0], smoothed, "iteration", "loss", max(1, options.iterations // 20))
    axes[0, 0].set(ylim=(0, highest), title=title)
    save(figure, options, name)
    last = {key: float(np.mean(values[-(len(values) // 10) :])) for key, values in losses.items()}
    print("loss at the end: " + listed(last, ".3f"))
    return last


# Initial weights


def activations(options: argparse.Namespace, data: Data) -> Numbers:
    """How the outputs of five layers of 100 units spread, for four scales of the weights."""
    scales = {"std 1": 1.0, "std 0.01": 0.01, "Xavier": 100**-0.5, "He": (2 / 100) ** 0.5}
    chosen = {
        "sigmoid": (sigmoid, ["std 1", "std 0.01", "Xavier"]),
        "ReLU": (relu, ["std 0.01", "Xavier", "He"]),
    }
    spreads = {}
    for kind, (function, names) in chosen.items():
        figure, axes = panels(len(names), 5, (2.1, 1.9), sharex=True, sharey="row")
        for row, name in zip(axes, names, strict=True):
            x = np.random.randn(1000, 100)
            for i, ax in enumerate(row):
                x = function(np.dot(x, scales[name] * np.random.randn(100, 100)))
                histogram(ax, x)
                ax.set_title(f"{name}, layer {i + 1}", fontsize=9)
            row[0].set_ylabel("outputs, %")
            spreads[f"{kind}, {name}"] = float(x.std())
        figure.supxlabel(f"output of {kind}", fontsize=10)
        save(figure, options, f"ch06_activations_{kind.lower()}")
    print("standard deviation of layer 5: " + listed(spreads, ".2g"))
    return spreads


def histogram(ax: Any, x: np.ndarray) -> None:
    """Outputs from 0 to 1 in 30 bars; zeros and those beyond 1 in words, where there are many."""
    ax.hist(x.ravel(), 30, range=(0, 1), weights=np.full(x.size, 100 / x.size), color="0.4")
    zeros, beyond = 100 * np.mean(x == 0), 100 * np.mean(x > 1)
    if zeros > 1:
        ax.set_ylim(0, 10)
        words = f"zero: {zeros:.0f} %\nabove 1: {beyond:.0f} %"
        ax.text(0.97, 0.95, words, transform=ax.transAxes, ha="right", va="top", fontsize=8)


def initial_losses(options: argparse.Namespace, data: Data) -> Numbers:
    """The same batches for three scales of the initial weights."""
    scales: dict[str, float | str] = {"std 0.01": 0.01, "Xavier": "xavier", "He": "he"}
    networks = {name: five_layers(data[0][0].shape[1], scale) for name, scale in scales.items()}
    optimizers = dict.fromkeys(networks, SGD(lr=0.01))
    losses = train_side_by_side(networks, optimizers, data[0], options.iterations)
    return draw_losses(options, losses, "ch06_initial_losses", "initial weights", 2.5)


# Batch normalization


def batch_normalization(options: argparse.Namespace, data: Data) -> Numbers:
    """Six layers on 1,000 images with and without normalization, for 16 scales of the weights."""
    x_train, t_train = data[0][0][:1000], data[0][1][:1000]
    figure, axes = panels(4, 4, (2.5, 2.0), sharex=True, sharey=True)
    learned = {"with": 0, "without": 0}
    for ax, scale in zip(axes.flat, np.logspace(0, -4, num=16), strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # at std 1 the plain network overflows
            series = with_and_without((x_train, t_train), scale, options.norm_epochs)
        curves(ax, series, "", "", max(1, options.norm_epochs // 5))
        ax.get_legend().remove()
        ax.set(ylim=(0, 1.02), title=f"std {scale:.2g}")
        for name, values in series.items():
            learned[name] += values[-1] > 0.5
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    lines, _ = axes[0, 0].get_legend_handles_labels()
    names = [f"{name} batch normalization" for name in learned]
    figure.legend(lines, names, loc="outside upper center", ncols=2)
    save(figure, options, "ch06_batch_normalization")
    print(
        f"more than half right at {learned['with']} of 16 scales with batch normalization, "
        f"at {learned['without']} without"
    )
    return {name: float(count) for name, count in learned.items()}


def with_and_without(train: Part, scale: float, epochs: int) -> dict[str, list[float]]:
    """Accuracy after each epoch on the training images, of two networks on the same batches."""
    x_train, t_train = train
    networks = {
        name: MultiLayerNetExtend(
            input_size=x_train.shape[1],
            hidden_size_list=[100] * 5,
            output_size=10,
            weight_init_std=scale,
            use_batchnorm=name == "with",
        )
        for name in ("with", "without")
    }
    optimizer = SGD(lr=0.01)
    train_acc: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(epochs):
        for _ in range(len(x_train) // 100):
            batch_mask = np.random.choice(len(x_train), 100)
            for network in networks.values():
                grads = network.gradient(x_train[batch_mask], t_train[batch_mask])
                optimizer.update(network.params, grads)
        for name, network in networks.items():
            train_acc[name].append(float(network.accuracy(x_train, t_train)))
    return train_acc


# Overfitting


def weight_decay(options: argparse.Namespace, data: Data) -> Numbers:
    """Seven layers on 300 images, without and with weight decay of 0.1."""
    networks = {
        "without weight decay": seven_layers(data),
        "weight decay 0.1": seven_layers(data, weight_decay_lambda=0.1),
    }
    return overfit(options, data, networks, options.decay_epochs, "ch06_weight_decay")


def dropout(options: argparse.Namespace, data: Data) -> Numbers:
    """Seven layers on 300 images, without and with dropout of a fifth of the units."""
    networks = {
        "without dropout": seven_layers(data),
        "dropout 0.2": seven_layers(data, use_dropout=True, dropout_ration=0.2),
    }
    return overfit(options, data, networks, options.dropout_epochs, "ch06_dropout")


def seven_layers(data: Data, **settings: Any) -> Any:
    return MultiLayerNetExtend(
        input_size=data[0][0].shape[1], hidden_size_list=[100] * 6, output_size=10, **settings
    )


def overfit(
    options: argparse.Namespace, data: Data, networks: dict[str, Any], epochs: int, name: str
) -> Numbers:
    """Train each network on 300 images, few enough to learn by heart; draw both accuracies."""
    (x_train, t_train), (x_test, t_test) = data
    figure, axes = panels(1, 2, sharey=True)
    found = {}
    for ax, (title, network) in zip(axes[0], networks.items(), strict=True):
        trainer = Trainer(
            network,
            x_train[:300],
            t_train[:300],
            x_test,
            t_test,
            epochs=epochs,
            mini_batch_size=100,
            optimizer="sgd",
            optimizer_param={"lr": 0.01},
            verbose=False,
        )
        trainer.train()
        accuracies(ax, trainer.train_acc_list, trainer.test_acc_list, title)
        train_acc, test_acc = trainer.train_acc_list[-1], trainer.test_acc_list[-1]
        print(f"{title}: accuracy training {train_acc:.3f}, test {test_acc:.3f}")
        found[f"{title}, training"], found[f"{title}, test"] = float(train_acc), float(test_acc)
    axes[0, 1].set_ylabel("")
    save(figure, options, name)
    return found


# Hyperparameters


def random_search(options: argparse.Namespace, data: Data) -> Numbers:
    """Learning rates and weight decays at random; the curves of the twenty best trials."""
    x, t = shuffle_dataset(data[0][0][:500], data[0][1][:500])
    trials = []
    for _ in range(options.trials):
        decay, lr = 10 ** np.random.uniform(-8, -4), 10 ** np.random.uniform(-6, -2)
        network = seven_layers(data, weight_decay_lambda=decay)
        trainer = Trainer(
            network,
            x[100:],
            t[100:],
            x[:100],
            t[:100],
            epochs=options.trial_epochs,
            mini_batch_size=100,
            optimizer="sgd",
            optimizer_param={"lr": lr},
            verbose=False,
        )
        trainer.train()
        trials.append((trainer, lr, decay))
    trials.sort(key=lambda trial: trial[0].test_acc_list[-1], reverse=True)

    shown = trials[:20]
    figure, axes = panels(-(-len(shown) // 5), 5, (2.1, 1.8), sharex=True, sharey=True)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for i, (ax, (trainer, lr, decay)) in enumerate(zip(axes.flat, shown, strict=False)):
        series = {"validation": trainer.test_acc_list, "training": trainer.train_acc_list}
        curves(ax, series, "", "", max(1, options.trial_epochs // 5))
        ax.get_legend().remove()
        ax.set(ylim=(0, 1.02))
        ax.set_title(f"{i + 1}. lr {lr:.1e}\ndecay {decay:.1e}", fontsize=8)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("accuracy", fontsize=10)
    lines, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=2)
    save(figure, options, "ch06_random_search")

    best = trials[: max(1, len(trials) // 5)]
    rates = [lr for _, lr, _ in best]
    found = {
        "best accuracy": float(trials[0][0].test_acc_list[-1]),
        "worst accuracy": float(trials[-1][0].test_acc_list[-1]),
        "lowest rate of the best fifth": float(min(rates)),
        "highest rate of the best fifth": float(max(rates)),
    }
    print("random search: " + listed(found, ".2g"))
    return found


def listed(numbers: Numbers, form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in numbers.items())


EXPERIMENTS: dict[str, Callable[[argparse.Namespace, Data], Numbers]] = {
    function.__name__: function
    for function in (
        optimizer_paths,
        optimizer_losses,
        activations,
        initial_losses,
        batch_normalization,
        weight_decay,
        dropout,
        random_search,
    )
}


def main(argv: Sequence[str] | None = None) -> dict[str, Numbers]:
    options = arguments(__doc__, argv, SIZES, list(EXPERIMENTS))
    data = load(options)
    results = {}
    for name in options.only:
        np.random.seed(0)  # each experiment gives the same numbers alone as with the others
        results[name] = EXPERIMENTS[name](options, data)
    return results


if __name__ == "__main__":
    main()
