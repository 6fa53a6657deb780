"""Benchmarks of xpnet. You run one as a command, such as ``python -m benchmarks.train_step``."""
