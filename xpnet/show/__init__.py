"""Show a network: draw its circuit, list its variables, plot its training."""
