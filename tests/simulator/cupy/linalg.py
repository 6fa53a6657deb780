from cupy._namespace import linalg as _linalg

globals().update(_linalg)
