"""The book's networks: formulas in plain NumPy, gradient checks, seeds, files."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Library

import xpnet
from xpnet.book import ch04, ch05
from xpnet.book.ch07 import SimpleConvNet
from xpnet.book.ch08 import DeepConvNet
from xpnet.book.layers import Affine
from xpnet.book.multi_layer_net import MultiLayerNet
from xpnet.book.multi_layer_net_extend import MultiLayerNetExtend
from xpnet.errors import DataError, UsageError

SMALL = {"filter_num": 4, "filter_size": 3, "pad": 0, "stride": 1}
DEEP = {f"conv_param_{i}": {**SMALL, "pad": 1} for i in range(1, 7)}

NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "chapter 4": (lambda: ch04.TwoLayerNet(6, 5, 3, 0.5), (6,)),
    "chapter 5": (lambda: ch05.TwoLayerNet(6, 5, 3, 0.5), (6,)),
    "many layers": (lambda: MultiLayerNet(6, [5, 4], 3, weight_decay_lambda=0.1), (6,)),
    "sigmoid": (lambda: MultiLayerNet(6, [5], 3, "sigmoid", "xavier"), (6,)),
    "all of it": (
        lambda: MultiLayerNetExtend(
            6, [5, 4], 3, weight_decay_lambda=0.1, use_dropout=True, dropout_ration=0.3,
            use_batchnorm=True,
        ),
        (6,),
    ),
    "chapter 7": (lambda: SimpleConvNet((1, 8, 8), SMALL, 5, 3, 0.2), (1, 8, 8)),
    "chapter 8": (lambda: DeepConvNet((1, 8, 8), **DEEP, hidden_size=5, output_size=3), (1, 8, 8)),
}  # fmt: skip


def make(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    build, shape = NETWORKS[name]
    np.random.seed(7)
    rng = np.random.default_rng(7)
    return build(), rng.standard_normal((5, *shape)), rng.integers(0, 3, 5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("one_hot", [False, True])
def test_gradient_check(name: str, one_hot: bool) -> None:
    network, x, labels = make(name)
    t = np.eye(3)[labels] if one_hot else labels
    before = {key: p.copy() for key, p in network.params.items()}
    np.random.seed(11)  # dropout draws the same masks both times
    analytic = network.gradient(x, t)
    np.random.seed(11)
    numerical = network.numerical_gradient(x, t)
    assert {*analytic} == {*numerical} == {*network.params}
    for key, p in network.params.items():
        np.testing.assert_array_equal(p, before[key])
        assert analytic[key].shape == p.shape
        difference = np.linalg.norm(analytic[key] - numerical[key])
        # The loss has log(y + 1e-7), the gradient is that of log y, as in the book.
        assert difference <= 3e-6 * (np.linalg.norm(numerical[key]) + 0.1), key


@pytest.mark.parametrize("name", NETWORKS)
def test_updates_in_place_lower_the_loss(name: str) -> None:
    network, x, t = make(name)

    def loss() -> float:
        np.random.seed(3)
        return float(network.loss(x, t))

    before = loss()
    arrays = {key: id(p) for key, p in network.params.items()}
    for _ in range(5):
        np.random.seed(3)
        grads = network.gradient(x, t)
        for key in network.params:
            network.params[key] -= 0.05 * grads[key]
    assert arrays == {key: id(p) for key, p in network.params.items()}
    if name != "all of it":  # its loss is by running statistics, which lag behind
        assert loss() < before


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_on_every_library(name: str, library: Library) -> None:
    """Arrays of another library take the place of NumPy's, and all results are of that library."""
    network, x, labels = make(name)
    np.random.seed(5)
    loss, grads = float(network.loss(x, labels)), network.gradient(x, labels)
    accuracy = network.accuracy(x, labels)
    xs = library.asarray(x.astype("float32"))
    for t in (labels, np.eye(3, dtype="float32")[labels]):
        ts = library.asarray(t)
        other, _, _ = make(name)
        for key, p in other.params.items():
            other.params[key] = library.asarray(p.astype("float32"))
        np.random.seed(5)
        assert float(other.loss(xs, ts)) == pytest.approx(loss, rel=2e-4)
        for key, gradient in other.gradient(xs, ts).items():
            np.testing.assert_allclose(library.to_numpy(gradient), grads[key], atol=2e-4)
        assert other.accuracy(xs, ts) == pytest.approx(accuracy)


