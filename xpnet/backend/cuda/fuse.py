"""Translate Array API code that computes each element independently to CUDA C.

`trace` calls the function once with `Symbol`s in place of arrays and numbers. Symbols follow the
standard's protocol (`__array_namespace__`, operators), so the function runs as usual, and they
write one C statement per operation. Dtypes follow the standard: a Python number takes the dtype of
the array that it meets, whether the number is a literal or an argument.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "C_TYPES",
    "NUMBER",
    "WHOLE_NUMBER",
    "Kind",
    "Lines",
    "Output",
    "Untraceable",
    "not_fused",
    "trace",
]

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
    """The function does something that a kernel of independent elements cannot do."""


def not_fused(
    function: Callable[..., Any],
    reason: Untraceable | str,
    fallbacks: list[str],
    args: Sequence[Any] = (),
) -> None:
    """Note, once, that a function runs operation by operation: same results, but slower.

    The note goes to `fallbacks` (see `Backend.fallbacks`) and to the logger "xpnet". It names the
    gate or optimizer among the arguments, since the lines may belong to it.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    whose = [type(a).__name__ for a in args if hasattr(a, "forward") or hasattr(a, "rule")]
    note = f"{name}{f' of {whose[0]}' if whose else ''} is not fused: {reason}"
    if note not in fallbacks:
        fallbacks.append(note)
        logging.getLogger("xpnet").debug("%s", note)


class Kind(NamedTuple):
    """The kind of an argument: an array, or a number, which is weak until it meets an array."""

    dtype: str
    ndim: int
    weak: bool = False


NUMBER, WHOLE_NUMBER = Kind("float64", 0, weak=True), Kind("int64", 0, weak=True)


class Output(NamedTuple):
    """A result: its variable, its dtype, and the indices of the arguments that it depends on."""

    name: str
    dtype: str
    sources: frozenset[int]


class Lines(NamedTuple):
    """A function as C statements.

    Attributes
    ----------
    statements : list of str
        They compute variables ``t0``, ``t1``, ... from the parameters ``x0``, ``x1``, ...
    outputs : list of Output
    form : nested tuples of int or None, or 0
        How the function returns its outputs: 0, (0, 1), (0, 0), ((0,), None), ...
    """

    statements: list[str]
    outputs: list[Output]
    form: Any


