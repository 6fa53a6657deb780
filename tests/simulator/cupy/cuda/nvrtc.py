# ruff: noqa: N802 - the name is CUDA's


def getVersion():
    raise NotImplementedError("simulator: there is no NVRTC, g++ compiles the kernels")
