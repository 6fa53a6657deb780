"""The models of a set before their training: settings, times seeds, times parts of the data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from xpnet import optim
from xpnet.data.augmentation import Augmentation
from xpnet.errors import UsageError, listed, real, shown, whole
from xpnet.many.rules import with_setting
from xpnet.models.builders import BUILDERS
from xpnet.models.network import Network
from xpnet.trainer.defaults import defaults

__all__ = ["Candidate", "Member", "Training", "candidates", "checked_grid", "checked_seeds"]

# What a network may change of its builder's arguments and still take its weights.
SAME_WEIGHTS = {"seed", "dropout", "activation"}
TRAINERS = ("weight_decay", "l1", "clip_norm", "batch_size", "epochs", "optimizer")


@dataclass(frozen=True)
class Member:
    """What one model of a set is.

    Attributes
    ----------
    index : int
        Its place in the set.
    settings : dict
        Its values of the grid.
    seed : int
    fold, group : int, label or None
        The fold that was held out, or the group whose samples it was trained on.
    network : int
        Which of the networks, if several were given.

    Examples
    --------
    >>> Member(0, {"lr": 0.1}, seed=2, fold=1).in_words()
    'lr 0.1, seed 2, fold 1'
    """

    index: int
    settings: dict[str, Any]
    seed: int = 0
    fold: int | None = None
    group: Any = None
    network: int = 0

    def in_words(self) -> str:
        """Return the member in a few words: lr 0.1, seed 2, fold 0."""
        words = [f"{name} {_brief(value)}" for name, value in self.settings.items()]
        words += [f"network {self.network}"] if self.network else []
        words.append(f"seed {self.seed}")
        words += [f"fold {self.fold}"] if self.fold is not None else []
        words += [f"group {self.group}"] if self.group is not None else []
        return ", ".join(words)


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "-".join(map(_brief, value))
    return value if isinstance(value, str) else shown(value)


@dataclass(frozen=True)
class Training:
    """How to train: what all models share beside the grid, as `xpnet.Trainer` takes it."""

    optimizer: optim.Optimizer | Callable[[int], optim.Optimizer] | None = None
    lr: float | None = None
    weight_decay: float | None = None
    l1: float | None = None
    clip_norm: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    augment: Augmentation | None = None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model to train, with all its settings decided.

    Attributes
    ----------
    member : Member
    network : Network
        With the weights that its seed draws.
    rule : Optimizer
    weight_decay, l1, clip_norm : float, float, float or None
        Of the step, beside the rule.
    batch_size, epochs : int
    part : int
        The part of the data that it trains on.
    """

    member: Member
    network: Network
    rule: Any
    weight_decay: float
    l1: float
    clip_norm: float | None
    batch_size: int
    epochs: int
    part: int


def checked_seeds(seeds: Any) -> list[int]:
    """Return the seeds that a user gives: a number of them, a list, or none for seed 0.

    Examples
    --------
    >>> checked_seeds(3), checked_seeds([7, 5]), checked_seeds(None)
    ([0, 1, 2], [7, 5], [0])
    """
    if seeds is None:
        return [0]
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        found = [whole("each of seeds", seed) for seed in seeds]
        if not found:
            raise UsageError("seeds is an empty list; expected at least one whole number")
        if len(set(found)) < len(found):
            twice = next(seed for seed in found if found.count(seed) > 1)
            raise UsageError(f"seeds has {twice} twice; expected each once")
        return found
    return list(range(whole("seeds", seeds, 1)))


def checked_grid(
    grid: Any, networks: Sequence[Network], training: Training
) -> dict[str, list[Any]]:
    """Return the grid as lists; refuse names that nothing takes, and empty lists.

    Raises
    ------
    UsageError
    """
    if grid is None:
        return {}
    if not isinstance(grid, Mapping):
        raise UsageError(f"grid is {shown(grid)}; expected a dict of lists: {{'lr': [0.1, 0.01]}}")
    rule = training.optimizer
    rules = [rule(1) if callable(rule) else rule or optim.AdamW()]
    if isinstance(choices := grid.get("optimizer"), Iterable):
        rules = list(choices)
        if not rules:
            raise UsageError("grid: optimizer is an empty list; expected at least one value")
        for rule in rules:
            if isinstance(rule, type) or not hasattr(rule, "rule"):
                raise UsageError(
                    f"grid: an optimizer is {shown(rule)}; expected one such as "
                    "xpnet.optim.Adam(0.001)"
                )
    settings = [_settings(rule) for rule in rules]
    known = {*TRAINERS, *settings[0].intersection(*settings[1:])}
    for network in networks:
        known |= {*network.arguments} - {"seed", "loss"}
    found = {}
    for name, values in grid.items():
        if name not in known:
            raise UsageError(
                f"grid has {shown(name)}; expected names of {', '.join(sorted(known))}"
                + ("; seeds have an argument of their own" if name in ("seed", "seeds") else "")
            )
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise UsageError(f"grid: {name} is {shown(values)}; expected a list of values")
        found[name] = [_plain_value(value) for value in values]
        if not found[name]:
            raise UsageError(f"grid: {name} is an empty list; expected at least one value")
        plain = [repr(value) for value in found[name]]
        if twice := [text for text in plain if plain.count(text) > 1]:
            raise UsageError(f"grid: {name} has {twice[0]} twice; expected each value once")
        for network in networks:
            if name in network.arguments or name in TRAINERS or name in set.union(*settings):
                continue
            raise UsageError(
                f"grid has {name}, a setting of xpnet.mlp, but a network was built by hand; leave "
                "it out, or give one network for each value"
            )
    return found


