"""``python -m xpnet.train``; the command itself is in `xpnet.commands.train`."""

import sys

from xpnet.commands.exits import start

if __name__ == "__main__":
    sys.exit(start("train"))
from xpnet.commands.train import main as main  # in Python, where nothing is started
