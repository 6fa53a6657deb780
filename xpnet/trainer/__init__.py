"""Training: the step, epochs of steps, what a run has done, and how it goes on."""

from xpnet.trainer.epochs import train_epoch
from xpnet.trainer.history import Epoch, History
from xpnet.trainer.trainer import Trainer

__all__ = ["Epoch", "History", "Trainer", "train_epoch"]
