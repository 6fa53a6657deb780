"""Run the nodes of a graph forward and backward, in an order that is found once.

`Graph` keeps what does not depend on the arrays: a `Plan` for each choice of outputs, and a
`BackwardPlan` for each choice of nodes to differentiate by. A step then only runs the gates.

The plans also mark what a backend with kernels can do in one kernel: add a bias and run the
elementwise gate that follows, and sum the gradients of all biases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xpnet.arrays.dispatch import elementwise, offered, underflowing
from xpnet.arrays.ops import (
    Array,
    as_array,
    check_labels,
    computes_its_own_way,
    device,
    is_real,
    namespace,
    sum_rows,
    sum_rows_per_model,
)
from xpnet.errors import listed
from xpnet.gates.arrays import Gather
from xpnet.gates.protocol import Gate
from xpnet.graph.node import Node

__all__ = [
    "MISFIT", "BackwardPlan", "Plan", "Tape", "check_all_labels", "evaluate", "make_backward_plan",
    "make_plan", "one_line", "ones_like", "promise", "shapes_of", "sort", "sweep",
]  # fmt: skip

# Libraries raise these errors if shapes or dtypes do not fit.
MISFIT = (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError)
# `_RowSums` sums the gradients it holds once they have more elements than this (64 MiB in
# float32).
MOST_HELD = 1 << 24


class Tape(NamedTuple):
    """The result of a forward pass, from which `Graph.backward` starts."""

    outputs: tuple[Node, ...]
    values: tuple[Array, ...]  # of the outputs
    caches: dict[str, Any]  # by node name, in the order of evaluation
    shapes: dict[str, tuple[int, ...]] | None  # of all values, where gradients are to be checked


class Plan(NamedTuple):
    """What `evaluate` needs to know about the outputs; a node's ancestors never change."""

    ends: tuple[Node, ...]
    order: list[Node]  # each after its inputs
    real: set[str]  # values that must not be integers
    joined: set[str]  # gates whose bias can be added in the elementwise gate that follows


class Back(NamedTuple):
    """What `sweep` needs to know about one gate."""

    node: Node
    needs: list[bool]  # per input: whether it needs a gradient
    wanted: list[tuple[int, str]]  # positions and names of the inputs that do
    bias: int | None  # position of a row's bias, if its whole gradient comes from this gate


BackwardPlan = list[Back]  # last to first


def sort(nodes: Mapping[str, Node], ends: Iterable[str]) -> list[Node]:
    """Return the nodes that `ends` depend on, each after its inputs; refuse a cycle."""
    done: dict[str, Node] = {}
    for end in ends:
        # Depth-first search with an explicit path, since recursion would limit the depth.
        path: dict[str, Iterator[str]] = {}
        if end not in done:
            path[end] = iter(nodes[end].inputs)
        while path:
            name = next(reversed(path))
            for source in path[name]:
                if source in path:
                    names = list(path)
                    circle = [*names[names.index(source) :], source]
                    if len(circle) > 9:
                        circle[4:-4] = ["..."]
                    raise ValueError(f"the graph has a cycle: {' <- '.join(circle)}")
                if source not in done:
                    if source not in nodes:
                        raise ValueError(f"{name} uses {source!r}, which is not in the graph")
                    path[source] = iter(nodes[source].inputs)
                    break
            else:
                done[name] = nodes[name]
                path.popitem()
    return list(done.values())


def make_plan(nodes: Mapping[str, Node], ends: tuple[str, ...]) -> Plan:
    """Return the plan that `evaluate` follows."""
    order = sort(nodes, ends)
    real: set[str] = set()
    for node in reversed(order):
        # A gate that only moves elements needs reals if a gate that uses its output does.
        if not getattr(node.gate, "moves", False) or node.name in real:
            integers = getattr(node.gate, "integers", ())
            real.update(s for i, s in enumerate(node.inputs) if i not in integers)
    return Plan(tuple(nodes[name] for name in ends), order, real, _joined(order, ends))


def _joined(order: list[Node], ends: tuple[str, ...]) -> set[str]:
    """Return the gates with a bias whose output goes only to one elementwise gate.

    Gates that pass a bias on may stand between, where the bias is that of channels.
    """
    uses = Counter([source for node in order for source in node.inputs] + list(ends))
    known = {node.name: node for node in order}
    found = set()
    for node in order:
        if len(node.inputs) == 1 and promise(node.gate, "elementwise") and _is_frozen(node.gate):
            source = known[node.inputs[0]]
            passed = False
            while uses[source.name] == 1 and promise(source.gate, "passes_bias"):
                source, passed = known[source.inputs[0]], True
            fits = not passed or _bias_axis(source.gate) == 1
            if uses[source.name] == 1 and _bias_of(source) is not None and fits:
                found.add(source.name)
    return found