def reference(
    params: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray, sigmoid: bool
) -> tuple[Any, ...]:
    """Loss, gradients and probabilities of two layers, in plain NumPy; t is one-hot."""
    a1 = x @ params["W1"] + params["b1"]
    z1 = 1 / (1 + np.exp(-a1)) if sigmoid else np.where(a1 > 0, a1, 0)
    a2 = z1 @ params["W2"] + params["b2"]
    y = np.exp(a2 - a2.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    dy = (y - t) / len(x)
    dz1 = dy @ params["W2"].T
    da1 = dz1 * z1 * (1 - z1) if sigmoid else dz1 * (a1 > 0)
    grads = {"W1": x.T @ da1, "b1": da1.sum(0), "W2": z1.T @ dy, "b2": dy.sum(0)}
    return -np.log((y * t).sum(axis=1) + 1e-7).mean(), grads, y, a2


@pytest.mark.parametrize("chapter", [ch04, ch05])
def test_two_layer_nets(chapter: Any) -> None:
    np.random.seed(1)
    network = chapter.TwoLayerNet(6, 5, 3, weight_init_std=0.5)
    np.random.seed(1)
    expected = {"W1": 0.5 * np.random.randn(6, 5), "W2": 0.5 * np.random.randn(5, 3)}
    for key, W in expected.items():
        np.testing.assert_array_equal(network.params[key], W)
    assert [*network.params] == ["W1", "b1", "W2", "b2"]
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((7, 6)), np.eye(3)[rng.integers(0, 3, 7)]
    loss, grads, y, scores = reference(network.params, x, t, chapter is ch04)
    assert network.loss(x, t) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(network.predict(x), y if chapter is ch04 else scores, rtol=1e-12)
    assert network.accuracy(x, t) == pytest.approx((y.argmax(1) == t.argmax(1)).mean())
    for key, gradient in network.gradient(x, t).items():
        np.testing.assert_allclose(gradient, grads[key], rtol=1e-11, atol=1e-14)
    if chapter is ch05:
        assert [*network.layers] == ["Affine1", "Relu1", "Affine2"]
        assert network.lastLayer is network.last_layer


def test_the_book_network_is_the_one_of_xpnet() -> None:
    """The same parameters in `xpnet.mlp`: the same scores, and gradients, to the last digits."""
    network, x, t = make("many layers")
    ours = xpnet.mlp([6, 5, 4, 3], "relu", params=network.params)
    loss, grads = ours.gradient(network.params, x, t)
    np.testing.assert_allclose(network.predict(x), ours.predict(network.params, x), rtol=1e-12)
    network.weight_decay_lambda = 0
    assert float(network.loss(x, t)) == pytest.approx(float(loss), abs=1e-5)  # 1e-7 within log
    for key, gradient in network.gradient(x, t).items():
        np.testing.assert_allclose(gradient, grads[key], rtol=1e-11, atol=1e-14)


def test_weight_decay_is_of_weights_alone() -> None:
    network, x, t = make("many layers")
    plain, _, _ = make("many layers")
    plain.weight_decay_lambda = 0
    weights = [network.params[key] for key in ("W1", "W2", "W3")]
    penalty = sum(0.05 * (W**2).sum() for W in weights)
    assert network.loss(x, t) - plain.loss(x, t) == pytest.approx(penalty)
    with_decay, without = network.gradient(x, t), plain.gradient(x, t)
    for key, p in network.params.items():
        decay = 0.1 * p if key.startswith("W") else 0 * p
        np.testing.assert_allclose(with_decay[key] - without[key], decay, atol=1e-15)


@pytest.mark.parametrize(
    ("word", "std"),
    [("relu", np.sqrt(2 / 400)), ("He", np.sqrt(2 / 400)), ("sigmoid", 0.05), ("Xavier", 0.05)],
)
def test_words_for_initial_weights(word: str, std: float) -> None:
    np.random.seed(0)
    network = MultiLayerNet(400, [300], 10, weight_init_std=word)
    assert network.params["W1"].std() == pytest.approx(std, rel=0.01)
    np.random.seed(0)
    other = MultiLayerNet(400, [300], 10, weight_init_std=std)
    np.testing.assert_allclose(other.params["W1"], network.params["W1"], rtol=1e-12)


def test_layers_of_the_extended_network_in_their_order() -> None:
    network = MultiLayerNetExtend(6, [5, 4], 3, use_dropout=True, use_batchnorm=True)
    assert [*network.layers] == [
        "Affine1", "BatchNorm1", "Activation_function1", "Dropout1",
        "Affine2", "BatchNorm2", "Activation_function2", "Dropout2", "Affine3",
    ]  # fmt: skip
    both = {f"{p}{i}" for p in ("W", "b", "gamma", "beta") for i in (1, 2)}
    assert {*network.params} == both | {"W3", "b3"}


def test_prediction_is_without_dropout_and_training_with() -> None:
    network, x, t = make("all of it")
    np.testing.assert_array_equal(network.predict(x), network.predict(x))
    assert (network.predict(x, train_flg=True) != network.predict(x, train_flg=True)).any()
    deep, x, t = make("chapter 8")
    np.testing.assert_array_equal(deep.predict(x), deep.predict(x))
    assert len({float(deep.loss(x, t)) for _ in range(5)}) > 1


def test_the_last_samples_count_in_an_accuracy() -> None:
    network, x, _ = make("chapter 7")
    t = network.predict(x).argmax(1)
    assert network.accuracy(x, t, batch_size=2) == 1.0
    t[-1] = (t[-1] + 1) % 3
    assert network.accuracy(x, t, batch_size=2) == pytest.approx(0.8)


def test_sizes_of_the_convolution_networks() -> None:
    """Those of the book's defaults, and of images that the book's own cannot take."""
    simple, deep = SimpleConvNet(), DeepConvNet()
    shapes = {key: p.shape for key, p in simple.params.items()}
    assert (shapes["W1"], shapes["W2"], shapes["W3"]) == ((30, 1, 5, 5), (4320, 100), (100, 10))
    assert [p.shape for key, p in deep.params.items() if key[0] == "W"] == [
        (16, 1, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3),
        (64, 64, 3, 3), (1024, 50), (50, 10),
    ]  # fmt: skip
    for i, layer in enumerate(deep.layers):
        assert hasattr(layer, "W") == (i in (0, 2, 5, 7, 10, 12, 15, 18))
    odd = SimpleConvNet((3, 9, 12), {**SMALL, "pad": 1, "stride": 2}, 5, 3)
    assert odd.predict(np.ones((2, 3, 9, 12))).shape == (2, 3)


@pytest.mark.parametrize("name", ["chapter 5", "chapter 7", "chapter 8"])
def test_parameters_pass_through_a_file(name: str, in_tmp: Path) -> None:
    network, x, _ = make(name)
    network.save_params()
    with open("params.pkl", "rb") as file:
        plain = pickle.load(file)
    assert {*plain} == {*network.params}
    np.random.seed(99)
    other = NETWORKS[name][0]()
    assert (other.predict(x) != network.predict(x)).any()
    other.load_params()
    np.testing.assert_array_equal(other.predict(x), network.predict(x))
    assert [*Path().iterdir()] == [Path("params.pkl")]


def test_a_file_of_parameters_runs_no_program(in_tmp: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (io.open, ("caught", "w"))

    network, _, _ = make("chapter 7")
    for content, words in (
        (pickle.dumps({"W1": Evil()}), "expected arrays alone"),
        (pickle.dumps([np.ones(2)]), "holds list; expected a dict of arrays"),
        (pickle.dumps({"W1": 3}), "expected a dict of arrays"),
        (pickle.dumps({"W1": np.ones(2)}), "another network?"),
        (b"PK\x03\x04", "is no file of parameters"),
        (b"", "is no file of parameters"),
    ):
        Path("params.pkl").write_bytes(content)
        before = {key: p.copy() for key, p in network.params.items()}
        with pytest.raises(DataError, match=re.escape(words)) as caught:
            network.load_params()
        assert "\n" not in str(caught.value)
        assert not Path("caught").exists()
        for key, p in before.items():
            np.testing.assert_array_equal(network.params[key], p)


def test_what_cannot_be_built_is_one_line() -> None:
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: ch05.TwoLayerNet(0, 5, 3), "input_size is 0; expected a whole number"),
        (lambda: MultiLayerNet(4, [5], 3, activation="tanh"), "activation is 'tanh'; expected"),
        (lambda: MultiLayerNet(4, [5], 3, weight_init_std="best"), "weight_init_std is 'best'; ex"),
        (lambda: MultiLayerNet(4, [5, 0], 3), "size of layer 2 is 0; expected"),
        (lambda: SimpleConvNet((1, 4, 4)), "conv_param: windows of 5 do not fit images of (4, 4)"),
        (lambda: SimpleConvNet((1, 5, 5)), "Pool1: windows of 2 do not fit images of (1, 1)"),
        (lambda: SimpleConvNet(conv_param={"filter_num": 3}), "expected filter_size, pad, stride"),
        (lambda: DeepConvNet((1, 2, 2)), "the pool after conv_param_6: windows of 2"),
    ]
    for call, words in cases:
        with pytest.raises(UsageError, match=re.escape(words)) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_targets_that_do_not_fit_are_one_line() -> None:
    network, x, _ = make("chapter 5")
    for call in (network.loss, network.accuracy):
        for t in (np.zeros((5, 2)), np.zeros(1, int)):
            with pytest.raises(
                ValueError, match=r"expected (labels, \(5,\), or one-hot rows, \(5, 3\)|as many)"
            ):
                call(x, t)


