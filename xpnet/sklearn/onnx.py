"""Conversion of `MLPClassifier` and `MLPRegressor` to ONNX: what skl2onnx has to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from xpnet.errors import UsageError, shown
from xpnet.layers.activations import LeakyReLU
from xpnet.sklearn.arrays import to_host
from xpnet.sklearn.estimators import MLPClassifier, MLPRegressor

__all__ = ["register"]

OPERATORS = {
    "identity": "Identity",
    "logistic": "Sigmoid",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "exp": "Exp",
}


def register() -> None:
    """Register `MLPClassifier` and `MLPRegressor` with skl2onnx.

    From then on, ``skl2onnx.to_onnx`` and ``skl2onnx.convert_sklearn`` convert them, alone or
    inside a pipeline. You may call this function again.

    Raises
    ------
    UsageError
        skl2onnx is not installed.

    Notes
    -----
    An ONNX model computes in the dtype of the weights, as `predict` does: fit with
    ``dtype="float32"`` for a model in float32. Its probabilities and values are float64 if its
    input is float64, and otherwise float32.

    The outputs of a classifier are the labels, shape=(N,) or for multilabel (N, classes), and the
    probabilities: one dict per sample, or with ``options={"zipmap": False}`` an array,
    shape=(N, classes). The output of a regressor has shape=(N, outputs), even for one output.

    Examples
    --------
    >>> from skl2onnx import to_onnx
    >>> X = np.array([[0.0], [1.0], [2.0]], np.float32)
    >>> register()
    >>> model = to_onnx(MLPRegressor(solver="lbfgs").fit(X, X[:, 0]), X[:1])
    """
    try:
        from skl2onnx import update_registered_converter
        from skl2onnx._parse import _parse_sklearn_classifier
        from skl2onnx.common.data_types import DoubleTensorType
    except ModuleNotFoundError as error:
        raise UsageError(f"register() needs {error.name}: pip install 'xpnet[onnx]'") from None

    def parse_classifier(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        check_is_fitted(model)
        zipmap = scope.get_options(model, {"zipmap": True})["zipmap"]
        if zipmap is True and isinstance(inputs[0].type, DoubleTensorType):
            raise UsageError(
                "ONNX has no dicts of float64 probabilities; "
                "pass options={'zipmap': False}, or give a float32 input"
            )
        return _parse_sklearn_classifier(scope, model, inputs, custom_parsers=custom_parsers)

    update_registered_converter(
        MLPClassifier,
        "XpnetMLPClassifier",
        _type_classifier,
        _convert_classifier,
        parser=parse_classifier,
        options={
            "zipmap": [True, False, "columns"],
            "output_class_labels": [False, True],
            "nocl": [False, True],
        },
    )
    update_registered_converter(
        MLPRegressor, "XpnetMLPRegressor", _type_regressor, _convert_regressor
    )


# -- Types and shapes of the outputs ---------------------------------------------------


def _type_classifier(operator: Any) -> None:
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    samples, number = _checked_input(operator)
    classes = _classes(operator)
    labels, probabilities = operator.outputs
    text_or_int = StringTensorType if classes.dtype == object else Int64TensorType
    per_class = [len(classes)] if _is_multilabel(operator.raw_operator) else []
    labels.set_type(text_or_int([samples, *per_class]))
    probabilities.set_type(number([samples, len(classes)]))


def _type_regressor(operator: Any) -> None:
    samples, number = _checked_input(operator)
    estimator = operator.raw_operator
    if hasattr(estimator.loss, "predictions") and estimator.out_activation_ == "identity":
        raise UsageError(
            f"{shown(estimator.loss)} computes predictions in Python, which ONNX cannot; "
            "expected a loss whose predictions are the network's outputs, or loss='poisson'"
        )
    operator.outputs[0].set_type(number([samples, estimator.n_outputs_]))


def _checked_input(operator: Any) -> tuple[int | None, Any]:
    """Return the number of samples, None for any, and the type of the outputs' floats.

    Raises
    ------
    UsageError
        The ONNX input does not fit the estimator.
    """
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    estimator = operator.raw_operator
    check_is_fitted(estimator)
    features = estimator.n_features_in_
    expected = f"{type(estimator).__name__} expects one ONNX input of {features} numbers a sample"
    if len(operator.inputs) != 1:
        raise UsageError(f"{expected}; got {len(operator.inputs)} inputs: put them into one array")
    (given,) = (variable.type for variable in operator.inputs)
    if isinstance(given, StringTensorType):
        raise UsageError(f"{expected}; got text")
    if given.shape and (len(given.shape) != 2 or given.shape[1] not in (None, features)):
        raise UsageError(f"{expected}, shape [None, {features}]; got shape {given.shape}")
    number = DoubleTensorType if isinstance(given, DoubleTensorType) else FloatTensorType
    return operator.inputs[0].get_first_dimension(), number


def _classes(operator: Any) -> np.ndarray:
    """Return the classes as ONNX can have them, text as dtype=object or numbers as dtype=int64.

    Raises
    ------
    UsageError
        There are fewer than two classes, or a number is too large.
    """
    from skl2onnx.common.utils_classifier import get_label_classes

    classes = np.asarray(get_label_classes(operator.scope_inst, operator.raw_operator))
    if len(classes) < 2:
        raise UsageError(f"classes_ is {shown(classes)}; ONNX expects two or more classes")
    if all(isinstance(label, str) for label in classes):
        return classes.astype(object)
    whole = classes.astype(np.int64)
    if np.any(whole != classes):
        raise UsageError(f"classes_ is {shown(classes)}; ONNX expects text or int64")
    return whole


def _is_multilabel(classifier: Any) -> bool:
    return bool(classifier.out_activation_ == "logistic" and classifier.n_outputs_ > 1)


# -- The nodes of the ONNX graph -------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """Adds nodes and constants to an ONNX graph; each method returns the name of the result.

    `number` is ONNX's code of the dtype that computes, which is that of the weights, as in
    `predict`.
    """

    scope: Any
    container: Any
    number: int

    @classmethod
    def of(cls, scope: Any, operator: Any, container: Any) -> _Writer:
        from onnx import TensorProto

        single = to_host(operator.raw_operator.coefs_[0]).dtype == np.float32
        return cls(scope, container, TensorProto.FLOAT if single else TensorProto.DOUBLE)

    def node(self, operator: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        result = result or self.scope.get_unique_variable_name(operator.lower())
        name = self.scope.get_unique_operator_name(operator)
        self.container.add_node(operator, list(inputs), result, name=name, **attributes)
        return result

    def constant(self, values: Any, dtype: int | None = None) -> str:
        values = np.asarray(to_host(values))
        name = self.scope.get_unique_variable_name("constant")
        self.container.add_initializer(name, dtype or self.number, values.shape, values.ravel())
        return name

    def activation(self, name: str, z: str) -> str:
        if name == "leaky_relu":  # onnxruntime has no LeakyRelu of float64
            return self.node("Max", z, self.node("Mul", z, self.constant(LeakyReLU().alpha)))
        if name == "softmax":
            return self.node("Softmax", z, axis=1)
        return self.node(OPERATORS[name], z)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    from onnx import TensorProto

    estimator, classes = operator.raw_operator, _classes(operator)
    labels = operator.outputs[0].full_name
    write = _Writer.of(scope, operator, container)
    scores = _write_scores(write, operator)
    y = write.activation(estimator.out_activation_, scores)
    # Scores decide, as in `predict`: probabilities that differ may round to the same number.
    if _is_multilabel(estimator):
        positive = write.node("Greater", scores, write.constant(0.0))
        write.node("Cast", positive, result=labels, to=TensorProto.INT64)
    else:
        if len(classes) == 2:  # the network has one output, for the second class
            y = write.node("Concat", write.node("Sub", write.constant(1.0), y), y, axis=1)
            scores = write.node("Concat", write.node("Neg", scores), scores, axis=1)
        dtype = TensorProto.STRING if classes.dtype == object else TensorProto.INT64
        largest = write.node("ArgMax", scores, axis=1, keepdims=0)
        write.node("Gather", write.constant(classes, dtype), largest, result=labels)
    _write_floats(write, y, operator.outputs[1])


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    write = _Writer.of(scope, operator, container)
    y = write.activation(operator.raw_operator.out_activation_, _write_scores(write, operator))
    _write_floats(write, y, operator.outputs[0])


def _write_floats(write: _Writer, y: str, output: Any) -> None:
    from skl2onnx.common.data_types import guess_proto_type

    write.node("Cast", y, result=output.full_name, to=guess_proto_type(output.type))


def _write_scores(write: _Writer, operator: Any) -> str:
    """Write all layers but the last activation; the result has shape=(N, outputs)."""
    estimator = operator.raw_operator
    activations = [*estimator._form.activations, "identity"]
    z = write.node("Cast", operator.inputs[0].full_name, to=write.number)
    for W, b, name in zip(estimator.coefs_, estimator.intercepts_, activations, strict=True):
        z = write.node("Gemm", z, write.constant(W), write.constant(b))
        z = write.activation(name, z)
    return z
