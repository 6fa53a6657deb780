"""Finds NVIDIA's libraries; here the one that stands in for cuBLAS. `cuda` is a namespace."""

from types import SimpleNamespace


def load_nvidia_dynamic_lib(libname):
    if libname != "cublas":
        raise RuntimeError(f'Failure finding "lib{libname}.so"')
    from cupy import _cublas

    return SimpleNamespace(abs_path=_cublas.library(), found_via="simulator")