def promise(gate: Any, name: str) -> Any:
    """Return a class attribute that describes the gate's two passes, or None.

    A subclass that overrides a pass may break its base's promise, so the attribute then counts
    only if the subclass sets it again.
    """
    kind = type(gate)
    for owner in kind.__mro__:
        if name in vars(owner):
            passes = ("forward", "backward")
            same = all(getattr(kind, each, None) is getattr(owner, each, None) for each in passes)
            return vars(owner)[name] if same else None
    return None


def _is_frozen(gate: Any) -> bool:
    """Say whether a gate cannot change: its kernel is cached, with its numbers in the source."""
    parameters = getattr(gate, "__dataclass_params__", None)
    return parameters.frozen if parameters else not getattr(gate, "__dict__", None)


def _bias_of(node: Node) -> int | None:
    """Return the position of the input that the gate adds along an axis of its output, or None."""
    bias = promise(node.gate, "bias_input")
    return bias if type(bias) is int and bias < len(node.inputs) else None


def _bias_axis(gate: Any) -> int:
    """Return the axis of the output along which a bias lies: the last, or that of channels."""
    axis = promise(gate, "bias_axis")
    return axis if type(axis) is int else -1


def make_backward_plan(order: list[Node], wrt: tuple[str, ...]) -> BackwardPlan:
    """Return the gates that depend on any node of `wrt`, last to first."""
    reach, plan = set(wrt), []
    for node in order:
        needs = [source in reach for source in node.inputs]
        if any(needs):
            reach.add(node.name)
            wanted = [(i, node.inputs[i]) for i, need in enumerate(needs) if need]
            plan.append(Back(node, needs, wanted, None))
    # Only one gate uses such a bias, and no gate computes it: nothing needs its gradient before
    # the end of the pass.
    uses = Counter(source for back in plan for source in back.node.inputs)
    computed = {back.node.name for back in plan}
    for number, back in enumerate(plan):
        i = _bias_of(back.node)
        if i is not None and back.needs[i] and _bias_axis(back.node.gate) == -1:
            source = back.node.inputs[i]
            if uses[source] == 1 and source not in computed:
                plan[number] = back._replace(bias=i)
    return plan[::-1]


