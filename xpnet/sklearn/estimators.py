"""MLPClassifier and MLPRegressor: scikit-learn's interface and results, on any array library."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)

from xpnet import losses
from xpnet.arrays.ops import Array, namespace
from xpnet.data.preparation import class_weights
from xpnet.errors import shown
from xpnet.sklearn.arrays import dtype_name, to_host
from xpnet.sklearn.losses import AveragedSquares, BinaryLogLoss, LogLoss
from xpnet.sklearn.perceptron import ACTIVATIONS, Perceptron

__all__ = ["MLPClassifier", "MLPRegressor"]

# The parameters that both have beside scikit-learn's.
_OURS: dict[str, list[Any]] = {
    "activation": [StrOptions(set(ACTIVATIONS)), "array-like"],
    "solver": [StrOptions({"lbfgs", "sgd", "adam"}), HasMethods("rule")],
    "verbose": ["verbose", StrOptions({"bar"})],
    "device": [str, None],
    "backend": [StrOptions({"numpy", "cupy", "torch", "jax", "strict"}), None],
    "dtype": [StrOptions({"float32", "float64"}), None],
    "precision": [str],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "callbacks": [callable, "array-like", None],
}


class MLPClassifier(ClassifierMixin, Perceptron):
    r"""A multi-layer perceptron for classes, with scikit-learn's interface and numbers.

    All that `sklearn.neural_network.MLPClassifier` has means the same here, and the same
    `random_state` gives the same loss curve. X decides where: its library and its device compute,
    and all results come back there.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; () is a linear model.
    activation : str, or sequence of str
        identity, logistic, tanh, relu or leaky_relu, for all hidden layers; or a list with one
        name per hidden layer.
    solver : {"adam", "sgd", "lbfgs"} or optimizer
        An optimizer such as ``xpnet.optim.AdamW(1e-3)`` has its own rate, which may be a schedule.
        lbfgs runs on the host and asks the device for loss and gradient of all samples.
    alpha : float
        Strength α of the L2 term ½ α ΣW², which is divided by the weight of the samples of a
        batch, and part of the reported loss.
    batch_size : int or "auto"
        Samples per step; "auto" is min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}
        For solver="sgd". invscaling: learning_rate_init / (k + 1)^power_t after k samples.
        adaptive: a fifth of the rate each time that nothing improves.
    learning_rate_init : float
    power_t : float
    max_iter : int
        The most epochs, or iterations of lbfgs.
    shuffle : bool
        Shuffle the samples before each epoch.
    random_state : int, RandomState or None
        The same one gives scikit-learn's own weights, batches and held out samples.
    tol : float
        An epoch that improves the loss (with early stopping: the score) by less than `tol` counts
        as one without improvement; for lbfgs, the largest gradient at the end.
    verbose : bool, int or "bar"
        True prints a line per epoch, "bar" shows a progress bar on stderr.
    warm_start : bool
        `fit` continues from the parameters of the last call.
    momentum, nesterovs_momentum : float, bool
        For solver="sgd".
    early_stopping : bool
        Hold out a part of the data, or take `validation_data`, and keep the parameters of the
        epoch with the best score.
    validation_fraction : float
        The part of the data that is held out.
    beta_1, beta_2, epsilon : float
        For solver="adam".
    n_iter_no_change : int
        The most epochs without improvement.
    max_fun : int
        The most evaluations of the loss by lbfgs.
    device : str, optional
        cpu, cuda, cuda:N or auto. By default, xpnet computes where X lies.
    backend : str, optional
        numpy, cupy, torch, jax or strict. By default X's library, or that of `device`.
    dtype : {"float32", "float64"}, optional
        By default X's dtype; numbers of other types become float64.
    precision : str
        Of the matrix products of a step, see `xpnet.select`.
    dropout : float
        Ratio of the dropout after each hidden layer.
    class_weight : "balanced" or dict, optional
        How much the samples of a class count, see `xpnet.data.class_weights`. In `partial_fit`,
        "balanced" counts the samples of that call.
    callbacks : callable or sequence of callable, optional
        ``callback(estimator, epoch)`` after each epoch, with its `xpnet.trainer.Epoch`. Return
        True to end the training.

    Attributes
    ----------
    coefs_, intercepts_ : list of array
        Weights, shape=(fan_in, fan_out), and biases of each layer, in X's library.
    loss_, best_loss_ : float
        Loss of the last epoch, and the smallest one; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch: the mean over its samples, before the update of their step.
    validation_scores_, best_validation_score_ : list of float, float
        Accuracy of the held out samples after each epoch; None without any.
    n_iter_, t_ : int
        Epochs, and samples that were trained on.
    n_features_in_, n_outputs_, n_layers_, out_activation_, feature_names_in_
        As scikit-learn's.
    classes_ : NumPy array
        The labels, in the order of the columns of `predict_proba`.
    model_ : xpnet.Model
        The fitted network, which predicts and saves without scikit-learn.

    Notes
    -----
    The loss is the cross-entropy of a softmax, for two classes and for several labels a sample of
    a sigmoid. Each step minimizes

    $$\frac{1}{S} \Bigl(\sum_i w_i l_i + \frac{\alpha}{2} \sum W^2\Bigr), \quad S = \sum_i w_i$$

    over its batch. Source: scikit-learn's user guide, "Neural network models (supervised)".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier(solver="lbfgs", random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TheirClassifier._parameter_constraints,
        **_OURS,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        device: str | None = None,
        backend: str | None = None,
        dtype: str | None = None,
        precision: str = "float32",
        dropout: float = 0.0,
        class_weight: Any = None,
        callbacks: Any = None,
    ) -> None:
        _store(self, locals())

    def _out_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _loss_gate(self) -> Any:
        return LogLoss() if self.out_activation_ == "softmax" else BinaryLogLoss()

    def _checked_validation(self, pair: Any, origin: Any, dtype: str) -> tuple[Any, Any]:
        X, y = super()._checked_validation(pair, origin, dtype)
        if len(unseen := np.setdiff1d(unique_labels(y), self.classes_)):
            raise ValueError(
                f"validation_data: y has classes that the training data lacks: {shown(unseen)}"
            )
        return X, y

    def _plain_loss(self) -> str:
        return "softmax" if self.out_activation_ == "softmax" else "sigmoid"

    def _class_names(self) -> list[str] | None:
        names = [str(name) for name in self.classes_.tolist()]
        return names if len(names) == max(self.n_outputs_, 2) else None

    def _weights(
        self, sample_weight: Any, X: Any, y: Any, targets: np.ndarray
    ) -> np.ndarray | None:
        weights = super()._weights(sample_weight, X, y, targets)
        if self.class_weight is None:
            return weights
        several = self._label_binarizer.y_type_.startswith("multilabel")
        if several and self.class_weight != "balanced":
            raise ValueError(
                "class_weight: got a weight for each class, but a sample of y has several labels; "
                "expected 'balanced' or None"
            )
        factors = [
            class_weights(labels, self.class_weight, weights)
            for labels in (targets.T if several else [y])
        ]
        per_class = np.prod(factors, axis=0).astype(dtype_name(X))
        return per_class if weights is None else weights * per_class

    def _targets(self, y: Any, incremental: bool) -> np.ndarray:
        """Return one column per output, 0 or 1, after scikit-learn's checks of the classes."""
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            classes = unique_labels(y)
            if self.warm_start:
                if set(classes) != set(self.classes_):
                    raise ValueError(
                        "warm_start can only be used where `y` has the same classes as in the "
                        f"previous call to fit. Previously got {self.classes_}, `y` has {classes}"
                    )
            elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    "`y` has classes not in `self.classes_`. `self.classes_` has "
                    f"{self.classes_}. 'y' has {classes}."
                )
        return self._label_binarizer.transform(y).astype(bool)

    def _network_targets(self, targets: np.ndarray, dtype: str) -> np.ndarray:
        """Return class indices, or a number per output."""
        if self.out_activation_ == "softmax":
            return targets.argmax(axis=1).astype(np.int32)
        return targets.astype(dtype)

    def _labels_of(self, outputs: np.ndarray) -> Any:
        """Return the labels for scores, or for targets of 0 and 1 shifted below and above 0."""
        outputs = outputs - 0.5 if outputs.dtype == bool else outputs
        if self.n_outputs_ == 1:
            outputs = outputs.reshape(-1)
        return self._label_binarizer.inverse_transform(outputs, threshold=0.0)

    def _score_of(self, scores: np.ndarray, y: Any, weight: Any) -> float:
        return float(accuracy_score(y, self._labels_of(scores), sample_weight=weight))

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Run one epoch over X and y, and keep the solver's state for the next call.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array, shape=(n_classes,), optional
            All classes that will come; the first call needs it.
        """
        if _check_partial_fit_first_call(self, classes):
            y = to_host(y)
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return the class of each sample, in X's library where labels are numbers.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape=(n_samples, n_features)

        Returns
        -------
        array, shape=(n_samples,) or, for several labels a sample, (n_samples, n_classes)
        """
        scores, backend = self._scores(X, "predict")
        origin = self._origin
        if origin.library == "numpy" or self.classes_.dtype.kind not in "biuf":
            return self._labels_of(backend.to_numpy(scores))
        xp = namespace(scores)
        if self._label_binarizer.y_type_.startswith("multilabel"):
            return origin.give_back(xp.astype(scores > 0, xp.int32), backend)
        if self.n_outputs_ == 1:
            places = xp.astype(scores[:, 0] > 0, xp.int32)
            places = xp.minimum(places, len(self.classes_) - 1)
        else:
            places = xp.argmax(scores, axis=-1)
        classes = backend.asarray(self.classes_)
        return origin.give_back(xp.take(classes, places, axis=0), backend)

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes, shape=(n_samples, n_classes), in X's library."""
        return self._proba(X, "predict_proba")

    def _proba(self, X: Any, method: str) -> Any:
        scores, backend = self._scores(X, method)
        return self._origin.give_back(self._form.loss.probabilities(scores), backend)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of `predict_proba`."""
        proba = self._proba(X, "predict_log_proba")
        return namespace(proba).log(proba)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of `predict` on X and y."""
        found = to_host(self.predict(X))
        return float(accuracy_score(to_host(y), found, sample_weight=to_host(sample_weight)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, Perceptron):
    r"""A multi-layer perceptron for real numbers, with scikit-learn's interface and numbers.

    All that `sklearn.neural_network.MLPRegressor` has means the same here, and the same
    `random_state` gives the same loss curve. X decides where: its library and its device compute,
    and all results come back there.

    Parameters
    ----------
    loss : str or gate
        squared_error, absolute_error, huber, poisson or quantile; or a gate, such as
        ``xpnet.losses.HuberLoss(2.0)`` or one of your own. For poisson, the network predicts the
        logarithm of a rate, and y must be 0 or more.
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; () is a linear model.
    activation : str, or sequence of str
        identity, logistic, tanh, relu or leaky_relu, for all hidden layers; or a list with one
        name per hidden layer.
    solver : {"adam", "sgd", "lbfgs"} or optimizer
        An optimizer such as ``xpnet.optim.AdamW(1e-3)`` has its own rate, which may be a schedule.
        lbfgs runs on the host and asks the device for loss and gradient of all samples.
    alpha : float
        Strength α of the L2 term ½ α ΣW², which is divided by the weight of the samples of a
        batch, and part of the reported loss.
    batch_size : int or "auto"
        Samples per step; "auto" is min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}
        For solver="sgd". invscaling: learning_rate_init / (k + 1)^power_t after k samples.
        adaptive: a fifth of the rate each time that nothing improves.
    learning_rate_init : float
    power_t : float
    max_iter : int
        The most epochs, or iterations of lbfgs.
    shuffle : bool
        Shuffle the samples before each epoch.
    random_state : int, RandomState or None
        The same one gives scikit-learn's own weights, batches and held out samples.
    tol : float
        An epoch that improves the loss (with early stopping: the score) by less than `tol` counts
        as one without improvement; for lbfgs, the largest gradient at the end.
    verbose : bool, int or "bar"
        True prints a line per epoch, "bar" shows a progress bar on stderr.
    warm_start : bool
        `fit` continues from the parameters of the last call.
    momentum, nesterovs_momentum : float, bool
        For solver="sgd".
    early_stopping : bool
        Hold out a part of the data, or take `validation_data`, and keep the parameters of the
        epoch with the best score.
    validation_fraction : float
        The part of the data that is held out.
    beta_1, beta_2, epsilon : float
        For solver="adam".
    n_iter_no_change : int
        The most epochs without improvement.
    max_fun : int
        The most evaluations of the loss by lbfgs.
    device : str, optional
        cpu, cuda, cuda:N or auto. By default, xpnet computes where X lies.
    backend : str, optional
        numpy, cupy, torch, jax or strict. By default X's library, or that of `device`.
    dtype : {"float32", "float64"}, optional
        By default X's dtype; numbers of other types become float64.
    precision : str
        Of the matrix products of a step, see `xpnet.select`.
    dropout : float
        Ratio of the dropout after each hidden layer.
    quantile : float
        For loss="quantile": the share of targets that lie below the prediction.
    callbacks : callable or sequence of callable, optional
        ``callback(estimator, epoch)`` after each epoch, with its `xpnet.trainer.Epoch`. Return
        True to end the training.

    Attributes
    ----------
    coefs_, intercepts_ : list of array
        Weights, shape=(fan_in, fan_out), and biases of each layer, in X's library.
    loss_, best_loss_ : float
        Loss of the last epoch, and the smallest one; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch: the mean over its samples, before the update of their step.
    validation_scores_, best_validation_score_ : list of float, float
        R² of the held out samples after each epoch; None without any.
    n_iter_, t_ : int
        Epochs, and samples that were trained on.
    n_features_in_, n_outputs_, n_layers_, out_activation_, feature_names_in_
        As scikit-learn's.
    model_ : xpnet.Model
        The fitted network, which predicts and saves without scikit-learn.

    Notes
    -----
    squared_error is $\frac12 (y - t)^2$, averaged over the outputs in the reported loss,
    while its gradient is that of the sum over the outputs, as scikit-learn's. `xpnet.losses`
    has the formulas of the others. For the L2 term see `MLPClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> est = MLPRegressor("quantile", (), solver="lbfgs", quantile=0.9, max_iter=5000, tol=1e-3)
    >>> round(float((y < est.fit(X, y).predict(X)).mean()), 1)
    0.9
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TheirRegressor._parameter_constraints,
        **_OURS,
        "loss": [
            StrOptions({"squared_error", "absolute_error", "huber", "poisson", "quantile"}),
            HasMethods("forward"),
        ],
        "quantile": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        device: str | None = None,
        backend: str | None = None,
        dtype: str | None = None,
        precision: str = "float32",
        dropout: float = 0.0,
        quantile: float = 0.5,
        callbacks: Any = None,
    ) -> None:
        _store(self, locals())

    def _check_settings(self, validation_data: Any) -> None:
        super()._check_settings(validation_data)
        if isinstance(self.loss, type):
            raise ValueError(f"loss is the class {self.loss.__name__}; expected a gate")
        if getattr(self._loss_gate(), "targets", "real") != "real":
            raise ValueError(f"loss is {shown(self.loss)}, for classes; expected one for numbers")

    def _out_activation(self) -> str:
        return "exp" if isinstance(self._loss_gate(), losses.PoissonLoss) else "identity"

    def _loss_gate(self) -> Any:
        if not isinstance(self.loss, str):
            return self.loss
        if self.loss == "squared_error":
            return AveragedSquares()
        if self.loss == "quantile":
            return losses.QuantileLoss(self.quantile)
        names = {"absolute_error": "absolute", "huber": "huber", "poisson": "poisson"}
        return losses.LOSSES[names[self.loss]]()

    def _checked_validation(self, pair: Any, origin: Any, dtype: str) -> tuple[Any, Any]:
        X, y = super()._checked_validation(pair, origin, dtype)
        if (outputs := y.reshape(len(y), -1).shape[1]) != self.n_outputs_:
            raise ValueError(
                f"validation_data: y has {outputs} outputs, but the training data has "
                f"{self.n_outputs_}"
            )
        return X, y

    def _plain_loss(self) -> Any:
        return "squared" if isinstance(self._form.loss, AveragedSquares) else self._form.loss

    def _class_names(self) -> None:
        return None

    def _targets(self, y: Any, incremental: bool) -> np.ndarray:
        if sparse.issparse(y):
            raise ValueError("y: got a sparse matrix; expected a dense array of numbers")
        y = y.reshape(-1, 1) if y.ndim == 1 else y
        if getattr(self._loss_gate(), "nonnegative", False) and (y < 0).any():
            raise ValueError(f"y: got {y.min()}; this loss expects 0 or more")
        return y

    def _network_targets(self, targets: np.ndarray, dtype: str) -> np.ndarray:
        return targets.astype(dtype)

    def _labels_of(self, outputs: np.ndarray) -> Any:
        return outputs

    def _values(self, scores: Array) -> Array:
        gate = self._form.loss
        values = gate.predictions(scores) if hasattr(gate, "predictions") else scores
        return values[:, 0] if values.shape[1] == 1 else values

    def _score_of(self, scores: np.ndarray, y: Any, weight: Any) -> float:
        values = self._values(scores)
        if not np.isfinite(values).all():
            return math.nan
        return float(r2_score(y, values, sample_weight=weight))

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Run one epoch over X and y, and keep the solver's state for the next call."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return the values, shape=(n_samples,) or (n_samples, n_outputs), in X's library."""
        scores, backend = self._scores(X, "predict")
        return self._origin.give_back(self._values(scores), backend)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² of `predict` on X and y."""
        found = to_host(self.predict(X))
        return float(r2_score(to_host(y), found, sample_weight=to_host(sample_weight)))


def _store(estimator: Any, arguments: dict[str, Any]) -> None:
    """Keep the arguments of a constructor as they are, as `sklearn.base.clone` needs it."""
    names = type(estimator)._get_param_names()
    vars(estimator).update({name: arguments[name] for name in names})
