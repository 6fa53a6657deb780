"""``python -m xpnet``: which commands there are."""

import sys

import xpnet
from xpnet.commands.exits import emit, run

COMMANDS = f"""xpnet {xpnet.__version__}

python -m xpnet.train       train a network
python -m xpnet.predict     predict with a trained one
python -m xpnet.explain     every variable of a network, its formula and shape; its picture
python -m xpnet.gradcheck   check a network's gradients

Each explains itself with --help.
"""


def command() -> int:
    emit(COMMANDS)
    return 0


if __name__ == "__main__":
    sys.exit(run(command))
