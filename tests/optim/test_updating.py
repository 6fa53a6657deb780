"""The state of an optimizer, and the order of the arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet import optim
from xpnet.errors import UsageError


@pytest.mark.parametrize("kind", [optim.SGD, optim.Momentum, optim.Adam, optim.AdamW])
def test_rate_in_the_state_replaces_the_rules(kind: Any, backend: Any) -> None:
    """Two steps at two rates equal two rules of those rates; the compiled step stays the same."""
    start, g = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[0.3, -0.1], [2.0, 0.7]])

    def two_steps(rules: list[Any], rates: list[float | None]) -> np.ndarray:
        params = {"W": backend.asarray(start.copy())}
        state = optim.init(rules[0], params)
        for rule, rate in zip(rules, rates, strict=True):
            if rate is not None:
                state["lr"] = backend.asarray(np.array(rate))
            params, state = optim.update(rule, {"W": backend.asarray(g)}, state, params)
        return backend.to_numpy(params["W"])

    found = two_steps([kind(0.7), kind(0.7)], [0.1, 0.02])
    np.testing.assert_allclose(found, two_steps([kind(0.1), kind(0.02)], [None, None]), rtol=1e-12)


def test_arguments_in_another_order_are_named() -> None:
    params = {"W": np.ones(2)}
    state = optim.init(optim.Adam(), params)
    with pytest.raises(UsageError, match=r"expected update\(optimizer, grads, state, params\)"):
        optim.update(optim.Adam(), params, {"W": np.ones(2)}, state)
