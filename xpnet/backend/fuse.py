"""From lines of Array API code that compute each element by itself to CUDA C.

The function is called once with `Symbol`s in place of arrays. They follow the standard's protocol
(`__array_namespace__`, operators), so the lines do not notice, and write down one C statement per
operation. Numbers become parameters, so that a kernel serves for all of them; literals in the lines
are of the dtype that they are used with, as everywhere in the standard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["C_TYPES", "Lines", "Untraceable", "trace"]

C_TYPES = {
    "bool": "bool",
    "uint8": "unsigned char",
    "int8": "signed char",
    "int32": "int",
    "int64": "long long",
    "float32": "float",
    "float64": "double",
}


class Untraceable(Exception):
    """The lines do something else than computing each element by itself."""


class Lines(NamedTuple):
    """A function as C statements.

    Attributes
    ----------
    statements : list of str
        From the parameters ``x0``, ``x1``, ... to variables ``t0``, ``t1``, ...
    outputs : list of (str, str)
        Variable and dtype of each result.
    form : nested tuples of int, or 0
        How the function returns them: 0, (0, 1), ((0,), 1), ...
    """

    statements: list[str]
    outputs: list[tuple[str, str]]
    form: Any


class Symbol:
    """One element of an array, or a number: a C expression, and the list that it adds to."""

    def __init__(self, name: str, dtype: Any, ndim: int, statements: list[str]) -> None:
        self.name, self.dtype, self.ndim = name, np.dtype(dtype), ndim
        self.statements = statements

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return Functions

    def _new(self, expression: str, dtype: np.dtype[Any], ndim: int) -> Symbol:
        name = f"t{len(self.statements)}"
        if dtype.name not in C_TYPES:
            raise Untraceable(f"no arithmetic in {dtype}")
        self.statements.append(f"{C_TYPES[dtype.name]} {name} = {expression};")
        return Symbol(name, dtype, ndim, self.statements)

    def _other(self, value: Any) -> Symbol:
        """An operand as a symbol: a Python number takes on this symbol's dtype."""
        if isinstance(value, Symbol):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Untraceable(f"{type(value).__name__} among the operands")
        if self.dtype.kind == "f":
            if not math.isfinite(value):
                raise Untraceable(f"the number {value}")
            suffix = "f" if self.dtype == np.float32 else ""
            literal = repr(float(self.dtype.type(value))) + suffix
        elif isinstance(value, int):
            literal = f"({C_TYPES[self.dtype.name]}){value}LL"
        else:
            raise Untraceable(f"{value} with an array of {self.dtype}")
        return Symbol(f"({literal})", self.dtype, 0, self.statements)

    def _with(self, pattern: str, value: Any, kind: str = "", swap: bool = False) -> Symbol:
        """``a op b`` by a pattern such as "{a} + {b}", in the common dtype; or a bool."""
        a, b = self, self._other(value)
        if swap:
            a, b = b, a
        dtype = np.result_type(a.dtype, b.dtype)
        if kind == "integer" and dtype.kind not in "iub":
            raise Untraceable(f"an operation of integers on {dtype}")
        if kind == "wrapping" and dtype.kind == "i":
            # Signed overflow is undefined in C; in every array library it wraps.
            wide = "unsigned long long" if dtype.itemsize == 8 else "unsigned"
            pattern = pattern.replace("{a}", f"({wide}){{a}}").replace("{b}", f"({wide}){{b}}")
        result = np.dtype(bool) if kind == "comparison" else dtype
        # By C's own rules an int and a float compute in float; NumPy's common dtype is double.
        cast = C_TYPES.get(dtype.name, "?")
        names = {"a": a.name, "b": b.name}
        for key, symbol in (("a", a), ("b", b)):
            if symbol.dtype != dtype:
                names[key] = f"(({cast}){symbol.name})"
        expression = pattern.format(**names)
        if kind != "comparison":
            expression = f"({cast})({expression})"
        return self._new(expression, result, max(a.ndim, b.ndim))

    def _call(self, name: str) -> Symbol:
        if self.dtype.kind != "f":
            raise Untraceable(f"{name} of {self.dtype}")
        return self._new(f"{name}({self.name})", self.dtype, self.ndim)

    def __add__(self, other: Any) -> Symbol:
        return self._with("{a} + {b}", other, "wrapping")

    def __sub__(self, other: Any) -> Symbol:
        return self._with("{a} - {b}", other, "wrapping")

    def __rsub__(self, other: Any) -> Symbol:
        return self._with("{a} - {b}", other, "wrapping", swap=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._with("{a} * {b}", other, "wrapping")

    def __truediv__(self, other: Any) -> Symbol:
        return self._floating()._with("{a} / {b}", other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._floating()._with("{a} / {b}", other, swap=True)

    __radd__, __rmul__ = __add__, __mul__

    def _floating(self) -> Symbol:
        if self.dtype.kind != "f":
            raise Untraceable(f"division of {self.dtype}")
        return self

    def __neg__(self) -> Symbol:
        return self * -1

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return self._call("fabs")

    def __pow__(self, power: Any) -> Symbol:
        if power == 2:
            return self * self
        return self._floating()._with("pow({a}, {b})", power)

    def __and__(self, other: Any) -> Symbol:
        return self._with("{a} & {b}", other, "integer")

    def __or__(self, other: Any) -> Symbol:
        return self._with("{a} | {b}", other, "integer")

    def __xor__(self, other: Any) -> Symbol:
        return self._with("{a} ^ {b}", other, "integer")

    def __rshift__(self, other: Any) -> Symbol:
        return self._with("{a} >> {b}", other, "integer")

    def __lt__(self, other: Any) -> Symbol:
        return self._with("{a} < {b}", other, "comparison")

    def __le__(self, other: Any) -> Symbol:
        return self._with("{a} <= {b}", other, "comparison")

    def __gt__(self, other: Any) -> Symbol:
        return self._with("{a} > {b}", other, "comparison")

    def __ge__(self, other: Any) -> Symbol:
        return self._with("{a} >= {b}", other, "comparison")

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._with("{a} == {b}", other, "comparison")

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._with("{a} != {b}", other, "comparison")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise Untraceable("a branch on a value")


class Functions:
    """The namespace of symbols: the standard's functions of single elements."""

    uint8, int8, int32, int64 = np.uint8, np.int8, np.int32, np.int64
    float32, float64 = np.float32, np.float64

    @staticmethod
    def astype(x: Symbol, dtype: Any, *, copy: bool = True) -> Symbol:
        dtype = np.dtype(dtype)
        return x._new(f"({C_TYPES.get(dtype.name, '?')}){x.name}", dtype, x.ndim)

    @staticmethod
    def where(condition: Symbol, x: Any, y: Any) -> Symbol:
        first = x if isinstance(x, Symbol) else y
        if not isinstance(first, Symbol) or condition.dtype.kind != "b":
            raise Untraceable("where without arrays")
        x, y = first._other(x), first._other(y)
        chosen = x._with(f"({condition.name} ? {{a}} : {{b}})", y)
        return Symbol(chosen.name, chosen.dtype, max(condition.ndim, chosen.ndim), x.statements)

    @staticmethod
    def maximum(x: Symbol, y: Any) -> Symbol:
        # What is not a number stays so, on either side.
        return x._with("({a} > {b} || {a} != {a}) ? {a} : {b}", y)

    @staticmethod
    def minimum(x: Symbol, y: Any) -> Symbol:
        return x._with("({a} < {b} || {a} != {a}) ? {a} : {b}", y)

    @staticmethod
    def square(x: Symbol) -> Symbol:
        return x * x

    @staticmethod
    def isdtype(dtype: Any, kind: Any) -> Any:
        return np.isdtype(np.dtype(dtype), kind)


def _function(name: str, c_name: str) -> Callable[[Symbol], Symbol]:
    return lambda x: x._call(c_name)


for _name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "ceil"):
    setattr(Functions, _name, staticmethod(_function(_name, _name)))
Functions.abs = staticmethod(_function("abs", "fabs"))  # type: ignore[attr-defined]


def trace(
    function: Callable[..., Any], arguments: Sequence[Any], dtypes: Sequence[tuple[str, int] | None]
) -> Lines:
    """The statements of a function.

    Parameters
    ----------
    function : callable
    arguments : sequence
        For the function; nested tuples keep their form.
    dtypes : sequence of (dtype, ndim) or None
        For each argument, tuples flattened: what becomes a symbol; None is passed as it is.

    Raises
    ------
    Untraceable
    """
    statements: list[str] = []
    kinds = iter(enumerate(dtypes))

    def symbolic(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(symbolic(v) for v in value)
        i, kind = next(kinds)
        return value if kind is None else Symbol(f"x{i}", *kind, statements)

    symbols = [symbolic(value) for value in arguments]
    try:
        results = function(*symbols)
    except (TypeError, ValueError, AttributeError) as error:
        raise Untraceable(str(error)) from error
    outputs: list[tuple[str, str]] = []
    like = _real(results)

    def numbered(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(numbered(v) for v in value)
        if not isinstance(value, Symbol):
            if like is None:
                raise Untraceable("a result that is not an array")
            value = like._other(value)
        outputs.append((value.name, value.dtype.name))
        return len(outputs) - 1

    form = numbered(results)
    return Lines(statements, outputs, form)


def _real(results: Any) -> Symbol | None:
    """A real result, of whose dtype a number among the results becomes."""
    if isinstance(results, tuple):
        return next((s for s in map(_real, results) if s is not None), None)
    return results if isinstance(results, Symbol) and results.dtype.kind == "f" else None
