"""``python -m xpnet``: which commands there are."""

import xpnet

print(
    f"""xpnet {xpnet.__version__}

python -m xpnet.train       train a network
python -m xpnet.predict     predict with a trained one
python -m xpnet.explain     every variable of a network, its formula and shape; its picture
python -m xpnet.gradcheck   check a network's gradients

Each explains itself with --help."""
)
