"""The two passes over the nodes of a graph, as functions; and the order of evaluation.

What does not depend on the arrays is found out once and kept by `Graph`: a `Plan` for the
outputs, a backward plan for what is differentiated by. A step then only runs the gates.

The plans also say what a backend with kernels can do at once that gates do one by one: a bias and
the elementwise gate that follows it, and the gradients of all biases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xpnet.arrays.dispatch import elementwise, offered
from xpnet.arrays.ops import Array, as_array, check_labels, device, is_real, namespace, sum_rows
from xpnet.gates.arrays import Gather
from xpnet.gates.protocol import Gate
from xpnet.graph.node import Node

__all__ = [
    "MISFIT", "BackwardPlan", "Plan", "Tape", "check_all_labels", "evaluate", "make_backward_plan",
    "make_plan", "one_line", "ones_like", "sort", "sweep",
]  # fmt: skip

# What libraries raise where shapes or dtypes do not fit.
MISFIT = (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError)
# Gradients whose rows are summed later, all at once, stay alive until then: so many elements at
# most, 64 MiB in float32.
MOST_HELD = 1 << 24


class Tape(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    outputs: tuple[Node, ...]
    values: tuple[Array, ...]  # of the outputs
    caches: dict[str, Any]  # by node name, in the order of evaluation


class Plan(NamedTuple):
    """What is found out once for some outputs: a node's ancestors never change."""

    ends: tuple[Node, ...]
    order: list[Node]  # of evaluation
    real: set[str]  # values that must not be integers
    joined: set[str]  # gates whose bias is added with the elementwise gate that follows


class Back(NamedTuple):
    """What is found out once for a gate that is run backward."""

    node: Node
    needs: list[bool]  # per input, whether a gradient is wanted
    wanted: list[tuple[int, str]]  # those inputs' numbers and names
    bias: int | None  # the input that is a bias, where its whole gradient comes from this gate


BackwardPlan = list[Back]  # last to first


def sort(nodes: Mapping[str, Node], ends: Iterable[str]) -> list[Node]:
    """The nodes that `ends` depend on, each after its inputs; a cycle is refused."""
    done: dict[str, Node] = {}
    for end in ends:
        # Depth first, with a path of our own: recursion would limit the depth.
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
    """What forward needs to know."""
    order = sort(nodes, ends)
    real: set[str] = set()
    for node in reversed(order):
        # A gate that only moves elements needs reals if what uses its output does.
        if not getattr(node.gate, "moves", False) or node.name in real:
            integers = getattr(node.gate, "integers", ())
            real.update(s for i, s in enumerate(node.inputs) if i not in integers)
    return Plan(tuple(nodes[name] for name in ends), order, real, _joined(order, ends))


def _joined(order: list[Node], ends: tuple[str, ...]) -> set[str]:
    """The gates with a bias whose output goes to one elementwise gate alone."""
    uses = Counter([source for node in order for source in node.inputs] + list(ends))
    known = {node.name: node for node in order}
    return {
        node.inputs[0]
        for node in order
        if len(node.inputs) == 1
        and uses[node.inputs[0]] == 1
        and _promise(node.gate, "elementwise")
        and _is_frozen(node.gate)
        and _bias_of(known[node.inputs[0]]) is not None
    }


def _promise(gate: Any, name: str) -> Any:
    """What a gate's class says of its two passes by an attribute; None if it says nothing.

    A subclass that overrides one of the passes need not keep what its base has promised: then the
    attribute counts only if the subclass gives it again.
    """
    kind = type(gate)
    for owner in kind.__mro__:
        if name in vars(owner):
            passes = ("forward", "backward")
            same = all(getattr(kind, each, None) is getattr(owner, each, None) for each in passes)
            return vars(owner)[name] if same else None
    return None


def _is_frozen(gate: Any) -> bool:
    """Whether a gate stays what it is: a kernel is kept for it, its numbers in the text."""
    parameters = getattr(gate, "__dataclass_params__", None)
    return parameters.frozen if parameters else not getattr(gate, "__dict__", None)


def _bias_of(node: Node) -> int | None:
    """The number of the input that a gate adds to each row of its output, if it has one."""
    bias = _promise(node.gate, "bias_input")
    return bias if type(bias) is int and bias < len(node.inputs) else None


