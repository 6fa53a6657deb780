"""``python -m xpnet.predict``; the command itself is in `xpnet.commands.predict`."""

import sys

from xpnet.commands.exits import start

if __name__ == "__main__":
    sys.exit(start("predict"))
from xpnet.commands.predict import main as main  # in Python, where nothing is started
