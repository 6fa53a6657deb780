"""An ensemble: models that answer together, and say how far they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xpnet.errors import UsageError, counted, shown
from xpnet.metrics import classification_scores, regression_scores
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model

__all__ = ["Ensemble"]


class Ensemble:
    """A model that averages the probabilities, or the values, of several models.

    Parameters
    ----------
    models : sequence of Model
        All classify the same classes with probabilities, or all predict values.

    Raises
    ------
    UsageError
        There is no model, or they differ in what they answer.

    Notes
    -----
    For probabilities the log loss of the average is never more than the average log loss, since the
    logarithm is concave; for values the same holds of the squared error. Source: Lakshminarayanan,
    Pritzel, Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles",
    2017.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.linspace(-1, 1, 60)[:, None]
    >>> models = xpnet.fit_many(xpnet.mlp([1, 8, 1], loss="squared"), (x, x[:, 0] ** 2), seeds=3)
    >>> mean, spread = models.ensemble().predict(x[:1]), models.ensemble().spread(x[:1])
    >>> mean.shape, spread.shape
    ((1, 1), (1, 1))
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not isinstance(models, Iterable):
            raise UsageError(f"an ensemble of {shown(models)}; expected a list of models")
        self.models = list(models)
        if not self.models:
            raise UsageError("an ensemble of no models; expected at least one")
        for model in self.models:
            if not isinstance(model, Model):
                raise UsageError(f"an ensemble of {shown(model)}; expected a list of models")
        first = self.models[0]
        for model in self.models:
            same = (model.classifies, model.network.outputs, model.classes) == (
                first.classifies, first.network.outputs, first.classes,
            )  # fmt: skip
            if not same:
                raise UsageError(
                    "an ensemble of models with other classes or outputs; expected models of one "
                    "task"
                )
            if model.classifies and not hasattr(model.network.loss_gate, "probabilities"):
                raise UsageError(
                    f"an ensemble averages probabilities, and "
                    f"{type(model.network.loss_gate).__name__} gives none; train with the softmax "
                    "or sigmoid loss"
                )

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        return f"<Ensemble: {counted(len(self), 'model')}; {self.models[0].network.in_words}>"

    @property
    def classifies(self) -> bool:
        """Whether it predicts classes."""
        return self.models[0].classifies

    def _each(self, x: Any) -> np.ndarray:
        """Return what each model answers, shape=(K, N, ...)."""
        if self.classifies:
            return np.stack([model.predict_proba(x) for model in self.models]).astype(np.float64)
        return np.stack([model.values(model.scores(x)) for model in self.models]).astype(np.float64)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the mean of the models' probabilities, shape=(N, classes).

        Raises
        ------
        UsageError
            The models predict values.
        """
        if not self.classifies:
            raise UsageError("the models predict values, not classes; call predict()")
        mean: np.ndarray = self._each(x).mean(axis=0)
        return mean

    def predict(self, x: Any) -> np.ndarray:
        """Return the most probable classes, shape=(N,), or the mean values, shape=(N, outputs)."""
        if self.classifies:
            return self._named(self._decided(self.predict_proba(x)))
        mean: np.ndarray = self._each(x).mean(axis=0)
        return mean[:, 0] if self.models[0].flat else mean

    def spread(self, x: Any) -> np.ndarray:
        """Return how far the models differ: the standard deviation of their answers.

        Returns
        -------
        array
            Of the probabilities, shape=(N, classes), or of the values, shape=(N, outputs), in the
            units of the targets. 0 for a single model.
        """
        spread: np.ndarray = self._each(x).std(axis=0, ddof=1 if len(self) > 1 else 0)
        return spread[:, 0] if not self.classifies and self.models[0].flat else spread

    def evaluate(self, x: Any, t: Any) -> dict[str, float | None]:
        """Return the metrics of the averaged answers, see `Model.evaluate`; without the loss."""
        first = self.models[0]
        x, t = first.checked_pair(x, t)
        if not self.classifies:
            rows = t.reshape(len(t), -1)
            return dict(regression_scores(rows, self._each(x).mean(axis=0)))
        proba = self.predict_proba(x)
        return dict(
            classification_scores(
                class_indices(t), self._decided(proba), proba, max(first.network.outputs or 0, 2)
            )
        )

    def _decided(self, proba: np.ndarray) -> np.ndarray:
        threshold = self.models[0].threshold
        if threshold is not None:
            return (proba[:, 1] >= threshold).astype(np.int64)
        return np.asarray(proba.argmax(axis=1))

    def _named(self, chosen: np.ndarray) -> np.ndarray:
        return self.models[0].labelled(chosen)
