"""``python -m xpnet.compare``; the command itself is in `xpnet.commands.compare`."""

import sys

from xpnet.commands.exits import start

if __name__ == "__main__":
    sys.exit(start("compare"))
from xpnet.commands.compare import main as main  # in Python, where nothing is started
