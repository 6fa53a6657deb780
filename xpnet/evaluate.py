"""``python -m xpnet.evaluate``; the command itself is in `xpnet.commands.evaluate`."""

import sys

from xpnet.commands.exits import start

if __name__ == "__main__":
    sys.exit(start("evaluate"))
