"""The parts of the CuPy backend: kernels, matrix products, graphs, uploads."""
