"""``python -m xpnet.train``; the command itself is in `xpnet.commands.train`."""

import sys

from xpnet.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
