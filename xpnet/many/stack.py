"""Networks of one form that train together: their arrays, one epoch, and their scores."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpnet import optim
from xpnet.arrays.ops import Array, namespace, targets_like
from xpnet.data.loader import Feed
from xpnet.many.members import Candidate
from xpnet.many.parts import Part
from xpnet.many.rules import form_and_numbers, per_model
from xpnet.many.step import make_many_step
from xpnet.models.evaluation import r2_score
from xpnet.models.network import Network
from xpnet.models.stack import form_of, masks, stacked
from xpnet.trainer.step import make_step

__all__ = ["Stack", "form", "orders"]

# The row numbers of so many bytes go to the device at a time.
ORDER_BYTES = 32 << 20
# So many samples, of all models together, are measured at a time.
MEASURED = 20_000


def form(candidate: Candidate, part: Part) -> Any:
    """Return a value that is equal for candidates that can train in one stack."""
    n = len(part.given.x)
    feed = part.model.feed
    return (
        form_of(candidate.network),
        form_and_numbers(candidate.rule)[0],
        candidate.clip_norm is None,
        candidate.batch_size,
        -(-n // candidate.batch_size),
        candidate.epochs,
        str(part.given.x.dtype),
        feed.prepare if part.given.x.dtype.itemsize == 1 else None,  # it scales bytes
        part.given.t.ndim,
        bool(part.given.weights),
        part.model.classifies,
        part.given.held is None,
    )


def orders(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the rows of an epoch, in the order that a trainer of this seed draws."""
    return np.random.default_rng((seed, 3, epoch)).permutation(n)


