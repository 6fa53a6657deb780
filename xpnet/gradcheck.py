"""``python -m xpnet.gradcheck``; the command itself is in `xpnet.commands.gradcheck`."""

import sys

from xpnet.commands.gradcheck import main

if __name__ == "__main__":
    sys.exit(main())
