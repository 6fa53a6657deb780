"""Many networks at once: a grid, an ensemble, a cross-validation, a model for each group.

Networks of one form train together: every parameter has a first axis of models.
"""

from xpnet.many.ensemble import Ensemble
from xpnet.many.fit import fit_many
from xpnet.many.halving import halving
from xpnet.many.members import Member
from xpnet.many.model_set import ModelSet
from xpnet.many.planning import Plan, plan
from xpnet.many.training import Progress

__all__ = ["Ensemble", "Member", "ModelSet", "Plan", "Progress", "fit_many", "halving", "plan"]
