"""Every public name has a docstring; what you call has an example, which runs as a doctest."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

# Modules with names for you, and whether you call them yourself: then each has an example.
PUBLIC = {
    "xpnet": True,
    "xpnet.data": True,
    "xpnet.datasets": True,
    "xpnet.functions": True,
    "xpnet.losses": True,
    "xpnet.many": True,
    "xpnet.metrics": True,
    "xpnet.optim": True,
    "xpnet.parallel": False,
    "xpnet.backend": False,
    "xpnet.book": False,
    "xpnet.book.ch04": True,
    "xpnet.book.ch05": True,
    "xpnet.book.ch07": True,
    "xpnet.book.ch08": True,
    "xpnet.book.functions": True,
    "xpnet.book.gradient": True,
    "xpnet.book.layers": False,
    "xpnet.book.lecture": False,
    "xpnet.book.mnist": False,
    "xpnet.book.multi_layer_net": True,
    "xpnet.book.multi_layer_net_extend": True,
    "xpnet.book.network": False,
    "xpnet.book.optimizer": True,
    "xpnet.book.trainer": True,
    "xpnet.book.util": True,
    "xpnet.errors": False,
    "xpnet.gates": False,
    "xpnet.graph": False,
    "xpnet.layers": False,
    "xpnet.models": False,
    "xpnet.show.draw": False,
    "xpnet.show.plots": False,
    "xpnet.sklearn": False,
    "xpnet.trainer": False,
}


def _public(module: str) -> Iterator[tuple[str, Any]]:
    """The classes and functions in `__all__`; not modules, tables and names of types."""
    if module == "xpnet.sklearn":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    room = importlib.import_module(module)
    for name in room.__all__:
        value = getattr(room, name)
        if inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__"):
            yield name, value


def _methods(value: Any) -> Iterator[tuple[str, Any]]:
    """What a class itself defines: methods, properties and constructors beside the first one."""
    for name, method in vars(value).items():
        known = isinstance(method, property | classmethod | staticmethod)
        if not name.startswith("_") and (known or inspect.isfunction(method)):
            yield name, method


def _described_elsewhere(method: str) -> bool:
    """A gate's passes and an optimizer's rule are described in their protocols, once."""
    from xpnet.gates import Gate
    from xpnet.optim import Optimizer

    return any(inspect.getdoc(getattr(p, method, None)) for p in (Gate, Optimizer))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_docstrings(module: str) -> None:
    missing = []
    for name, value in _public(module):
        if not value.__doc__:
            missing.append(name)
        if inspect.isclass(value):
            missing += [
                f"{name}.{method}"
                for method, _ in _methods(value)
                if not inspect.getdoc(getattr(value, method)) and not _described_elsewhere(method)
            ]
    assert not missing, f"{module}: these have no docstring: {missing}"


@pytest.mark.parametrize("module", [name for name, called in PUBLIC.items() if called])
def test_what_you_call_has_an_example(module: str) -> None:
    missing = [name for name, value in _public(module) if ">>> " not in _with_methods(value)]
    assert not missing, f"{module}: these have no example: {missing}"


def _with_methods(value: Any) -> str:
    docs = [value.__doc__ or ""]
    if inspect.isclass(value):
        docs += [inspect.getdoc(getattr(value, name)) or "" for name, _ in _methods(value)]
    return "\n".join(docs)