def _plain_value(value: Any) -> Any:
    """Return NumPy's numbers and arrays as Python's."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _settings(rule: Any) -> set[str]:
    return {each.name for each in fields(rule)} if is_dataclass(rule) else {"lr"}


def candidates(
    networks: Sequence[Network],
    grid: Mapping[str, list[Any]],
    seeds: Sequence[int] | None,
    parts: Callable[[Network, int], Sequence[tuple[int, int, int | None, Any]]],
    training: Training,
) -> list[Candidate]:
    """Return the models to train: networks, times settings, times seeds, times parts.

    Parameters
    ----------
    networks : sequence of Network
    grid : mapping of str to list
        From `checked_grid`.
    seeds : sequence of int, or None
        None keeps the networks as they are, and seed 0 for the order of the batches.
    parts : callable
        ``parts(network, seed)`` returns (part, samples, fold, group) for each part of the data.
    training : Training

    Raises
    ------
    UsageError
        A value is impossible; the message names it.
    """
    found: list[Candidate] = []
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for number, network in enumerate(networks):
        for settings in points:
            for seed in [0] if seeds is None else seeds:
                drawn = _built(network, settings, None if seeds is None else seed)
                for part, n, fold, group in parts(drawn, seed):
                    member = Member(len(found), settings, seed, fold, group, number)
                    found.append(_decided(member, drawn, part, n, training))
    return found


def _built(network: Network, settings: Mapping[str, Any], seed: int | None) -> Network:
    """Return a network with other arguments of its builder, and with the weights of a seed."""
    changes = {name: value for name, value in settings.items() if name in network.arguments}
    if not network.builder or (not changes and seed is None):
        return network
    if seed is not None:
        changes["seed"] = seed
    # Weights of your own stay: those that you gave, and without seeds all of them.
    same = changes.keys() <= SAME_WEIGHTS
    if same and (seed is None or _has_own_weights(network)):
        changes["params"] = network.values
    if "sizes" in changes and "activation" not in changes:
        sizes = changes["sizes"]
        if not isinstance(sizes, list | tuple):
            raise UsageError(f"grid: sizes has {shown(sizes)}; expected lists of sizes: [64, 10]")
        changes["activation"] = _activations(network, len(sizes))
    return BUILDERS[network.builder](**{**network.arguments, **changes})


def _has_own_weights(network: Network) -> bool:
    drawn = BUILDERS[network.builder](**network.arguments).params
    return any(not np.array_equal(p, network.params[name]) for name, p in drawn.items())


def _activations(network: Network, sizes: int) -> list[str]:
    """Return the activations of another number of layers; all hidden layers have one."""
    *hidden, last = network.arguments["activation"]
    return [*[hidden[0] if hidden else "relu"] * (sizes - 2), last]


def _decided(member: Member, network: Network, part: int, n: int, given: Training) -> Candidate:
    settings = {k: v for k, v in member.settings.items() if k not in network.arguments}
    batch_size = settings.pop("batch_size", given.batch_size)
    epochs = settings.pop("epochs", given.epochs)
    batch_size = None if batch_size is None else whole("batch_size", batch_size, 1)
    chosen = defaults(n, batch_size, convolution=network.convolves)
    epochs = chosen.epochs if epochs is None else whole("epochs", epochs, 1)
    l1 = settings.pop("l1", given.l1)
    clip = settings.pop("clip_norm", given.clip_norm)
    rule = settings.pop("optimizer", given.optimizer)
    if callable(rule):
        rule = rule(epochs * -(-n // chosen.batch_size))
    decay = given.weight_decay
    if rule is None:
        lr = settings.pop("lr", given.lr)
        decay = settings.pop("weight_decay", decay)
        if decay is not None:
            chosen = replace(chosen, weight_decay=real("weight_decay", decay, 0.0))
        if lr is not None:
            chosen = replace(chosen, lr=real("lr", lr, 0.0, ends="()"))
        rule = chosen.rule(epochs * -(-n // chosen.batch_size))
        decay = 0.0
    elif given.lr is not None:
        raise UsageError(f"lr is the optimizer's own: {type(rule).__name__}({given.lr:g})")
    own = _settings(rule)
    if "weight_decay" in settings and "weight_decay" not in own:
        decay = settings.pop("weight_decay")
    for name, value in settings.items():
        if name not in own:
            raise UsageError(
                f"grid: {type(rule).__name__} has no {name}; expected one of {listed(sorted(own))}"
            )
        rule = with_setting(rule, name, value)
    return Candidate(
        member,
        network,
        rule,
        real("weight_decay", decay or 0.0, 0.0),
        0.0 if l1 is None else real("l1", l1, 0.0),
        None if clip is None else real("clip_norm", clip, 0.0, ends="()"),
        chosen.batch_size,
        epochs,
        part,
    )