# -- What a reader changes ---------------------------------------------------------------


def test_another_layer_in_place_of_one_is_the_one_that_gives_the_gradient() -> None:
    network, x, t = make("chapter 5")
    network.gradient(x, t)
    network.layers["Affine1"] = Affine(network.params["W1"], network.params["b1"])
    network.params["W1"] *= 2
    analytic, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    np.testing.assert_allclose(analytic["W1"], numerical["W1"], rtol=1e-4, atol=1e-6)


def test_a_layer_of_ones_own_under_the_name_of_dropout_hears_of_the_mode() -> None:
    class Halved:
        def forward(self, x: np.ndarray, train_flg: bool = True) -> np.ndarray:
            self.factor = 0.5 if train_flg else 1.0
            return self.factor * x

        def backward(self, dout: np.ndarray) -> np.ndarray:
            return self.factor * dout

    network = MultiLayerNetExtend(6, [5], 3, weight_init_std=0.5, use_dropout=True)
    _, x, t = make("chapter 5")
    network.layers["Dropout1"] = Halved()
    network.layers = {"Dropout0": Halved(), **network.layers}  # the first one too
    W1, W2 = network.params["W1"], network.params["W2"]
    np.testing.assert_allclose(network.predict(x), np.maximum(x @ W1, 0) @ W2, rtol=1e-12)
    analytic, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    for key, g in analytic.items():
        np.testing.assert_allclose(g, numerical[key], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["chapter 4", "chapter 5", "many layers", "chapter 7"])