def make_backward_plan(order: list[Node], wrt: tuple[str, ...]) -> BackwardPlan:
    """The gates that depend on any node of `wrt`, last to first."""
    reach, plan = set(wrt), []
    for node in order:
        needs = [source in reach for source in node.inputs]
        if any(needs):
            reach.add(node.name)
            wanted = [(i, node.inputs[i]) for i, need in enumerate(needs) if need]
            plan.append(Back(node, needs, wanted, None))
    # A bias that one gate alone uses, and that no gate computes: nobody asks for its gradient
    # before the end of the pass.
    uses = Counter(source for back in plan for source in back.node.inputs)
    computed = {back.node.name for back in plan}
    for number, back in enumerate(plan):
        i = _bias_of(back.node)
        if i is not None and back.needs[i]:
            source = back.node.inputs[i]
            if uses[source] == 1 and source not in computed:
                plan[number] = back._replace(bias=i)
    return plan[::-1]


def evaluate(
    plan: Plan, inputs: Mapping[str, Any], *, every: bool = False
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Values and every gate's cache.

    Where a backend adds a bias with the gate that follows, the value before that gate lacks the
    bias, unless `every` value is asked for as it is.
    """
    values: dict[str, Array] = {}
    caches: dict[str, Any] = {}
    joined = plan.joined if offered("elementwise") and not every else set()
    biases: dict[str, Array] = {}  # that have not been added yet
    for node in plan.order:
        name, gate = node.name, node.gate
        if gate is None:
            values[name] = _value(node, inputs, name in plan.real)
            continue
        args = [values[source] for source in node.inputs]
        try:
            if name in joined:
                values[name], caches[name], biases[name] = _without_bias(node, args)
            elif (bias := biases.get(node.inputs[0]) if node.inputs else None) is not None:
                values[name], caches[name] = add_bias_then(args[0], bias, gate)
            else:
                values[name], caches[name] = gate.forward(*args)
        except MISFIT as error:
            raise ValueError(f"{_call(node, args)}: {one_line(error)}") from error
    return values, caches


def _without_bias(node: Node, args: list[Array]) -> tuple[Array, Any, Array | None]:
    """A gate's output before its bias is added, its cache, and that bias; or all of the output."""
    gate, i = node.gate, _bias_of(node)
    assert gate is not None
    assert i is not None
    bias = args[i]
    if bias is not None:
        y, cache = gate.forward(*args[:i], None, *args[i + 1 :])
        if bias.shape == y.shape[-1:] and bias.dtype == y.dtype:
            return y, cache, bias
    return *gate.forward(*args), None  # which also says what does not fit


@elementwise
def add_bias_then(y: Array, bias: Array, gate: Gate) -> tuple[Array, Any]:
    """An elementwise gate's forward of y + bias."""
    return gate.forward(y + bias)


def sweep(
    tape: Tape,
    plan: BackwardPlan,
    wrt: tuple[str, ...],
    douts: Iterable[Any] | None,
    flows: dict[tuple[str, int], Array] | None = None,
) -> dict[str, Array]:
    """Gradients of the nodes `wrt`; into `flows`, what each gate sent to each input.

    Any other gradient is let go of as soon as it has been used: memory stays small.
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
            sums.add(node.inputs[bias], dout)
            needs = [need and i != bias for i, need in enumerate(needs)]
            wanted = [(i, source) for i, source in wanted if i != bias]
        parts = _backward(node, tape.caches[name], dout, needs)
        for i, source in wanted:
            part = parts[i]
            if part is None:
                lost.append((node, i))
                continue
            # Fan-out adds. Never in place: a gate may have handed one array to several inputs.
            grads[source] = grads[source] + part if source in grads else part
            if flows is not None:
                flows[name, i] = part
    if sums is not None:
        grads.update(sums.all())
    if lost:
        _check_lost(lost, plan, {name for name in wrt if name in grads})
    return grads


class _RowSums:
    """Gradients of biases: what is to be summed is held, so that many sums are one kernel."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}
        self._elements = 0
        self._done: dict[str, Array] = {}

    def add(self, name: str, dout: Array) -> None:
        self._held[name] = dout
        self._elements += math.prod(dout.shape)
        if self._elements > MOST_HELD:
            self.all()

    def all(self) -> dict[str, Array]:
        """The sums so far, by name."""
        if self._held:
            self._done.update(zip(self._held, sum_rows(list(self._held.values())), strict=True))
        self._held, self._elements = {}, 0
        return self._done


def check_all_labels(order: list[Node], values: Mapping[str, Any]) -> None:
    """Look at the labels given to losses and to Pick, and refuse one that is out of range."""
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


def ones_like(y: Array) -> Array:
    """The gradient of y's sum."""
    return namespace(y).ones(y.shape, dtype=y.dtype, device=device(y))


def _check_lost(lost: list[tuple[Node, int]], plan: BackwardPlan, found: set[str]) -> None:
    """Refuse a gradient of which a part is missing, such as that through a loss's targets."""
    for node, i in lost:
        before = {node.inputs[i]}
        for back in plan:
            if back.node.name in before:
                before.update(back.node.inputs)
        if before & found:
            raise ValueError(
                f"{node.name} gives no gradient to its input {i}, {node.inputs[i]!r}, which "
                f"depends on {', '.join(sorted(before & found))}: what could be given would be "
                "a part"
            )


def _value(node: Node, inputs: Mapping[str, Any], real: bool) -> Array | None:
    """The value given for an input, refused where it is missing or of the wrong kind."""
    value = inputs.get(node.name)
    if value is None:
        if node.optional:
            return None
        raise KeyError(f"input {node.name!r} has no value; given: {', '.join(sorted(inputs))}")
    if isinstance(value, int | float):
        others = (a for a in inputs.values() if hasattr(a, "dtype") and not isinstance(a, float))
        return as_array(value, next(filter(is_real, others), None))
    if not hasattr(value, "dtype"):
        raise ValueError(f"input {node.name!r} is a {type(value).__name__}; expected an array")
    if real and not is_real(value):
        raise ValueError(
            f"input {node.name!r} has dtype {value.dtype}; the gates that use it need real "
            "numbers: convert it to float64 or float32"
        )
    return value


def _starts(tape: Tape, douts: Iterable[Any] | None, kept: set[str]) -> list[Any]:
    """The gradients that backward starts from, one per output: arrays, None, or the number 1.0.

    The number is for a gate that takes it, and not where the gradient itself is to be `kept`.
    """
    if douts is None:
        if len(tape.outputs) != 1:
            raise ValueError(f"{len(tape.outputs)} outputs need douts, one for each of them")
        (end,) = tape.outputs
        if _promise(end.gate, "takes_number") and end.name not in kept:
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
    """A gate's call in words: ``Affine1(x (100, 64), W1 (784, 50), b1 (50,))``."""
    words = [
        f"{name} {'not given' if a is None else tuple(a.shape)}"
        for name, a in zip(node.inputs, args, strict=True)
    ]
    return f"{node.name}({', '.join(words)})"


def one_line(error: Exception) -> str:
    """An error in one line; one that is not about shapes or dtypes is raised again."""
    # PyTorch has RuntimeError for shapes that do not fit; its subclasses, such as for memory
    # that is used up, are not about this call.
    if isinstance(error, RuntimeError) and type(error) not in (RuntimeError, NotImplementedError):
        raise error
    return (str(error) or type(error).__name__).splitlines()[0]


def _backward(node: Node, cache: Any, dout: Array, needs: list[bool]) -> Sequence[Array | None]:
    """A gate's gradients: as many as it has inputs, or more (for optional ones left out)."""
    assert node.gate is not None  # only gates are in a backward plan
    try:
        parts = node.gate.backward(cache, dout, needs)
        missing = len(node.inputs) - len(parts)
    except MISFIT as error:
        shape = tuple(getattr(dout, "shape", ()))
        raise ValueError(f"{node.name}, backward from {shape}: {one_line(error)}") from error
    if missing > 0:
        raise ValueError(
            f"{node.name} gave {len(parts)} gradients for {len(node.inputs)} inputs; a gate's "
            "backward returns one for each, None where there is none"
        )
    return parts