class Symbol:
    """One element of an array, or a number, as a C expression; operators append to `statements`."""

    def __init__(
        self, name: str, kind: Kind, sources: frozenset[int], statements: list[str]
    ) -> None:
        self.name, self.ndim, self.weak = name, kind.ndim, kind.weak
        self.dtype = np.dtype(kind.dtype)
        self.sources, self.statements = sources, statements

    __array_ufunc__ = None  # so the operators of NumPy's numbers defer to those below

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return Functions

    def _new(self, expression: str, dtype: Any, *operands: Symbol) -> Symbol:
        name, dtype = f"t{len(self.statements)}", np.dtype(dtype)
        self.statements.append(f"{_c_type(dtype)} {name} = {expression};")
        kind = Kind(dtype.name, max(s.ndim for s in operands), weak=all(s.weak for s in operands))
        sources = frozenset(i for s in operands for i in s.sources)
        return Symbol(name, kind, sources, self.statements)

    def _literal(self, value: Any) -> Symbol:
        """Return a number that the function contains, in this symbol's dtype."""
        if type(value) not in (int, float):  # NumPy's float64 is a float too, but not weak
            raise Untraceable(f"an operand has the type {type(value).__name__}")
        if self.dtype.kind == "f":
            number = float(self.dtype.type(value))
            if not math.isfinite(number):
                raise Untraceable(f"the number {value} does not fit {self.dtype}")
            text = repr(number) + ("f" if self.dtype == np.float32 else "")
        elif isinstance(value, int) and self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            if not limits.min <= value <= limits.max:
                raise Untraceable(f"the number {value} does not fit {self.dtype}")
            text = f"({_c_type(self.dtype)}){value}LL"
        else:
            raise Untraceable(f"the number {value} does not fit {self.dtype}")
        kind = Kind(self.dtype.name, 0, weak=self.weak)
        return Symbol(f"({text})", kind, frozenset(), self.statements)

    def _with(self, pattern: str, value: Any, rule: str = "", swap: bool = False) -> Symbol:
        """Write ``a op b`` by a pattern such as "{a} + {b}", in the common dtype or as bool."""
        a, b = self, value if isinstance(value, Symbol) else self._literal(value)
        dtype = _common(a, b)
        if dtype.kind == "b" and rule != "comparison" and rule != "bits":
            raise Untraceable("it computes with bools")
        if rule == "bits" and dtype.kind == "f":
            raise Untraceable(f"it uses a bit operation on {dtype}")
        if rule == "wraps" and dtype.kind == "i":
            # Signed overflow is undefined in C, but wraps around in every array library.
            wide = "unsigned long long" if dtype.itemsize == 8 else "unsigned"
            pattern = pattern.replace("{a}", f"({wide}){{a}}").replace("{b}", f"({wide}){{b}}")
        if swap:
            a, b = b, a
        # C computes an int and a float in float. The standard computes in the common dtype, and
        # rounds the result to it.
        cast = _c_type(dtype)
        names = {
            key: s.name if s.dtype == dtype else f"(({cast}){s.name})"
            for key, s in (("a", a), ("b", b))
        }
        expression = pattern.format(**names)
        if rule == "comparison":
            return self._new(expression, bool, a, b)
        return self._new(f"({cast})({expression})", dtype, a, b)

    def _call(self, name: str) -> Symbol:
        if self.dtype.kind != "f":
            raise Untraceable(f"it calls {name} on {self.dtype}")
        return self._new(f"{name}({self.name})", self.dtype, self)

    def _real(self) -> Symbol:
        if self.dtype.kind != "f":
            raise Untraceable(f"it takes a quotient or a power of {self.dtype}")
        return self

    def __add__(self, other: Any) -> Symbol:
        return self._with("{a} + {b}", other, "wraps")

    def __sub__(self, other: Any) -> Symbol:
        return self._with("{a} - {b}", other, "wraps")

    def __rsub__(self, other: Any) -> Symbol:
        return self._with("{a} - {b}", other, "wraps", swap=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._with("{a} * {b}", other, "wraps")

    def __truediv__(self, other: Any) -> Symbol:
        return self._real()._with("{a} / {b}", other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._real()._with("{a} / {b}", other, swap=True)

    __radd__, __rmul__ = __add__, __mul__

    def _becomes(self, new: Symbol) -> Symbol:
        """Change this symbol in place, as an array: every variable that holds it changes too."""
        if self.weak:
            return new  # a Python number cannot change in place
        if new.dtype != self.dtype:
            raise Untraceable(f"it writes {new.dtype} into {self.dtype}")
        self.name, self.ndim, self.sources = new.name, new.ndim, new.sources
        return self

    def __neg__(self) -> Symbol:
        return self * -1

    def __pos__(self) -> Symbol:
        return self._new(self.name, self.dtype, self)

    def __abs__(self) -> Symbol:
        return self._call("fabs")

    def __pow__(self, power: Any) -> Symbol:
        if isinstance(power, int) and power == 2:
            return self * self
        return self._real()._with("pow({a}, {b})", power)

    def __and__(self, other: Any) -> Symbol:
        return self._with("{a} & {b}", other, "bits")

    def __or__(self, other: Any) -> Symbol:
        return self._with("{a} | {b}", other, "bits")

    def __xor__(self, other: Any) -> Symbol:
        return self._with("{a} ^ {b}", other, "bits")

    def __rshift__(self, other: Any) -> Symbol:
        return self._with("{a} >> {b}", other, "bits")

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
        raise Untraceable("it branches on a value")


def _in_place(operator: str) -> Callable[[Symbol, Any], Symbol]:
    def operate(self: Symbol, other: Any) -> Symbol:
        return self._becomes(getattr(self, operator)(other))

    return operate


for _name in ("add", "sub", "mul", "truediv", "and", "or", "xor"):
    setattr(Symbol, f"__i{_name}__", _in_place(f"__{_name}__"))


def _c_type(dtype: np.dtype[Any]) -> str:
    if dtype.name not in C_TYPES:
        raise Untraceable(f"a kernel cannot compute in {dtype}")
    return C_TYPES[dtype.name]


def _common(a: Symbol, b: Symbol) -> np.dtype[Any]:
    """Return the common dtype of two symbols."""
    if a.weak == b.weak:
        return np.result_type(a.dtype, b.dtype)
    strong, weak = (b, a) if a.weak else (a, b)
    if strong.dtype.kind == "f" or (strong.dtype.kind in "iu" and weak.dtype.kind == "i"):
        return strong.dtype
    raise Untraceable(f"it combines a number of {weak.dtype} with {strong.dtype}")


class Functions:
    """The namespace of symbols: those of the standard's functions that act on single elements."""

    uint8, int8, int32, int64 = np.uint8, np.int8, np.int32, np.int64
    float32, float64 = np.float32, np.float64

    @staticmethod
    def astype(x: Symbol, dtype: Any, *, copy: bool = True) -> Symbol:
        dtype = np.dtype(dtype)
        y = x._new(f"({_c_type(dtype)}){x.name}", dtype, x)
        y.weak = False
        return y

    @staticmethod
    def where(condition: Symbol, x: Any, y: Any) -> Symbol:
        if not isinstance(x, Symbol):
            if not isinstance(y, Symbol):
                raise Untraceable("it calls where with two numbers")
            x = y._literal(x)
        y = y if isinstance(y, Symbol) else x._literal(y)
        if condition.dtype.kind != "b":
            raise Untraceable(f"it calls where with a condition of {condition.dtype}")
        dtype = _common(x, y)
        cast = _c_type(dtype)
        expression = f"{condition.name} ? ({cast}){x.name} : ({cast}){y.name}"
        chosen: Symbol = x._new(expression, dtype, condition, x, y)
        return chosen

    @staticmethod
    def maximum(x: Symbol, y: Any) -> Symbol:
        # NaN stays NaN, on either side.
        return x._with("({a} > {b} || {a} != {a}) ? {a} : {b}", y)

    @staticmethod
    def minimum(x: Symbol, y: Any) -> Symbol:
        return x._with("({a} < {b} || {a} != {a}) ? {a} : {b}", y)

    @staticmethod
    def clip(x: Symbol, min: Any = None, max: Any = None) -> Symbol:
        if min is not None:
            x = Functions.maximum(x, min)
        return x if max is None else Functions.minimum(x, max)

    @staticmethod
    def square(x: Symbol) -> Symbol:
        return x * x

    @staticmethod
    def isdtype(dtype: Any, kind: Any) -> Any:
        return np.isdtype(np.dtype(dtype), kind)


def _function(c_name: str) -> staticmethod[[Symbol], Symbol]:
    def call(x: Symbol) -> Symbol:
        return x._call(c_name)

    return staticmethod(call)


for _name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "ceil"):
    setattr(Functions, _name, _function(_name))
Functions.abs = _function("fabs")  # type: ignore[attr-defined]


def trace(
    function: Callable[..., Any], arguments: Sequence[Any], kinds: Sequence[Kind | None]
) -> Lines:
    """Return the C statements of a function.

    Parameters
    ----------
    function : callable
    arguments : sequence
        The function's arguments; tuples may be nested.
    kinds : sequence of Kind or None
        One per argument, with tuples flattened. A Kind replaces the argument by a symbol; None
        passes it unchanged.

    Raises
    ------
    Untraceable
        The function cannot become such a kernel; the message says why.
    """
    statements: list[str] = []
    coming = iter(enumerate(kinds))

    def symbolic(value: Any) -> Any:
        if type(value) is tuple:
            return tuple(symbolic(v) for v in value)
        i, kind = next(coming)
        if kind is None:
            return value
        return Symbol(f"x{i}", kind, frozenset([i]), statements)

    symbols = [symbolic(value) for value in arguments]
    try:
        results = function(*symbols)
    except Untraceable:
        raise
    except Exception as error:  # the function used a symbol in a way that only arrays allow
        raise Untraceable(str(error)) from error
    outputs: list[Output] = []
    like = _real_array(results)

    def numbered(value: Any) -> Any:
        if type(value) is tuple:
            return tuple(numbered(v) for v in value)
        if value is None:
            return None
        if not isinstance(value, Symbol) or value.weak:
            if like is None:
                raise Untraceable("a result is not an array")
            # A number among arrays becomes an array of their dtype.
            value = like._literal(0) + value
        output = Output(value.name, value.dtype.name, value.sources)
        if output not in outputs:  # the function may return one array twice
            outputs.append(output)
        return outputs.index(output)

    form = numbered(results)
    return Lines(statements, outputs, form)


def _real_array(results: Any) -> Symbol | None:
    """Return the first real array among results, or None."""
    if type(results) is tuple:
        return next((s for s in map(_real_array, results) if s is not None), None)
    if not isinstance(results, Symbol) or results.weak or results.dtype.kind != "f":
        return None
    return results
