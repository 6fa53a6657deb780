"""The book's Trainer (``common/trainer.py``), for networks in the book's style.

It behaves as the book's does: batches drawn with replacement by ``np.random.choice``, the loss once
more after each update, on the same batch, and accuracies at the first iteration of each epoch, so
the first ones after a single update. One thing differs. The book finds the first iteration of an
epoch by a remainder of the iterations per epoch, a float, that is almost never 0 if the batch does
not divide the samples: with 1,000 samples in batches of 128 it records 2 of 20 epochs. Here each
epoch is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from xpnet.book.util import rows
from xpnet.errors import UsageError, real, shown, whole

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "Trainer", "np"]

OPTIMIZERS: dict[str, type[Any]] = {
    "sgd": SGD, "momentum": Momentum, "nesterov": Nesterov, "adagrad": AdaGrad,
    "rmsprop": RMSprop, "adam": Adam,
}  # fmt: skip


class Trainer:
    """Train a network with ``params``, ``gradient``, ``loss`` and ``accuracy`` on batches.

    Parameters
    ----------
    network : object
        ``gradient(x, t)`` returns a gradient for each of the dict ``params``, which the optimizer
        changes in place; ``loss(x, t)`` and ``accuracy(x, t)`` return numbers.
    x_train, t_train, x_test, t_test : array
        Samples and targets along the first axis, of any library that the network computes with.
    epochs, mini_batch_size : int
    optimizer : str
        "SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop" or "Adam", in any case.
    optimizer_param : mapping of str to number
        Arguments of the optimizer.
    evaluate_sample_num_per_epoch : int, optional
        So many of the first samples give the accuracies of each epoch; by default all do.
    verbose : bool
        Print each loss, each epoch's accuracies and the final one.

    Attributes
    ----------
    train_loss_list : list
        One loss for each iteration: NumPy's numbers as they are, a float for any other library.
    train_acc_list, test_acc_list : list
        One accuracy for each epoch.
    train_size, batch_size, max_iter, current_iter, current_epoch : int
    iter_per_epoch : float
    network, optimizer
        The network, and the optimizer that trains it.

    Raises
    ------
    UsageError
        There is no optimizer of this name, or a setting or the number of targets cannot be.

    Examples
    --------
    >>> class Mean:  # learns the mean of x
    ...     params = {"m": np.zeros(1)}
    ...     def gradient(self, x, t):
    ...         return {"m": (self.params["m"] - x).mean(axis=0)}
    ...     def loss(self, x, t):
    ...         return 0.5 * ((self.params["m"] - x) ** 2).mean()
    ...     accuracy = loss
    >>> x = np.full((20, 1), 3.0)
    >>> trainer = Trainer(Mean(), x, x, x, x, 2, 10, "SGD", {"lr": 1.0}, verbose=False)
    >>> trainer.train()
    >>> trainer.network.params["m"].tolist(), len(trainer.train_acc_list)
    ([3.0], 2)
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, Any] = MappingProxyType({"lr": 0.01}),
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.network, self.verbose = network, verbose
        self.x_train, self.t_train, self.x_test, self.t_test = x_train, t_train, x_test, t_test
        for part, x, t in (("train", x_train, t_train), ("test", x_test, t_test)):
            if x.shape[0] != t.shape[0]:
                raise UsageError(
                    f"x_{part} has {x.shape[0]:,} samples, t_{part} {t.shape[0]:,} targets; "
                    "expected a target for each sample"
                )
        whole("the number of samples in x_train", x_train.shape[0], 1)
        if evaluate_sample_num_per_epoch is not None:
            whole("evaluate_sample_num_per_epoch", evaluate_sample_num_per_epoch, 1)
        real("epochs", epochs, 0.0)
        self.epochs, self.batch_size = epochs, whole("mini_batch_size", mini_batch_size, 1)
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        if str(optimizer).lower() not in OPTIMIZERS:
            names = ", ".join(kind.__name__ for kind in OPTIMIZERS.values())
            raise UsageError(f"optimizer is {shown(optimizer)}; expected one of {names}")
        self.optimizer = OPTIMIZERS[optimizer.lower()](**optimizer_param)
        self.train_size: int = x_train.shape[0]
        self.iter_per_epoch: float = max(self.train_size / mini_batch_size, 1)
        self.max_iter = int(epochs * self.iter_per_epoch)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[Any] = []
        self.train_acc_list: list[Any] = []
        self.test_acc_list: list[Any] = []

    def train_step(self) -> None:
        """Draw a batch, update the network, and record the loss; maybe the accuracies too."""
        batch = np.random.choice(self.train_size, self.batch_size)
        x, t = rows(self.x_train, batch), rows(self.t_train, batch)
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = _number(self.network.loss(x, t))
        self.train_loss_list.append(loss)
        self._print(f"train loss:{loss!s}")
        # An epoch begins in the iteration in which its first sample is drawn.
        if self.current_iter >= int(self.current_epoch * self.iter_per_epoch):
            self.current_epoch += 1
            count = self.evaluate_sample_num_per_epoch
            train = _number(self.network.accuracy(self.x_train[:count], self.t_train[:count]))
            test = _number(self.network.accuracy(self.x_test[:count], self.t_test[:count]))
            self.train_acc_list.append(train)
            self.test_acc_list.append(test)
            scores = f"train acc:{train!s}, test acc:{test!s}"
            self._print(f"=== epoch:{self.current_epoch}, {scores} ===")
        self.current_iter += 1

    def train(self) -> None:
        """Train for all epochs; then compute, and print, the accuracy of all test samples."""
        for _ in range(self.max_iter):
            self.train_step()
        accuracy = _number(self.network.accuracy(self.x_test, self.t_test))
        self._print("=============== Final Test Accuracy ===============")
        self._print(f"test acc:{accuracy!s}")  # !s, as formatting lengthens NumPy's float32

    def _print(self, line: str) -> None:
        if self.verbose:
            print(line)


def _number(value: Any) -> Any:
    """Return a number of NumPy or Python as it is; of another library, as a float."""
    if isinstance(value, int | float | np.generic | np.ndarray):
        return value
    return float(value.detach() if getattr(value, "requires_grad", False) else value)
