"""Backends: which array library computes, on which device, and how it runs an epoch.

No other package imports CuPy, PyTorch or JAX, and this one imports each only when you select it.
Layers never see a backend: their arrays tell them what they need.
"""

from xpnet.backend.interface import Backend, Prepare, Run, Step

__all__ = ["Backend", "Prepare", "Run", "Step"]
