"""Training on several processes and machines: the group of processes that a launcher started."""

from xpnet.parallel.group import ALONE, Group, Outcome, world

__all__ = ["ALONE", "Group", "Outcome", "world"]
