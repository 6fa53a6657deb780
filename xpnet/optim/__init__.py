"""Optimizers, learning-rate schedules, penalties on weights and gradient clipping.

An optimizer defines the update of one parameter: ``rule(p, g, lr, *slots)`` returns the new
parameter and its new slots (the velocity, the moments). `init` and `update` apply the rule to flat
dicts. A rule consumes the parameter and the slots: it writes into them if arrays are mutable, and
creates new arrays if they are not. A rule only reads gradients, because two parameters may share
one gradient array. An optimizer that needs the step number also defines ``rates(lr, step)``:
`update` calls it once per step and passes the result to ``rule`` instead of lr. ``squares`` names
slots that sum squares: a file in which one is negative is refused.

The rules are in `rules`, the rates in `schedules` and `plateaus`. `updating` has `init` and
`update`, `per_model` the rule of many models. `penalties` and `clipping` are what a step does to
the gradients before.

Symbols: p is a parameter, g its gradient, lr the learning rate, and k = 1, 2, ... the step.
"""

from xpnet.optim.clipping import clip_by_global_norm, clip_per_model
from xpnet.optim.penalties import add_l1, add_weight_decay
from xpnet.optim.per_model import PerModel

# The names with an underscore are for pickles of when this room was one module.
from xpnet.optim.plateaus import Watch, _Plateau, plateau  # noqa: F401
from xpnet.optim.rules import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSProp,
)
from xpnet.optim.schedules import (  # noqa: F401
    _Constant,
    _Cosine,
    _Exponential,
    _InverseTime,
    _StepDecay,
    _Warm,
    constant,
    cosine,
    exponential,
    inverse_time,
    step_decay,
)
from xpnet.optim.updating import init, update

__all__ = [
    "Optimizer", "SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW", "OPTIMIZERS",
    "PerModel", "init", "update", "add_weight_decay", "add_l1", "clip_by_global_norm",
    "clip_per_model", "constant", "step_decay", "exponential", "cosine", "inverse_time", "plateau",
    "Watch",
]  # fmt: skip
