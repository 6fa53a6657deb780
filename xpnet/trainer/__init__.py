"""Train a network: the step, the loop over an epoch, the history of a run, and resuming it."""

from xpnet.trainer.epochs import train_epoch
from xpnet.trainer.history import Epoch, History
from xpnet.trainer.one_call import fit
from xpnet.trainer.trainer import Trainer

__all__ = ["Epoch", "History", "Trainer", "fit", "train_epoch"]
