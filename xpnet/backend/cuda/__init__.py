"""What CuPy needs besides its arrays: kernels, products, graphs, memory."""
