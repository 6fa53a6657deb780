"""``python -m xpnet.explain``; the command itself is in `xpnet.commands.explain`."""

import sys

from xpnet.commands.exits import start

if __name__ == "__main__":
    sys.exit(start("explain"))
from xpnet.show.explain import explain

# `xpnet.explain` is a function. Python sets a package's attribute to what stands in sys.modules
# after an import of a submodule, so that an import of this file leaves the function there.
sys.modules[__name__] = explain  # type: ignore[assignment]
