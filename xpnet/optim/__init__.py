"""Optimizers, learning-rate schedules, penalties on weights and gradient clipping."""

from xpnet.optim.clipping import clip_by_global_norm, clip_per_model
from xpnet.optim.penalties import add_l1, add_weight_decay

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
    PerModel,
    RMSProp,
    init,
    update,
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

__all__ = [
    "Optimizer", "SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW", "OPTIMIZERS",
    "PerModel", "init", "update", "add_weight_decay", "add_l1", "clip_by_global_norm",
    "clip_per_model", "constant", "step_decay", "exponential", "cosine", "inverse_time", "plateau",
    "Watch",
]  # fmt: skip
