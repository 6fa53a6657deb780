"""``python -m xpnet.gradcheck``; the command itself is in `xpnet.commands.gradcheck`."""

import sys

from xpnet.commands.exits import start

if __name__ == "__main__":
    sys.exit(start("gradcheck"))
from xpnet.commands.gradcheck import main as main  # in Python, where nothing is started
