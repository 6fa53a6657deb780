"""``python -m xpnet``: the commands; see `xpnet.commands.main`."""

import sys

from xpnet.commands.main import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m xpnet"))
