"""What both estimators share: checks of X and y, where to compute, answers and pickles."""

from __future__ import annotations

import warnings
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, _fit_context, is_regressor
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from xpnet.arrays.ops import Array, namespace
from xpnet.backend.interface import Backend
from xpnet.backend.select import select
from xpnet.errors import DeviceError, shown, whole
from xpnet.models.initializers import check_memory
from xpnet.models.mlp import mlp
from xpnet.models.model import Model
from xpnet.optim import Watch
from xpnet.sklearn import files
from xpnet.sklearn.arrays import (
    NUMPY,
    Origin,
    dtype_name,
    is_foreign,
    numbers,
    origin_of,
    stand_in,
    to_host,
)
from xpnet.sklearn.engine import Engine, Form
from xpnet.sklearn.solvers import by_lbfgs, by_steps
from xpnet.sklearn.sparse import SparseSamples
from xpnet.sklearn.trained import trained_before

__all__ = ["ACTIVATIONS", "Perceptron"]

# scikit-learn's names of the activations, and ours.
ACTIVATIONS = {
    "identity": "identity",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
}


class Perceptron(BaseEstimator):
    """What the two estimators have in common: checks, where to compute, answers, pickles.

    A subclass says what its targets are: `_targets`, `_network_targets`, `_loss_gate`,
    `_out_activation`, `_labels_of`, `_score_of`.
    """

    coefs_: list[Any]
    intercepts_: list[Any]
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    _best: Any
    _form: Form  # what was fitted, whatever `set_params` says later
    _dropout_seed = 0

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        # Asked a dozen times for each fit of a search; to inspect the constructor takes 0.3 ms.
        names: list[str] = super()._get_param_names()
        return names

    # -- What is to be computed, and where ----------------------------------------------

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if np.any(np.array(sizes) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [whole("each of hidden_layer_sizes", size, 1) for size in sizes]

    def _activations(self, layers: int) -> list[str]:
        """Return scikit-learn's name of the activation of each hidden layer."""
        if isinstance(self.activation, str):
            return [self.activation] * layers
        names = list(self.activation)
        unknown = [n for n in names if not isinstance(n, str) or n not in ACTIVATIONS]
        if len(names) != layers or unknown:
            raise ValueError(
                f"activation is {names}; expected one name, or {layers}, one per hidden layer, of "
                + ", ".join(ACTIVATIONS)
            )
        return names

    def _open_backend(self, origin: Origin, dtype: str) -> Backend:
        """Open the backend; without `device` and `backend`, it is where X lies."""
        library, device = self.backend, self.device
        if library is None and (device is None or origin.library not in ("numpy", "cupy")):
            library = origin.library  # else `select` takes numpy on the CPU, cupy on CUDA
        if device is None:
            known = library == origin.library != "strict"
            device = origin.device if known else "cuda" if library == "cupy" else "cpu"
        return select(device, library, dtype, quiet=True, precision=self.precision)

    def _check_settings(self, validation_data: Any) -> None:
        """Refuse what scikit-learn's checks of single parameters do not see."""
        self._activations(len(self._hidden_sizes()))
        if isinstance(self.solver, type):
            raise ValueError(f"solver is the class {self.solver.__name__}; expected an optimizer")
        if Watch.of(getattr(self.solver, "lr", None)) is not None:
            raise ValueError(
                "solver has a plateau schedule, which an estimator does not watch for; expected "
                "another schedule, or solver='sgd' with learning_rate='adaptive'"
            )
        called = self.callbacks if isinstance(self.callbacks, list | tuple) else []
        for callback in called:
            if not callable(callback):
                raise ValueError(f"a callback is {shown(callback)}; expected a function")
        if self.solver != "lbfgs":
            return
        for name, given in (
            ("validation_data", validation_data is not None),
            ("callbacks", self.callbacks is not None),
            ("dropout", self.dropout),
            ("precision", self.precision != "float32"),
        ):
            if given:  # it has no epochs and no steps
                raise ValueError(
                    f"solver='lbfgs' has no {name}: leave it out, or use solver='adam'"
                )

    def _form_of_fit(self) -> Form:
        """Return what is to be fitted: the parameters' shapes, and the settings of this moment."""
        sizes = (self.coefs_[0].shape[0], *(W.shape[1] for W in self.coefs_))
        hidden = self._hidden_sizes()
        if list(sizes[1:-1]) != hidden:
            raise ValueError(
                f"hidden_layer_sizes is {hidden}, but the last call fitted {list(sizes[1:-1])}; "
                "call fit() with warm_start=False to begin anew"
            )
        activations = tuple(ACTIVATIONS[name] for name in self._activations(len(hidden)))
        return Form(sizes, activations, self._loss_gate(), self.dropout, self._dropout_seed)

    def _engine_on(self, backend: Backend, params: dict[str, Array], rule: Any = None) -> Engine:
        """Return what computes; the engine of the last call, if it computes the same."""
        known = vars(self).get("_engine")
        if known is not None and known.serves(backend, self._form, rule):
            return known
        return Engine(backend, self._form, params, rule)

    # -- Fitting -------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> Self:
        """Fit the model to data X and targets y.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape=(n_samples, n_features)
            Its library and device decide where all results come back.
        y : array, shape=(n_samples,) or (n_samples, n_outputs)
            Class labels, or real numbers for a regression.
        sample_weight : array, shape=(n_samples,), optional
        validation_data : (X, y), optional
            Data to score after each epoch, in `validation_scores_`. With ``early_stopping=True``
            it replaces the part of the training data that would be held out.

        Returns
        -------
        self
        """
        known = trained_before(self, X, y, sample_weight) if validation_data is None else None
        if known is not None:
            return known.given_to(self)
        return self._fit(X, y, sample_weight, validation_data)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        validation_data: Any = None,
        incremental: bool = False,
    ) -> Self:
        task = self._begun(X, y, sample_weight, validation_data, incremental)
        if self.solver == "lbfgs":
            by_lbfgs(self, *task[:4])
        else:
            by_steps(self, *task, incremental)
        self._check_finite()
        return self

    def _begun(
        self, X: Any, y: Any, sample_weight: Any, validation_data: Any, incremental: bool
    ) -> tuple[Backend, Any, np.ndarray, np.ndarray | None, tuple[Any, Any] | None]:
        """Check all that `fit` is given and draw the parameters.

        Returns
        -------
        backend, X, targets, weights, held
            As `xpnet.sklearn.solvers.by_steps` takes them.
        """
        self._check_settings(validation_data)
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        origin = self._checked_origin(X, first, "partial_fit" if incremental else "fit")
        wanted = self.dtype if first else dtype_name(self.coefs_[0])
        X, y = self._checked_pair(X, y, first, wanted)
        targets = self._targets(y, incremental)
        weights = self._weights(sample_weight, X, y, targets)
        self.n_outputs_ = targets.shape[1]
        dtype, held = dtype_name(X), None
        if validation_data is not None:
            held = self._checked_validation(validation_data, origin, dtype)
        backend = self._open_backend(origin, dtype)
        self._origin = origin
        self._opened = (backend.device, backend.library, dtype, backend.precision)
        self._random_state = check_random_state(self.random_state)
        if first:
            self._initialize(targets.shape[1], dtype, backend)
        self._form = self._form_of_fit()
        return backend, X, targets, weights, held

    def _check_finite(self) -> None:
        host = (to_host(a) for a in chain(self.coefs_, self.intercepts_))
        if not all(np.isfinite(a).all() for a in host):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

    def _checked_pair(self, X: Any, y: Any, reset: bool, dtype: str | None) -> tuple[Any, Any]:
        """Check X and y as scikit-learn does; return X ready to compute with, and y on the host."""
        checked, y = validate_data(
            self, stand_in(X) if is_foreign(X) else X, to_host(y), reset=reset,
            accept_sparse=["csr", "csc"], multi_output=True, y_numeric=is_regressor(self),
            dtype=dtype or (np.float64, np.float32),
        )  # fmt: skip
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if is_foreign(X):
            return numbers(X, dtype, type(self).__name__), y
        return checked.tocsr() if sparse.issparse(checked) else checked, y

    def _checked_origin(self, X: Any, reset: bool, method: str) -> Origin:
        origin = origin_of(X)
        if not reset and hasattr(self, "_origin") and origin != self._origin:
            raise ValueError(
                f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace "
                "and the same device as those passed to fit(). "
                f"Got {origin}, expected {self._origin}."
            )
        return origin

    def _checked_samples(self, X: Any, method: str) -> Any:
        """Check samples to predict; return them in the dtype of the fit."""
        check_is_fitted(self)
        self._checked_origin(X, False, method)
        dtype = dtype_name(self.coefs_[0])
        if is_foreign(X):
            validate_data(self, stand_in(X), reset=False)
            return numbers(X, dtype, type(self).__name__)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        X = X.tocsr() if sparse.issparse(X) else X
        return X.astype(dtype, copy=False)

    def _checked_validation(self, pair: Any, origin: Origin, dtype: str) -> tuple[Any, Any]:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError("validation_data: expected a pair (X, y)")
        if (found := origin_of(pair[0])) != origin:
            raise ValueError(f"validation_data: its X is of {found}; expected {origin}, as fit's X")
        X, y = pair
        return self._checked_pair(X, y, False, dtype)

    def _weights(
        self, sample_weight: Any, X: Any, y: Any, targets: np.ndarray
    ) -> np.ndarray | None:
        if sample_weight is None:
            return None
        checked = stand_in(X) if is_foreign(X) else X
        return _check_sample_weight(to_host(sample_weight), checked, dtype=dtype_name(X))

    def _initialize(self, outputs: int, dtype: str, backend: Backend) -> None:
        """Draw the parameters as scikit-learn draws them, and begin to count."""
        self.n_iter_ = self.t_ = 0
        self.n_outputs_ = outputs
        sizes = [self.n_features_in_, *self._hidden_sizes(), outputs]
        check_memory(sizes)
        names = self._activations(len(sizes) - 2)
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._out_activation()
        self.coefs_, self.intercepts_ = [], []
        last = names[-1] if names else self.activation
        for fan_in, fan_out, name in zip(sizes, sizes[1:], [*names, last], strict=False):
            bound = np.sqrt((2.0 if name == "logistic" else 6.0) / (fan_in + fan_out))
            for shape, arrays in (((fan_in, fan_out), self.coefs_), (fan_out, self.intercepts_)):
                drawn = self._random_state.uniform(-bound, bound, shape).astype(dtype, copy=False)
                arrays.append(self._origin.asarray(drawn))
        self._dropout_seed = int(self._random_state.randint(2**31 - 1)) if self.dropout else 0
        self._best = self._copies()
        if self.solver != "lbfgs":
            self.loss_curve_ = []
            self._no_improvement_count = 0
            self.validation_scores_ = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None
            self.best_loss_ = None if self.early_stopping else np.inf

    def _copies(self) -> tuple[list[Array], list[Array]]:
        def copy(array: Array) -> Array:
            return namespace(array).asarray(array, copy=True)

        return [copy(a) for a in self.coefs_], [copy(a) for a in self.intercepts_]

    def _named(self) -> dict[str, Array]:
        """Return weights, then biases, by their names in the network."""
        named = {f"W{i}": W for i, W in enumerate(self.coefs_, 1)}
        return named | {f"b{i}": b for i, b in enumerate(self.intercepts_, 1)}

    def _params(self, backend: Backend) -> dict[str, Array]:
        """Return weights, then biases, on the backend."""
        return {name: self._origin.take_in(a, backend) for name, a in self._named().items()}

    def _taken_in(self, X: Any, backend: Backend) -> Any:
        """Return X on the backend; a sparse X stays on the host, for NumPy's layers or in parts."""
        if sparse.issparse(X):
            return SparseSamples(X) if backend.library == "numpy" else X
        return self._origin.take_in(X, backend)

    def _on_backend(
        self, backend: Backend, X: Any, targets: np.ndarray, weights: np.ndarray | None
    ) -> tuple[Any, ...]:
        """Return X, targets and, if there are any, weights as a step takes them."""
        others = [self._network_targets(targets, self._opened[2])]
        if weights is not None:
            others.append(weights)
        return self._taken_in(X, backend), *map(backend.asarray, others)

    def _keep(self, params: dict[str, Array], backend: Backend) -> None:
        """Make these the fitted parameters."""
        layers = range(1, self.n_layers_)
        self.coefs_ = [self._origin.give_back(params[f"W{i}"], backend) for i in layers]
        self.intercepts_ = [self._origin.give_back(params[f"b{i}"], backend) for i in layers]

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    # -- Answers ------------------------------------------------------------------------

    def _scores(self, X: Any, method: str) -> tuple[Array, Backend]:
        """Return the outputs before the last activation, on the backend."""
        X = self._checked_samples(X, method)
        engine = vars(self).get("_engine")
        if engine is None:  # after a pickle; predict leaves no attributes behind
            backend = _reopened(self._opened)
            engine = self._engine_on(backend, self._params(backend))
        backend = engine.backend
        params = self._params(backend)
        return engine.scores(params, self._taken_in(X, backend)), backend

    @property
    def model_(self) -> Model:
        """The fitted network as an `xpnet.Model`, which predicts without scikit-learn."""
        check_is_fitted(self)
        dtype: Any = self._opened[2]
        form = self._form
        network = mlp(
            form.sizes, form.activations, loss=self._plain_loss(), dropout=form.dropout,
            seed=form.seed, params={n: to_host(a) for n, a in self._named().items()},
        )  # fmt: skip
        model = Model(
            network,
            backend=_reopened(self._opened),
            dtype=dtype,
            classes=self._class_names(),
            columns=getattr(self, "feature_names_in_", None),
        )
        model.sample_dtype = dtype
        return model

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator as one file that `load` reads, without pickle.

        The file holds neither callbacks nor the solver's state: `partial_fit` starts it anew.

        Parameters
        ----------
        path : path

        Raises
        ------
        UsageError
            A parameter is an object that text cannot describe, such as a loss of your own.
        OSError
            The file cannot be written. An old file at `path` is unchanged.
        """
        check_is_fitted(self)
        files.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an estimator that `save` wrote.

        If you cannot use its library or device here, it opens on NumPy and warns.

        Raises
        ------
        CheckpointError
            The file is missing or damaged, or holds another estimator.
        """
        found: Self = files.load(cls, path)
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    # -- Pickles --------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # Arrays as NumPy's: a machine without the GPU can read them. What is compiled stays here.
        state = dict(super().__getstate__())
        state.pop("_engine", None)
        if "coefs_" in state and "_origin" in state:
            for name in ("coefs_", "intercepts_"):
                state[name] = [to_host(a) for a in state[name]]
            state["_best"] = tuple([to_host(a) for a in arrays] for arrays in state["_best"])
        if "_optimizer" in state:
            state["_optimizer"] = state["_optimizer"].on_host()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_opened" not in self.__dict__:
            return
        try:
            _reopened(self._opened)
            asarray = self._origin.asarray
            arrays = [[asarray(a) for a in part] for part in (self.coefs_, self.intercepts_)]
            best = tuple([asarray(a) for a in part] for part in self._best)
        except DeviceError as error:
            warnings.warn(
                f"cannot use {self._opened[1]} on {self._opened[0]} here ({error}); the estimator "
                "is now on numpy, and takes and gives NumPy arrays",
                RuntimeWarning,
                stacklevel=2,
            )
            self._origin, self._opened = NUMPY, ("cpu", "numpy", self._opened[2], "float32")
            return
        (self.coefs_, self.intercepts_), self._best = arrays, best


def _reopened(opened: tuple[str, str, str, str]) -> Backend:
    """Open the backend of a fit again."""
    device, library, dtype, precision = opened
    return select(device, library, dtype, quiet=True, precision=precision)
