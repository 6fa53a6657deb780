"""The libraries that every gate is tested on, one fixture parameter each."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Float64 on JAX has to be asked for before its first array.
os.environ.setdefault("JAX_ENABLE_X64", "1")
# SciPy reads this on import; scikit-learn's checks of arrays that are not NumPy's need it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

from xpnet.backend.select import select

# A stand-in for CuPy, that must not be found by chance: `test_simulator` puts it in its place. And
# scripts that take minutes.
collect_ignore = ["simulator", "campaigns"]


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@dataclass(frozen=True)
class Library:
    """One way of running the array code."""

    name: str
    xp: Any
    asarray: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray] = np.array
    device: Any = None
    float64: bool = True
    jit: Callable[[Callable[..., Any]], Callable[..., Any]] = _identity


def usable_cupy() -> Any:
    """CuPy, where there is a GPU; with XPNET_NEED_GPU set, the lack of one is a failure."""
    missing = pytest.fail if os.environ.get("XPNET_NEED_GPU") else pytest.skip
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError:
        missing("cupy is not installed")
    if not cupy.is_available():
        missing("no CUDA GPU")
    return cupy


@pytest.fixture(autouse=True, scope="session")
def few_products_thread_by_thread() -> Iterator[None]:
    """The simulator runs a kernel's threads one by one: there, only tiny products are for ours."""
    with pytest.MonkeyPatch.context() as patch:
        spec = importlib.util.find_spec("cupy")
        if spec is not None and "simulator" in str(spec.origin):
            patch.setattr("xpnet.backend.cuda.products.MOST_OPERATIONS", 5_000)
        yield


def _readonly(array: np.ndarray) -> np.ndarray:
    view = np.array(array).view()
    view.flags.writeable = False
    return view


def _open(name: str) -> Library:
    if name.startswith("numpy"):
        import array_api_compat.numpy as xp

        return Library(name, xp, _readonly if name == "numpy-readonly" else np.array)
    if name.startswith("strict"):
        import array_api_strict as strict

        device = strict.Device({"strict": "CPU_DEVICE"}.get(name, name.removeprefix("strict-")))
        return Library(
            name,
            strict,
            lambda a: strict.asarray(np.array(a), device=device),
            # numpy refuses arrays of the referee's other devices, as it should
            lambda a: np.array(strict.asarray(a, device=strict.Device("CPU_DEVICE"))),
            device,
            float64=name != "strict-no_float64",
        )
    if name == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    elif name.startswith("jax"):
        jax = pytest.importorskip("jax", reason="jax is not installed")
    else:
        usable_cupy()
        assert type(select("cuda").asarray(np.ones(1))).__module__.startswith("cupy")
    opened = select("cuda" if name == "cupy" else "cpu", name.split("-")[0])
    return Library(
        name,
        opened.xp,
        lambda a: opened.asarray(np.array(a)),
        opened.to_numpy,
        jit=jax.jit if name == "jax-jit" else _identity,
    )


LIBRARIES = [
    "numpy",
    "numpy-readonly",
    "strict",
    "strict-device1",
    "strict-no_float64",
    "torch",
    "jax",
    "jax-jit",
    pytest.param("cupy", marks=pytest.mark.gpu),
]
open_library = functools.cache(_open)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    return open_library(request.param)


# The backends of `xpnet.select`, for whole networks.
BACKENDS = ["numpy", "strict", "torch", "jax", pytest.param("cupy", marks=pytest.mark.gpu)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    import xpnet

    name = request.param
    package = "array_api_strict" if name == "strict" else name
    if name == "cupy":
        usable_cupy()
    pytest.importorskip(package, reason=f"{package} is not installed")
    return xpnet.select("cuda" if name == "cupy" else "cpu", name, "float64")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST: $XPNET_MNIST, or shared/data/mnist beside or in the project."""
    root = Path(__file__).resolve().parents[1]
    places = [root.parent / "shared/data/mnist", root / "shared/data/mnist"]
    if "XPNET_MNIST" in os.environ:
        places.insert(0, Path(os.environ["XPNET_MNIST"]))
    for place in places:
        if (place / "train-images-idx3-ubyte.gz").exists():
            return place
    pytest.skip("the MNIST files are not here; name their folder in XPNET_MNIST")


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
