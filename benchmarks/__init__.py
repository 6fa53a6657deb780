"""What xpnet is measured by; each module is a command, ``python -m benchmarks.train_step``."""
