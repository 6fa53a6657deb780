"""A backend is an array library on a device, with its way to run an epoch.

Only this package imports CuPy, PyTorch and JAX, each when you select it. Layers never see a
backend: they take what they need from their arrays.
"""

from xpnet.backend.interface import Backend, Prepare, Run, Step

__all__ = ["Backend", "Prepare", "Run", "Step"]