def test_the_loss_and_the_gradient_see_what_a_subclass_predicts(name: str) -> None:
    network, x, t = make(name)
    plain = float(network.loss(3.0 * x, t))

    class Scaled(type(network)):  # type: ignore[misc]
        def predict(self, x: np.ndarray) -> np.ndarray:  # as the book's: without train_flg
            return super().predict(3.0 * x)

        def loss(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
            return super().loss(x, t)

    network.__class__ = Scaled
    assert float(network.loss(x, t)) == pytest.approx(plain, rel=1e-12)
    numerical = network.numerical_gradient(x, t)
    if name != "chapter 4":  # its gradient is of the plain network, as in the book
        for key, g in network.gradient(x, t).items():
            np.testing.assert_allclose(g, numerical[key], rtol=1e-3, atol=1e-4)


def test_a_last_layer_of_ones_own() -> None:
    class Squares:
        def forward(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
            self.difference = y - t
            return 0.5 * (self.difference**2).sum()

        def backward(self, dout: float) -> np.ndarray:
            return dout * self.difference

    network, x, labels = make("chapter 5")
    network.lastLayer = Squares()
    analytic = network.gradient(x, np.eye(3)[labels])
    numerical = network.numerical_gradient(x, np.eye(3)[labels])
    np.testing.assert_allclose(analytic["W1"], numerical["W1"], rtol=1e-4, atol=1e-6)


def test_the_layers_own_gradient_is_without_the_decay() -> None:
    network, x, t = make("many layers")
    grads = network.gradient(x, t)
    decay = network.weight_decay_lambda * network.params["W1"]
    np.testing.assert_allclose(network.layers["Affine1"].dW, grads["W1"] - decay, atol=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [4, 6, 10])
def test_accuracy_refuses_another_number_of_targets(name: str, count: int) -> None:
    network, x, _ = make(name)
    with pytest.raises(ValueError, match=f"5 samples, {count} targets; expected as many"):
        network.accuracy(x, np.zeros(count, int))


@pytest.mark.parametrize("size", [0, -1, 2.5, "3"])
def test_accuracy_refuses_a_batch_size_that_is_none(size: Any) -> None:
    network, x, t = make("chapter 7")
    with pytest.raises(UsageError, match=r"batch_size is .*; expected a whole number, 1 or"):
        network.accuracy(x, t, size)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"input_dim": 784}, "input_dim is 784; expected three sizes"),
        ({"input_dim": (28, 28)}, "expected three sizes"),
        ({"input_dim": (1, 8.5, 8)}, "a size in input_dim is 8.5; expected a whole number"),
        ({"conv_param": {**SMALL, "stride": 0}}, "stride of conv_param is 0; expected a whole"),
        ({"conv_param": {**SMALL, "filter_num": -1}}, "filter_num of conv_param is -1"),
        ({"conv_param": {**SMALL, "filter_size": 2.5}}, "filter_size of conv_param is 2.5"),
        ({"conv_param": {**SMALL, "padding": 1}}, "conv_param has padding; expected filter_num"),
        ({"weight_init_std": "he"}, "weight_init_std is 'he'; expected a finite number"),
    ],
)
def test_settings_of_a_convolution_network_that_are_none(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        SimpleConvNet(**settings)


def test_settings_of_a_network_that_are_none() -> None:
    with pytest.raises(UsageError, match="hidden_size_list is 5; expected a list of sizes"):
        MultiLayerNet(4, 5, 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weight_decay_lambda is 'a'; expected a finite number"):
        MultiLayerNet(4, [5], 3, weight_decay_lambda="a")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="dropout_ratio is 50; expected a finite number"):
        MultiLayerNetExtend(4, [5], 3, use_dropout=True, dropout_ration=50)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_files_of_every_protocol_and_numpy(tmp_path: Path, protocol: int, core: bytes) -> None:
    network, _, _ = make("chapter 5")
    data = pickle.dumps({k: np.asfortranarray(p) for k, p in network.params.items()}, protocol)
    if protocol < 4:  # the others count the characters of a name
        data = data.replace(b"numpy._core", core)
    (tmp_path / "params.pkl").write_bytes(data)
    other = ch05.TwoLayerNet(6, 5, 3)
    other.load_params(tmp_path / "params.pkl")
    for key, p in network.params.items():
        np.testing.assert_array_equal(other.params[key], p)
    other.params["W1"] -= 1.0  # not read-only


def test_another_codec_in_a_file_is_refused(tmp_path: Path) -> None:
    network, _, _ = make("chapter 5")
    data = pickle.dumps(network.params, 2)
    (tmp_path / "params.pkl").write_bytes(data.replace(b"latin1", b"rot_13"))
    with pytest.raises(DataError, match="it names the codec rot_13; expected arrays alone"):
        network.load_params(tmp_path / "params.pkl")


@pytest.mark.parametrize("dtype", ["complex128", "U8", "O"])
def test_a_file_of_other_than_real_numbers_is_refused(tmp_path: Path, dtype: str) -> None:
    network, _, _ = make("chapter 5")
    before = network.params["W1"].copy()
    bad = {**network.params, "b1": network.params["b1"].astype(dtype)}
    (tmp_path / "params.pkl").write_bytes(pickle.dumps(bad))
    with pytest.raises(DataError, match=r"holds b1 of dtype .*; expected real numbers"):
        network.load_params(tmp_path / "params.pkl")
    np.testing.assert_array_equal(network.params["W1"], before)


def test_tensors_that_require_grad_are_saved(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network, _, _ = make("chapter 5")
    W1 = network.params["W1"]
    network.params["W1"] = torch.tensor(W1, requires_grad=True)
    network.save_params(tmp_path / "params.pkl")
    np.testing.assert_array_equal(pickle.loads((tmp_path / "params.pkl").read_bytes())["W1"], W1)


def test_an_array_replaced_in_a_layer_or_in_params_counts() -> None:
    network, x, _ = make("chapter 5")
    affine, zeros = network.layers["Affine1"], np.zeros((6, 5))
    affine.W = zeros
    np.testing.assert_array_equal(network.predict(x), network.predict(0 * x))
    assert network.params["W1"] is zeros
    network.params["W1"] = ones = np.ones((6, 5))
    assert (network.predict(x) != network.predict(0 * x)).any()
    assert affine.W is ones
