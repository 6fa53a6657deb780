"""The book's Trainer against a plain loop, with a network of one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Library, open_library

from xpnet.book.trainer import Trainer
from xpnet.errors import UsageError

RNG = np.random.default_rng(0)
X, T = RNG.standard_normal((40, 3)), RNG.standard_normal(40)
X_TEST, T_TEST = RNG.standard_normal((15, 3)), RNG.standard_normal(15)


class Line:
    """y = x W, with the squared error; an answer within 1 of the target is right."""

    def __init__(self, asarray: Any = np.array) -> None:
        self.params = {"W": asarray(np.array([0.5, -1.0, 2.0]))}
        self.asked: list[int] = []

    def error(self, x: Any, t: Any) -> Any:
        return (x * self.params["W"]).sum(-1) - t

    def loss(self, x: Any, t: Any) -> Any:
        return 0.5 * (self.error(x, t) ** 2).mean()

    def gradient(self, x: Any, t: Any) -> dict[str, Any]:
        return {"W": (self.error(x, t)[:, None] * x).mean(0)}

    def accuracy(self, x: Any, t: Any) -> Any:
        self.asked.append(x.shape[0])
        return 1.0 * (self.error(x, t) ** 2 < 1.0).sum() / x.shape[0]


def trained(network: Any = None, data: Any = (X, T, X_TEST, T_TEST), **settings: Any) -> Trainer:
    np.random.seed(1)
    trainer = Trainer(network or Line(), *data, **{"verbose": False} | settings)
    trainer.train()
    return trainer


def plain_loop(epochs: int, batch: int, lr: float) -> tuple[Line, list[Any], list[Any], list[Any]]:
    """40 samples; the epochs begin in the iterations floor(epoch · 40 / batch)."""
    np.random.seed(1)
    network, losses, train, test = Line(), [], [], []
    per_epoch = max(40 / batch, 1.0)
    starts = {int(epoch * per_epoch) for epoch in range(epochs)}
    for i in range(int(epochs * per_epoch)):
        mask = np.random.choice(40, batch)
        network.params["W"] -= lr * network.gradient(X[mask], T[mask])["W"]
        losses.append(network.loss(X[mask], T[mask]))
        if i in starts:
            train.append(network.accuracy(X, T))
            test.append(network.accuracy(X_TEST, T_TEST))
    return network, losses, train, test


@pytest.mark.parametrize("batch", [8, 10, 16, 27, 40, 64])
def test_the_numbers_of_a_plain_loop(batch: int) -> None:
    network, losses, train, test = plain_loop(7, batch, 0.1)
    trainer = trained(epochs=7, mini_batch_size=batch, optimizer="sgd", optimizer_param={"lr": 0.1})
    np.testing.assert_allclose(trainer.train_loss_list, losses, rtol=1e-13)
    assert trainer.train_acc_list == train
    assert trainer.test_acc_list == test
    assert len(train) == trainer.current_epoch == 7
    assert trainer.current_iter == trainer.max_iter == len(losses)
    np.testing.assert_allclose(trainer.network.params["W"], network.params["W"], rtol=1e-13)


def test_every_epoch_is_recorded_where_the_books_are_not() -> None:
    """1,000 samples in batches of 128: 7.8125 iterations an epoch."""
    data = (np.ones((1000, 3)), np.ones(1000), X_TEST, T_TEST)
    trainer = trained(data=data, mini_batch_size=128)
    assert (trainer.iter_per_epoch, trainer.max_iter) == (7.8125, 156)
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 20


def test_attributes_of_the_book() -> None:
    network = Line()
    trainer = Trainer(network, X, T, X_TEST, T_TEST)
    assert trainer.network is network
    assert trainer.optimizer.lr == 0.01
    assert (trainer.epochs, trainer.batch_size, trainer.verbose) == (20, 100, True)
    assert (trainer.train_size, trainer.iter_per_epoch, trainer.max_iter) == (40, 1, 20)
    assert (trainer.current_iter, trainer.current_epoch) == (0, 0)
    assert trainer.train_loss_list == trainer.train_acc_list == trainer.test_acc_list == []
    assert trainer.x_train is X
    assert trainer.t_test is T_TEST


def test_accuracies_of_some_samples() -> None:
    trainer = trained(epochs=2, mini_batch_size=20, evaluate_sample_num_per_epoch=7)
    assert trainer.network.asked == [7, 7, 7, 7, 15]


@pytest.mark.parametrize(
    "name", ["SGD", "Momentum", "nesterov", "ADAGRAD", "RMSprop", "rmsprop", "Adam"]
)
def test_optimizers_by_name(name: str) -> None:
    trainer = Trainer(Line(), X, T, X_TEST, T_TEST, optimizer=name, optimizer_param={"lr": 0.3})
    assert type(trainer.optimizer).__name__.lower() == name.lower()
    assert trainer.optimizer.lr == 0.3


@pytest.mark.parametrize("name", ["adamw", "", None])
def test_an_unknown_optimizer_is_refused(name: Any) -> None:
    words = r"optimizer is .*; expected one of SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam$"
    with pytest.raises(UsageError, match=words):
        Trainer(Line(), X, T, X_TEST, T_TEST, optimizer=name)


def test_the_lines_of_the_book(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trained(epochs=2, mini_batch_size=20, verbose=True)
    losses, (train, test) = trainer.train_loss_list, (trainer.train_acc_list, trainer.test_acc_list)
    assert capsys.readouterr().out.splitlines() == [
        f"train loss:{losses[0]}",
        f"=== epoch:1, train acc:{train[0]}, test acc:{test[0]} ===",
        f"train loss:{losses[1]}",
        f"train loss:{losses[2]}",
        f"=== epoch:2, train acc:{train[1]}, test acc:{test[1]} ===",
        f"train loss:{losses[3]}",
        "=============== Final Test Accuracy ===============",
        f"test acc:{trainer.network.accuracy(X_TEST, T_TEST)}",
    ]
    trained(epochs=1)
    assert capsys.readouterr().out == ""


def test_float32_is_printed_as_short_as_by_the_book(capsys: pytest.CaptureFixture[str]) -> None:
    class Short(Line):
        def loss(self, x: Any, t: Any) -> Any:
            return np.float32(0.1)

        accuracy = loss

    trained(Short(), epochs=1, mini_batch_size=40, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "train loss:0.1",
        "=== epoch:1, train acc:0.1, test acc:0.1 ===",
        "=============== Final Test Accuracy ===============",
        "test acc:0.1",
    ]


@pytest.mark.parametrize("name", ["torch", pytest.param("cupy", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_data_of_other_libraries(name: str, optimizer: str) -> None:
    library: Library = open_library(name)
    settings = {"epochs": 3, "mini_batch_size": 16, "optimizer": optimizer}
    expected = trained(**settings)
    data = [library.asarray(a) for a in (X, T, X_TEST, T_TEST)]
    trainer = trained(Line(library.asarray), data, **settings)
    np.testing.assert_allclose(trainer.train_loss_list, expected.train_loss_list, rtol=1e-10)
    np.testing.assert_allclose(trainer.train_acc_list, expected.train_acc_list, rtol=1e-6)
    assert all(type(value) is float for value in trainer.train_loss_list + trainer.test_acc_list)
    weights = library.to_numpy(trainer.network.params["W"])
    np.testing.assert_allclose(weights, expected.network.params["W"], rtol=1e-10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mini_batch_size": 0}, "mini_batch_size is 0; expected a whole number, 1 or more"),
        ({"data": (X[:0], T[:0], X_TEST, T_TEST)}, "samples in x_train is 0; expected a whole"),
        ({"evaluate_sample_num_per_epoch": 0}, "per_epoch is 0; expected a whole number"),
        ({"epochs": "2"}, "epochs is '2'; expected a finite number"),
        ({"data": (X, T[:30], X_TEST, T_TEST)}, "x_train has 40 samples, t_train 30 targets"),
        ({"data": (X, T, X_TEST, T)}, "x_test has 15 samples, t_test 40 targets"),
    ],
)
def test_what_could_not_train_is_refused_before(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        trained(**settings)
