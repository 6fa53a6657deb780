"""Optimizers, learning-rate schedules, penalties on weights and gradient clipping."""

# The names with an underscore are for pickles of when this room was one module.
from xpnet.optim.rules import (  # noqa: F401
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
    Watch,
    _Constant,
    _Cosine,
    _Exponential,
    _InverseTime,
    _Plateau,
    _StepDecay,
    _Warm,
    add_l1,
    add_weight_decay,
    clip_by_global_norm,
    clip_per_model,
    constant,
    cosine,
    exponential,
    init,
    inverse_time,
    plateau,
    step_decay,
    update,
)

__all__ = [
    "Optimizer", "SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW", "OPTIMIZERS",
    "PerModel", "init", "update", "add_weight_decay", "add_l1", "clip_by_global_norm",
    "clip_per_model", "constant", "step_decay", "exponential", "cosine", "inverse_time", "plateau",
    "Watch",
]  # fmt: skip