class Stack:
    """Models of one form in training, their parameters with a first axis of models.

    Parameters
    ----------
    chosen : sequence of Candidate
        Of one `form`.
    parts : mapping of int to Part
        The parts of the data that they use.
    shared : dict
        What is on the device already: stacks that get the same dict share their samples.

    Attributes
    ----------
    members : list of int
        The indices of all its models.
    live : list of Candidate
        Those that are in the arrays, in the order of their first axis.
    params, state : dict of str to array
    """

    def __init__(
        self, chosen: Sequence[Candidate], parts: Mapping[int, Part], shared: dict[Any, Any]
    ) -> None:
        self.live, self._parts, self._shared = list(chosen), parts, shared
        self.members = [each.member.index for each in chosen]
        self._starts: dict[int, int] = {}
        self._place()
        first = chosen[0]
        self.feed: Feed = parts[first.part].model.feed
        self.backend = self.feed.backend
        self.network: Network = first.network
        self._form = form_of(first.network)
        self._set_step()
        names: dict[str, Any] = dict.fromkeys(first.network.params)
        whole = replace(stacked(first.network, names), params=names)
        values = {
            name: np.stack([np.asarray(each.network.params[name]) for each in chosen])
            for name in names
        }
        self.params: dict[str, Array] = self.feed.copies(values)
        self.state = optim.init(self._rule, self.params)
        self.state |= self.feed.copies(self._each)
        self._data: tuple[Any, ...] = ()
        self._last_data: tuple[Any, ...] = ()
        self._measure = self.backend.compile(_Measure(self._form, self.feed.prepare, whole))
        self._scores = self.backend.compile(_Scores(self._form, self.feed.prepare, whole))

    # -- The step ----------------------------------------------------------------------

    def _set_step(self) -> None:
        """Make the step for the models that are live; what is equal in all of them is a number."""
        dtype = self.feed.dtype
        self._rule, settings = per_model([each.rule for each in self.live], dtype)
        decays = [each.weight_decay for each in self.live]
        l1s = [each.l1 for each in self.live]
        norms = [each.clip_norm for each in self.live]
        decay: float | None = decays[0]
        l1: float | None = l1s[0]
        norm: float | str | None = norms[0]
        if len({*decays}) > 1:
            settings["each.l2"], decay = np.array(decays, dtype), None
        if len({*l1s}) > 1:
            settings["each.l1"], l1 = np.array(l1s, dtype), None
        if len({*norms}) > 1:
            settings["each.clip_norm"], norm = np.array(norms, dtype), "each"
        inputs = masks([each.network for each in self.live], dtype)
        self._each = settings | inputs
        step: Any = make_many_step(
            self.network, self._form, self._rule,
            weight_decay=decay, l1=l1, clip_norm=norm, inputs=tuple(inputs),
        )  # fmt: skip
        if len(self.live) == 1:  # the ordinary step takes four fifths of the time
            one = self.live[0]
            step = make_step(
                one.network, one.rule,
                weight_decay=one.weight_decay, l1=one.l1, clip_norm=one.clip_norm,
            )  # fmt: skip
        self.run = self.backend.loop(step, self.feed.prepare)

    @property
    def trained_state(self) -> set[str]:
        """The names of the arrays in the state that training changes, one row for each model."""
        own = {f"{n}.{slot}" for n in self.params for slot in self._rule.slots}
        return own | (self.state.keys() & {"level"})

    def keep(self, wanted: Sequence[int]) -> None:
        """Leave only these models in the arrays, by their places on the first axis."""
        rows = self.backend.asarray(np.asarray(wanted, np.int64))
        own = self.trained_state

        def take(array: Array) -> Array:
            return namespace(array).take(array, rows, axis=0)

        self.live = [self.live[i] for i in wanted]
        self._set_step()
        self.params = {name: take(p) for name, p in self.params.items()}
        self.state = {
            "step": self.state["step"],
            **{name: take(self.state[name]) for name in own},
            **self.feed.copies(self._each),
        }
        self._data = ()

    # -- Data --------------------------------------------------------------------------

    def _of_part(self, part: int) -> int:
        return len(self._parts[part].given.x)

    def _place(self) -> None:
        """Decide where the samples of each part lie, one part after the other.

        Parts of the same samples, which differ in their weights alone, share one place. Models that
        leave change nothing: a set that goes on from a checkpoint computes the same.
        """
        used = sorted({each.part for each in self.live})
        self._blocks: dict[Any, Part] = {}
        starts: dict[Any, int] = {}
        self._n = 0
        for number in used:
            part = self._parts[number]
            feed = part.model.feed
            scalings = _bytes_of(feed.scaling), _bytes_of(feed.target_scaling)
            key = id(part.given.x), id(part.given.t), *scalings, part.model.classifies
            if key not in starts:
                self._blocks[key], starts[key] = part, self._n
                self._n += len(part.given.x)
            self._starts[number] = starts[key]
        self._one_each = len(starts) == len(used)  # so that a sample has one weight for all models
        size = self.live[0].batch_size
        lasts = {(self._of_part(number) - 1) % size + 1 for number in used}
        self._padded = len(lasts) > 1  # the last batches differ: the shorter ones are filled up
        self._last = max(lasts)

    def _bring(self) -> None:
        """Bring samples, targets and weights to the device."""
        key = (*self._blocks, self._padded)
        if key not in self._shared:
            xs, ts = [], []
            for part in self._blocks.values():
                xs.append(part.model.feed.samples(part.given.x, own=True))
                ts.append(part.model.feed.targets(part.given.t, part.model.classifies))
            if self._padded:  # one more sample, of weight 0
                xs.append(xs[0][:1, ...])
                ts.append(ts[0][:1])
            x = xs[0] if len(xs) == 1 else namespace(xs[0]).concat(xs, axis=0)
            t = ts[0] if len(ts) == 1 else np.concatenate(ts)
            self._shared[key] = x, self.backend.asarray(t)
        plain = self._shared[key]
        own = bool(self._parts[self.live[0].part].given.weights)
        self._data = self._last_data = plain
        if own or self._padded:
            self._last_data = (*plain, self.backend.asarray(self._weights()))
        if own:
            self._data = self._last_data

    def _weights(self) -> np.ndarray:
        """Return the weight of each sample, shape=(N,), or of each for each model, (K, N)."""
        numbers = [each.part for each in self.live]
        if self._one_each:
            numbers = list(self._starts)
        rows = np.zeros((len(numbers), self._n + self._padded), self.feed.dtype)
        for row, number in zip(rows, numbers, strict=True):
            given, start = self._parts[number].given, self._starts[number]
            row[start : start + len(given.x)] = given.weights[0] if given.weights else 1.0
        # A sample belongs to one part, so the sum is its weight.
        return rows.sum(axis=0) if self._one_each or len(rows) == 1 else rows

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self._of_part(self.live[0].part) // self.live[0].batch_size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Array]:
        """Train one epoch; yield the losses of each chunk of steps, shape=(steps, K).

        Parameters
        ----------
        epoch : int
            Counted from 0.
        done : int
            Skip this many steps.
        """
        if not self._data:
            self._bring()
        size, steps = self.live[0].batch_size, self.steps
        keys = [(each.member.seed, each.part) for each in self.live]
        drawn = {
            key: self._starts[key[1]] + orders(key[0], epoch, self._of_part(key[1]))
            for key in dict.fromkeys(keys)
        }
        full = steps - 1 if self._padded or self._last < size else steps
        alike = len(drawn) == 1  # then all models see the same batch
        rows = [*drawn.values()] if alike else [drawn[key] for key in keys]
        at_once = max(1, ORDER_BYTES // (8 * size * len(rows)))
        for start in range(done, full, at_once):
            stop = min(start + at_once, full)
            batches = np.stack(
                [row[start * size : stop * size].reshape(-1, size) for row in rows], 1
            )
            yield from self._run(self._data, batches, alike)
        if full < steps and done < steps:
            batches = np.full((1, len(rows), self._last), self._n)
            for model, row in enumerate(rows):
                rest = row[full * size :]
                batches[0, model, : len(rest)] = rest
            yield from self._run(self._last_data, batches, alike)

    def _run(self, data: tuple[Any, ...], batches: np.ndarray, alike: bool) -> Iterator[Array]:
        order = self.backend.asarray(np.ascontiguousarray(batches[:, 0] if alike else batches))
        if len(self.live) > 1:
            for chunk in self.run(self.params, self.state, data, order):
                self.params, self.state, losses = chunk
                yield losses
            return
        params = {name: p[0, ...] for name, p in self.params.items()}
        own = [f"{name}.{slot}" for name in params for slot in self._rule.slots]
        own += self.state.keys() & {"level"}
        state = {"step": self.state["step"]} | {name: self.state[name][0, ...] for name in own}
        for chunk in self.run(params, state, data, order):
            params, state, losses = chunk
            self.params = {name: p[None, ...] for name, p in params.items()}
            self.state = {
                **self.state,
                "step": state["step"],
                **{name: state[name][None, ...] for name in own},
            }
            yield losses[:, None]

    def lower(self, falling: Mapping[int, optim.Watch]) -> None:
        """Let the rate of some models fall, by their places; a plateau's watch says how far."""
        levels = np.array(self.backend.to_numpy(self.state["level"]))
        for place, watch in falling.items():
            levels[place] = watch.lowered(float(levels[place]))
        self.state |= self.feed.copies({"level": levels})

    # -- Numbers -----------------------------------------------------------------------

    def finite(self) -> np.ndarray:
        """Return whether all parameters of each model are finite, shape=(K,)."""
        xp = namespace(next(iter(self.params.values())))
        found = None
        for p in self.params.values():
            good = xp.all(xp.isfinite(xp.reshape(p, (p.shape[0], -1))), axis=1)
            found = good if found is None else xp.logical_and(found, good)
        assert found is not None
        return self.backend.to_numpy(found)

    def on_host(self) -> dict[str, np.ndarray]:
        """Return the parameters as NumPy arrays, shape=(K, ...)."""
        return {name: self.backend.to_numpy(p) for name, p in self.params.items()}

    def held(self, part: int) -> tuple[Any, np.ndarray] | None:
        """Return the samples and targets that a part is measured on, on the device."""
        found = self._parts[part]
        if found.given.held is None:
            return None
        if ("held", part) not in self._shared:
            self._shared["held", part] = found.model.resident(*found.given.held, own=True)
        pair: tuple[Any, np.ndarray] = self._shared["held", part]
        return pair

    def trained(self, part: int, most: int) -> tuple[Any, np.ndarray]:
        """Return at most so many evenly spaced samples that a part trains on."""
        found = self._parts[part]
        x, t = found.given.x, found.given.t
        if len(x) > most:
            rows = np.linspace(0, len(x) - 1, most).astype(np.int64)
            x, t = x[rows], t[rows]
        return found.model.resident(x, t, own=True)

    def by_part(self) -> Iterator[tuple[int, list[int]]]:
        """Yield each part, and the places of the models that train on it."""
        places: dict[int, list[int]] = {}
        for place, each in enumerate(self.live):
            places.setdefault(each.part, []).append(place)
        yield from places.items()

    def _params_of(self, places: Sequence[int]) -> dict[str, Array]:
        if len(places) == len(self.live):
            return self.params
        rows = self.backend.asarray(np.asarray(places, np.int64))
        return {name: namespace(p).take(p, rows, axis=0) for name, p in self.params.items()}

    def _batches(self, x: Any, models: int) -> Iterator[slice]:
        size = min(1000, max(50, MEASURED // models))
        for start in range(0, x.shape[0], size):
            yield slice(start, min(start + size, x.shape[0]))

    def measure(
        self, places: Sequence[int], x: Any, t: np.ndarray
    ) -> tuple[np.ndarray, list[float | None]]:
        """Return the losses per sample, shape=(K,), and the scores of some models on one data set.

        See `xpnet.models.evaluation.Evaluation.measure`; x and t are from `held`.
        """
        params = self._params_of(places)
        mean = self.network.loss_gate.reduction == "mean"
        classes = self._parts[self.live[places[0]].part].model.classifies
        total, right, errors = np.zeros(len(places)), np.zeros(len(places)), []
        for rows in self._batches(x, len(places)):
            losses, found = self._measure(params, x[rows, ...], self.backend.asarray(t[rows]))
            total += self.backend.to_numpy(losses).astype(np.float64) * (
                rows.stop - rows.start if mean else 1
            )
            found = self.backend.to_numpy(found)
            if classes:
                right += found
            else:
                errors.append(found)
        n = len(t)
        if classes:
            return total / n, (right / n).tolist()
        wrong = np.concatenate(errors, axis=1)
        targets = t.reshape(n, -1)
        return total / n, [r2_score(each.reshape(n, -1), targets) for each in wrong]

    def scores(self, places: Sequence[int], x: Any) -> np.ndarray:
        """Return the outputs of some models, shape=(K, N, outputs)."""
        params = self._params_of(places)
        parts = [
            self.backend.to_numpy(self._scores(params, x[rows, ...]))
            for rows in self._batches(x, len(places))
        ]
        return np.concatenate(parts, axis=1)


def _bytes_of(scaling: Any) -> Any:
    return scaling and tuple(np.asarray(part).tobytes() for part in scaling)


@dataclass(frozen=True)
class _Measure:
    """``measure(params, x, t) -> (losses, right answers or errors)`` of K models."""

    form: Hashable
    prepare: Any
    network: Network = field(compare=False, repr=False)

    def __call__(self, params: Any, x: Array, t: Array) -> tuple[Array, Array]:
        net = self.network
        inputs = {**params, "x": self.prepare(x), "t": t}
        (scores, loss), _ = net.graph.forward(inputs, net.scores, net.loss)
        xp = namespace(scores)
        real = net.loss_gate.targets == "real"
        if real and not (t.ndim == 1 and net.outputs != 1):
            return loss, net.predictions(scores) - targets_like(t, scores[0, ...])
        if t.ndim > 1:
            t = xp.argmax(t, axis=-1) if t.shape[-1] > 1 else t[:, 0] > 0.5
        right = xp.astype(net.loss_gate.decide(scores), xp.int32) == xp.astype(t, xp.int32)
        return loss, xp.sum(xp.astype(right, scores.dtype), axis=-1)


@dataclass(frozen=True)
class _Scores:
    """``scores(params, x)`` of K models, shape=(K, N, outputs)."""

    form: Hashable
    prepare: Any
    network: Network = field(compare=False, repr=False)

    def __call__(self, params: Any, x: Array) -> Array:
        return self.network.predict(params, self.prepare(x))