@underflowing
def evaluate(
    plan: Plan, inputs: Mapping[str, Any], *, every: bool = False
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the nodes' values and the gates' caches, by node name.

    A backend may add a bias in the gate that follows. The values before that gate then lack the
    bias; with `every`, each value is complete.
    """
    values: dict[str, Array] = {}
    caches: dict[str, Any] = {}
    joined = plan.joined if offered("elementwise") and not every else set()
    biases: dict[str, Array | None] = {}  # not yet added, by the name of the gate before them
    for node in plan.order:
        name, gate = node.name, node.gate
        if gate is None:
            values[name] = _value(node, inputs, name in plan.real)
            continue
        args = [values[source] for source in node.inputs]
        try:
            if name in joined:
                values[name], caches[name], biases[name] = _without_bias(node, args)
            elif (bias := biases.get(node.inputs[0]) if node.inputs else None) is None:
                values[name], caches[name] = gate.forward(*args)
            elif promise(gate, "passes_bias"):
                (values[name], caches[name]), biases[name] = gate.forward(*args), bias
            else:
                values[name], caches[name] = add_bias_then(args[0], bias, gate)
        except MISFIT as error:
            raise ValueError(f"{_call(node, args)}: {one_line(error)}") from error
    return values, caches


def _without_bias(node: Node, args: list[Array]) -> tuple[Array, Any, Array | None]:
    """Return the output without its bias, the cache, and the bias; or the full output and None."""
    gate, i = node.gate, _bias_of(node)
    assert gate is not None
    assert i is not None
    bias = args[i]
    if bias is not None:
        y, cache = gate.forward(*args[:i], None, *args[i + 1 :])
        if bias.dtype == y.dtype:
            axis = _bias_axis(gate)
            if bias.shape == (y.shape[axis],):
                rest = 0 if axis == -1 else y.ndim - 1 - axis
                return y, cache, bias[(slice(None), *[None] * rest)] if rest else bias
            if getattr(cache, "stacked", False):  # one bias for each model, shape=(K, M)
                return y, cache, bias[:, None, :]
    return *gate.forward(*args), None  # forward refuses a bias that does not fit


@elementwise
def add_bias_then(y: Array, bias: Array, gate: Gate) -> tuple[Array, Any]:
    """Run an elementwise gate forward on y + bias."""
    return gate.forward(y + bias)


@underflowing
def sweep(
    tape: Tape,
    plan: BackwardPlan,
    wrt: tuple[str, ...],
    douts: Iterable[Any] | None,
    flows: dict[tuple[str, int], Array] | None = None,
) -> dict[str, Array]:
    """Return the gradients of the nodes `wrt`; put what each gate sends to each input in `flows`.

    Every other gradient is freed after its last use, which keeps memory small.
    """
    grads: dict[str, Array] = {}
    kept, lost = set(wrt), []
    for node, dout in zip(tape.outputs, _starts(tape, douts, kept), strict=True):
        if dout is not None:
            grads[node.name] = grads[node.name] + dout if node.name in grads else dout
    sums = _RowSums() if flows is None and offered("sum_rows") else None
    for node, needs, wanted, bias in plan:
        name = node.name
        if name not in grads:
            continue
        dout = grads[name] if name in kept else grads.pop(name)
        if sums is not None and bias is not None and node.inputs[bias] not in grads:
            sums.add(node.inputs[bias], dout, getattr(tape.caches[name], "stacked", False))
            needs = [need and i != bias for i, need in enumerate(needs)]
            wanted = [(i, source) for i, source in wanted if i != bias]
        parts = _backward(node, tape.caches[name], dout, needs)
        for i, source in wanted:
            part = parts[i]
            if part is None:
                lost.append((node, i))
                continue
            if tape.shapes is not None:
                _check_part(node, i, part, tape.shapes[source])
            # Fan-out adds, never in place: a gate may return one array for several inputs.
            grads[source] = grads[source] + part if source in grads else part
            if flows is not None:
                flows[name, i] = part
    if sums is not None:
        grads.update(sums.all())
    if lost:
        _check_lost(lost, plan, {name for name in wrt if name in grads})
    return grads


def _check_part(node: Node, i: int, part: Any, shape: tuple[int, ...]) -> None:
    """Refuse a gate's gradient that an update would broadcast, or round, without a word."""
    if not hasattr(part, "dtype"):
        got = f"a {type(part).__name__}"
    elif tuple(part.shape) != shape:
        got = f"a gradient of shape {tuple(part.shape)}"
    elif not is_real(part):
        got = f"a gradient of dtype {part.dtype}"
    else:
        return
    raise ValueError(
        f"{node.name}, backward: gave {got} for its input {i}, {node.inputs[i]!r}; "
        f"expected real numbers of that input's shape, {shape}"
    )


class _RowSums:
    """Hold the gradients whose row sums are the biases' gradients, and sum many in one kernel."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}
        self._stacks: dict[str, Array] = {}  # gradients of K models, shape=(K, N, M)
        self._elements = 0
        self._done: dict[str, Array] = {}

    def add(self, name: str, dout: Array, stacked: bool) -> None:
        (self._stacks if stacked else self._held)[name] = dout
        self._elements += math.prod(dout.shape)
        if self._elements > MOST_HELD:
            self.all()

    def all(self) -> dict[str, Array]:
        """Sum what is held; return all sums so far, by name."""
        for held, add_up in ((self._held, sum_rows), (self._stacks, sum_rows_per_model)):
            if held:
                self._done.update(zip(held, add_up(list(held.values())), strict=True))
        self._held, self._stacks, self._elements = {}, {}, 0
        return self._done


def check_all_labels(order: list[Node], values: Mapping[str, Any]) -> None:
    """Refuse a label given to a loss or to Pick that is out of range."""
    for node in order:
        integers = getattr(node.gate, "integers", ())
        if 1 not in integers or len(node.inputs) < 2 or isinstance(node.gate, Gather):
            continue
        args = [values[source] for source in node.inputs]
        x, t = args[:2]
        if t is not None and not is_real(t) and t.shape == x.shape[:-1] and x.shape[-1] > 1:
            try:
                check_labels(t, x.shape[-1])
            except ValueError as error:
                raise ValueError(f"{_call(node, args)}: {error}") from error


def shapes_of(values: Mapping[str, Array | None]) -> dict[str, tuple[int, ...]]:
    """The shapes of all values but those of optional inputs that were not given."""
    return {name: tuple(value.shape) for name, value in values.items() if value is not None}


def ones_like(y: Array) -> Array:
    """Return the gradient of y's sum."""
    return namespace(y).ones(y.shape, dtype=y.dtype, device=device(y))


def _check_lost(lost: list[tuple[Node, int]], plan: BackwardPlan, found: set[str]) -> None:
    """Refuse an incomplete gradient: one path, such as a loss's targets, gives none."""
    for node, i in lost:
        before = {node.inputs[i]}
        for back in plan:
            if back.node.name in before:
                before.update(back.node.inputs)
        if before & found:
            raise ValueError(
                f"{node.name} gives no gradient to its input {i}, {node.inputs[i]!r}, which "
                f"depends on {listed(sorted(before & found))}: the gradient would be incomplete"
            )


# Types of arrays that `_value` once took; cached, since it is asked of each input at each step.
_PLAIN: set[type] = set()


def _value(node: Node, inputs: Mapping[str, Any], real: bool) -> Array | None:
    """Return the value of an input; refuse one that is missing or of the wrong kind."""
    value = inputs.get(node.name)
    if type(value) in _PLAIN and (not real or is_real(value)):  # as in nearly every step
        return value
    if value is None:
        if node.optional:
            return None
        raise KeyError(
            f"input {node.name!r} has no value; given: {listed(sorted(map(str, inputs)))}"
        )
    if isinstance(value, int | float):
        others = (a for a in inputs.values() if hasattr(a, "dtype") and not isinstance(a, float))
        return as_array(value, next(filter(is_real, others), None))
    if not hasattr(value, "dtype"):
        raise ValueError(f"input {node.name!r} is a {type(value).__name__}; expected an array")
    if computes_its_own_way(value):
        raise ValueError(
            f"input {node.name!r} is a {type(value).__name__}, an array with rules of its own; "
            "expected a plain one: numpy.asarray(x), of a masked array x.filled(...)"
        )
    if real and not is_real(value):
        raise ValueError(
            f"input {node.name!r} has dtype {value.dtype}; the gates that use it need real "
            "numbers: convert it to float64 or float32"
        )
    _PLAIN.add(type(value))
    return value


def _starts(tape: Tape, douts: Iterable[Any] | None, kept: set[str]) -> list[Any]:
    """Return the gradient to start from for each output: an array, None, or the number 1.0.

    It is the number if the gate takes one and the gradient itself is not to be `kept`.
    """
    if douts is None:
        if len(tape.outputs) != 1:
            raise ValueError(f"{len(tape.outputs)} outputs need douts: one for each output")
        (end,) = tape.outputs
        if promise(end.gate, "takes_number") and end.name not in kept:
            return [1.0]
        if not is_real(tape.values[0]):
            dtype = tape.values[0].dtype
            raise ValueError(f"{tape.outputs[0].name} has dtype {dtype}; a gradient needs reals")
        return [ones_like(tape.values[0])]
    starts = list(douts)
    if len(starts) != len(tape.outputs):
        raise ValueError(f"got {len(starts)} douts for {len(tape.outputs)} outputs")
    for i, (node, value) in enumerate(zip(tape.outputs, tape.values, strict=True)):
        if isinstance(starts[i], int | float):
            starts[i] = as_array(starts[i], value)
        if starts[i] is None:
            continue
        if not hasattr(starts[i], "dtype") or not is_real(starts[i]):
            raise ValueError(
                f"dout of {node.name} is {getattr(starts[i], 'dtype', type(starts[i]).__name__)}; "
                "expected an array of real numbers"
            )
        if starts[i].shape != value.shape:
            raise ValueError(
                f"dout of {node.name} has shape {tuple(starts[i].shape)}; expected "
                f"{tuple(value.shape)}, that of its value"
            )
    return starts


def _call(node: Node, args: list[Any]) -> str:
    """Write a gate's call in words: ``Affine1(x (100, 64), W1 (784, 50), b1 (50,))``."""
    words = [
        f"{name} {'not given' if a is None else tuple(a.shape)}"
        for name, a in zip(node.inputs, args, strict=True)
    ]
    return f"{node.name}({', '.join(words)})"


def one_line(error: Exception) -> str:
    """Return an error's first line; raise the error again if it is not about shapes or dtypes."""
    # PyTorch raises RuntimeError if shapes do not fit. Its subclasses have other causes, such as
    # a lack of memory.
    if isinstance(error, RuntimeError) and type(error) not in (RuntimeError, NotImplementedError):
        raise error
    return (str(error) or type(error).__name__).splitlines()[0]


def _backward(node: Node, cache: Any, dout: Array, needs: list[bool]) -> Sequence[Array | None]:
    """Return a gate's gradients: one per input, or more if optional inputs are left out."""
    assert node.gate is not None  # a backward plan contains only gates
    try:
        parts = node.gate.backward(cache, dout, needs)
        missing = len(node.inputs) - len(parts)
    except MISFIT as error:
        shape = tuple(getattr(dout, "shape", ()))
        raise ValueError(f"{node.name}, backward from {shape}: {one_line(error)}") from error
    if missing > 0:
        raise ValueError(
            f"{node.name} gave {len(parts)} gradients for {len(node.inputs)} inputs; a gate's "
            "backward must return one per input, or None for an input that has no gradient"
        )
    return parts
