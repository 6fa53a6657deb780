"""``python -m xpnet.predict``; the command itself is in `xpnet.commands.predict`."""

import sys

from xpnet.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
