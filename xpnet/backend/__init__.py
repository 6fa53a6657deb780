"""Backends: which array library computes, on which device, and how it runs an epoch.

This package is the only place that names CuPy, PyTorch or JAX, one file each, imported
when it is selected and not before. Layers never see it: their arrays tell them.
"""

from xpnet.backend.interface import Backend, Prepare, Run, Step

__all__ = ["Backend", "Prepare", "Run", "Step"]
