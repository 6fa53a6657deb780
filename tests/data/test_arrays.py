"""Arrays of every kind: taken as the numbers that they are, or refused in one line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Graph, Trainer, functions, mlp, optim
from xpnet.data import Scaling, standardize
from xpnet.data.checks import host
from xpnet.errors import DataError, UsageError
from xpnet.models import Network

# NumPy warns of its own matrix, which scipy.sparse still makes.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass")
X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
T = (X.sum(axis=1) > 0).astype(np.int32)


class Metres(np.ndarray):
    """A unit, say: it multiplies by a rule of its own."""

    def __array_ufunc__(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


class Labelled(np.ndarray):
    """A subclass that computes as its base does."""


def matrix(x: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asmatrix(x)


def masked(x: np.ndarray, row: int) -> np.ma.MaskedArray[Any, Any]:
    mask = np.zeros(x.shape, bool)
    mask[row] = True
    return np.ma.masked_array(x, mask)


def weights(x: Any, t: Any, **options: Any) -> np.ndarray:
    trainer = Trainer(mlp([3, 4, 2]), optim.SGD(0.5), **options)
    trainer.fit(x, t, epochs=2, batch_size=20)
    return trainer.model.to_host()["W1"]


@pytest.mark.parametrize(
    ("x", "t"),
    [
        (X.tolist(), T.tolist()),
        (matrix(X), T),
        (np.ma.masked_array(X), np.ma.masked_array(T)),
        (X.view(Labelled), T.view(Labelled)),
        (list(np.ma.masked_array(X)), tuple(T)),
        (np.asfortranarray(X), T[::-1][::-1]),
    ],
)
def test_what_holds_plain_numbers_trains_as_they_do(x: Any, t: Any) -> None:
    np.testing.assert_array_equal(weights(x, t), weights(X, T))
    assert type(host(x)) is np.ndarray


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda a: masked(a, 3), "got masked values, expected numbers"),
        (lambda a: list(masked(a, 3)), "got masked values"),
        (lambda a: [list(row) for row in masked(X, 3)], "got masked values"),
        (lambda a: a.view(Metres), "got Metres, an array with rules of its own"),
        (lambda a: a + 1j, "complex64, expected real numbers|complex128, expected real"),
        (lambda a: a.astype(object), "expected real numbers"),
        (lambda a: {"a": a}, "got dict, expected an array"),
        (lambda a: None, "expected an array"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda bad: Trainer(mlp([3, 2])).fit(bad(X), T, epochs=1),
        lambda bad: Trainer(mlp([3, 2])).fit(X, bad(T), epochs=1),
        lambda bad: Trainer(mlp([3, 2])).fit(X, T, epochs=1, validation=(bad(X), T)),
        lambda bad: Trainer(mlp([3, 2])).evaluate(X, bad(T)),
        lambda bad: xpnet.Model(mlp([3, 2])).predict(bad(X)),
        lambda bad: standardize(bad(X)),
    ],
)
def test_what_does_not_is_refused(
    use: Callable[[Any], Any], bad: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        use(bad)
    assert "\n" not in str(caught.value)


def test_text_is_refused_where_numbers_belong() -> None:
    for bad in (X.astype(str), X.astype(str).astype(object)):
        with pytest.raises(DataError, match="expected real numbers"):
            Trainer(mlp([3, 2])).fit(bad, T, epochs=1)
    with pytest.raises(DataError, match="t: got text, but the model has no names of classes"):
        Trainer(mlp([3, 2])).evaluate(X, T.astype(str))


def test_weights_and_parameters_are_held_to_the_same() -> None:
    for weight in (masked(np.ones(60), 3), np.ones(60).view(Metres), np.ones(60) + 0j):
        with pytest.raises(DataError, match="sample_weight: got"):
            Trainer(mlp([3, 2])).fit(X, T, epochs=1, sample_weight=weight)
    for W in (masked(np.ones((3, 2)), 1), np.ones((3, 2)) + 0j, np.ones((3, 2), int)):
        graph = Graph()
        x, t, node = graph.inputs("x t W")
        scores = x @ node
        loss = functions.softmax_with_loss(scores, t)
        with pytest.raises((DataError, UsageError), match=r"W(:| has dtype)"):
            Trainer(Network(graph, {"W": W}, scores, loss, outputs=2))


def test_a_graph_takes_no_array_that_computes_its_own_way() -> None:
    graph = Graph()
    a, b = graph.inputs("a b")
    for bad in (matrix(np.eye(2)), masked(np.eye(2), 0), np.eye(2).view(Metres)):
        for values in ({"a": bad, "b": np.eye(2)}, {"a": np.eye(2), "b": bad}):
            with pytest.raises(
                ValueError, match=r"input '[ab]' is a \w+, an array with rules of its own"
            ):
                graph.forward(values, a * b)


TENSORS = {
    "bfloat16": lambda x: x.bfloat16(),
    "requires_grad": lambda x: x.clone().requires_grad_(),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_numpy_cannot_take(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = TENSORS[name](torch.from_numpy(X))
    with pytest.raises(DataError, match=re.escape("x: NumPy cannot take this Tensor: ")) as caught:
        Trainer(mlp([3, 2])).fit(x, T, epochs=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_you_change_during_a_training_does_not_change_it(dtype: str, backend: Any) -> None:
    x = (X * 50).astype(dtype)
    scale = np.full(3, 0.02, np.float32)
    scaling = None if dtype == "float32" else Scaling(np.zeros(3), scale)

    def trained(spoil: bool) -> tuple[Any, ...]:
        x_, t_, weight, scale[:] = x.copy(), T.copy(), np.ones(60, np.float32), 0.02
        held = (x[:20].copy(), T[:20].copy())

        def callback(trainer: Trainer, epoch: Any) -> None:
            if spoil:
                for array in (x_, t_, weight, *held, scale):
                    array[...] = 1

        trainer = Trainer(mlp([3, 4, 2]), optim.SGD(0.5), backend=backend, scaling=scaling)
        history = trainer.fit(
            x_, t_, epochs=3, batch_size=20, sample_weight=weight, validation=held,
            callbacks=callback,
        )  # fmt: skip
        scores = trainer.scores(x)
        return (history.column("train_score"), history.column("val_loss"), scores.tolist())

    assert trained(spoil=True) == trained(spoil=False)
