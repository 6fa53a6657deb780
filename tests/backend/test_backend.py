"""Choosing a device: what works, and one line about what does not. No GPU is needed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.backend.gpu import has_gpu
from xpnet.commands import train
from xpnet.errors import DeviceError, UsageError


class CUDARuntimeError(RuntimeError):
    """As CuPy's: a status and a text."""

    def __init__(self, status: int) -> None:
        names = {
            35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime",
            100: "cudaErrorNoDevice: no CUDA-capable device is detected",
        }
        super().__init__(names[status])
        self.status = status


class FakeArray:
    def reshape(self, *shape: int) -> FakeArray:
        return self

    def __add__(self, other: Any) -> FakeArray:
        return self

    def sum(self) -> float:
        return 44.0


class FakeDevice:
    mem_info = (1, 80 << 30)
    compute_capability = "90"

    def __init__(self, index: int) -> None:
        self.index = index

    def use(self) -> None:
        pass

    def __enter__(self) -> None:
        current.append(self.index)

    def __exit__(self, *error: Any) -> None:
        current.pop()


current: list[int] = []  # as CuPy's current device, a stack


def fake_cupy(*, status: int = 0, count: int = 1, driver: int = 13000, kernel: Any = None) -> Any:
    """CuPy on a machine whose driver answers so; `kernel` is raised by the first product."""
    cupy: Any = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"

    def devices() -> int:
        if status:
            raise CUDARuntimeError(status)
        return count

    def matmul(a: FakeArray, b: FakeArray) -> FakeArray:
        if kernel:
            raise kernel
        return a

    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=devices,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13020,
            getDeviceProperties=lambda index: {"name": b"NVIDIA H100 80GB HBM3"},
        ),
        Device=FakeDevice,
        memory=types.SimpleNamespace(OutOfMemoryError=MemoryError),
    )
    cupy.arange = lambda n, dtype: FakeArray()
    cupy.matmul = matmul
    cupy.asarray = cupy.asnumpy = np.asarray
    return cupy


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a module, or its absence (None), in CuPy's place."""

    def put(cupy: Any) -> None:
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        forget()
        if cupy is None:
            monkeypatch.delitem(sys.modules, "array_api_compat.cupy", raising=False)
        else:
            compat = types.ModuleType("array_api_compat.cupy")
            monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
            monkeypatch.setitem(sys.modules, "cupyx", types.ModuleType("cupyx"))
            kernels: Any = types.ModuleType("xpnet.backend.cuda.kernels")
            kernels.make_kernels = lambda precision, fallbacks: {"matmul": cupy.matmul}
            kernels.image_kernels = lambda products, sum_rows: {}
            monkeypatch.setitem(sys.modules, "xpnet.backend.cuda.kernels", kernels)

    def forget() -> None:
        # From both places: `from xpnet.backend import cupy` looks at the attribute first.
        # What they have imported holds on to CuPy too.
        for name in list(sys.modules):
            if name.startswith(("xpnet.backend.cupy", "xpnet.backend.cuda")):
                del sys.modules[name]
        for name in ("cupy", "cuda"):
            vars(xpnet.backend).pop(name, None)

    yield put
    forget()


class NoCupyFinder:
    """Makes `import cupy` fail as it does where CuPy is not installed."""

    def find_spec(self, name: str, *args: Any) -> None:
        if name == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'", name="cupy")


@pytest.fixture
def without_cupy(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(None)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(sys, "meta_path", [NoCupyFinder(), *sys.meta_path])


FAILURES = {
    "no driver": (
        fake_cupy(status=35, driver=0),
        "no usable CUDA GPU: the NVIDIA driver is missing or older than this CuPy needs; "
        "install a newer driver, or the CuPy wheel for yours (cupy-cuda12x, cupy-cuda13x) "
        "[driver none, CuPy 14.2.0 built for CUDA 13.2]",
    ),
    "old driver": (fake_cupy(status=35, driver=12040), "[driver 12.4, CuPy 14.2.0"),
    "no visible GPU": (
        fake_cupy(status=100),
        "no usable CUDA GPU: the driver sees no GPU; is CUDA_VISIBLE_DEVICES empty or wrong?",
    ),
    "no GPU counted": (fake_cupy(count=0), "the driver sees no GPU"),
    "no NVRTC": (
        fake_cupy(kernel=RuntimeError('Failure finding "libnvrtc.so.13"\nsearched in ...')),
        'a first kernel failed: RuntimeError: Failure finding "libnvrtc.so.13"; CuPy needs '
        "CUDA's own libraries: pip install 'cupy-cuda13x[ctk]'",
    ),
    "no cuBLAS": (
        fake_cupy(kernel=ImportError("libcublas.so.13: cannot open shared object file")),
        "ImportError: libcublas.so.13: cannot open shared object file",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_unusable_gpus_are_explained_in_one_line(
    install: Any, capsys: pytest.CaptureFixture[str], failure: str
) -> None:
    cupy, words = FAILURES[failure]
    install(cupy)
    with pytest.raises(DeviceError, match=re.escape(words)):
        xpnet.select("cuda")
    assert train.main(["--device", "cuda", "--dry-run"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("xpnet: ")
    assert err.count("\n") == 1


def test_cupy_not_installed(without_cupy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--device", "cuda", "--dry-run"]) == 3
    assert capsys.readouterr().err == (
        "xpnet: cupy is not installed: pip install 'cupy-cuda13x[ctk]' "
        "(driver 580 or newer; else 'cupy-cuda12x[ctk]')\n"
    )


def test_cupy_that_cannot_be_imported(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy frames a missing shared library with rules of equal signs."""

    class Broken:
        def find_spec(self, name: str, *args: Any) -> None:
            if name == "cupy":
                raise ImportError(f"\n{'=' * 40}\nFailed to import CuPy.\n\nlibcuda ...")

    install(None)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DeviceError, match="cannot be imported: Failed to import CuPy"):
        xpnet.select("cuda")


def test_a_gpu_that_is_not_there(install: Any) -> None:
    install(fake_cupy(count=2))
    assert xpnet.select("cuda:1").device == "cuda:1"
    with pytest.raises(
        DeviceError, match="cuda:2 does not exist: this machine has cuda:0 to cuda:1"
    ):
        xpnet.select("cuda:2")


def test_work_is_done_on_the_selected_gpu(install: Any) -> None:
    """Whatever another backend or thread has made the current device in the meantime."""
    seen = []
    cupy = fake_cupy(count=2)
    cupy.asarray = lambda a: seen.append(list(current)) or a
    install(cupy)
    backend = xpnet.select("cuda:1")
    xpnet.select("cuda:0")
    backend.asarray(np.ones(1))
    backend.compile(lambda: seen.append(list(current)))()
    assert seen == [[1], [1]]


def test_a_busy_gpu_is_not_told_to_install_anything(install: Any) -> None:
    busy = CUDARuntimeError(100)
    busy.status = 46
    install(fake_cupy(kernel=busy))
    with pytest.raises(DeviceError, match="exclusive use by another process; wait") as caught:
        xpnet.select("cuda")
    assert "pip" not in str(caught.value)


def test_a_gpu_that_computes_wrongly(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeArray, "sum", lambda self: 43.0)
    install(fake_cupy())
    with pytest.raises(DeviceError, match="expected 44, got 43"):
        xpnet.select("cuda")


def test_a_backend_names_itself(install: Any) -> None:
    install(fake_cupy())
    assert str(xpnet.select("cuda")) == "cupy 14.2.0 on cuda:0 (NVIDIA H100 80GB HBM3, 80.0 GiB)"
    numpy = xpnet.select("cpu")
    assert str(numpy).startswith(f"numpy {np.__version__} on cpu (")
    assert numpy.memory > 2**28


def test_auto_takes_cuda_and_says_so(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install(fake_cupy())
    assert xpnet.select().library == "cupy"
    assert capsys.readouterr().err.startswith("device auto: cupy 14.2.0 on cuda:0")


def test_auto_without_a_gpu_says_why(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install(fake_cupy(status=100))
    assert xpnet.select("auto").library == "numpy"
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"device auto: numpy .* on cpu \(.*\)"
        r"; not on cuda: no usable CUDA GPU: the driver sees no GPU\n",
        err,
    )


@pytest.mark.parametrize("gpu", [False, True])
def test_a_missing_library_is_named_only_where_a_gpu_is(
    without_cupy: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpu: bool,
) -> None:
    monkeypatch.setattr("xpnet.backend.select.has_gpu", lambda: gpu)
    backend = xpnet.select("auto")
    words = "not on cuda: cupy is not installed" if gpu else ""
    assert (backend.library, backend.note) == ("numpy", words)
    assert ("cupy" in capsys.readouterr().err) == gpu


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("dev/nvidia0", True), ("dev/nvidia12", True), ("dev/dxg", True),
        ("dev/nvhost-gpu", True), ("proc/driver/nvidia/gpus/0000:3b:00.0", True),
        ("dev/nvidiactl", False), ("dev/dri", False), ("proc/driver/nvidia/gpus", False),
    ],
)  # fmt: skip
def test_a_gpu_is_known_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, found: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_gpu(tmp_path)
    (tmp_path / path).mkdir(parents=True)
    assert has_gpu(tmp_path) == found
    tool = tmp_path / "nvidia-smi"
    tool.write_text("")
    tool.chmod(0o755)
    assert has_gpu(tmp_path)


@pytest.mark.parametrize(
    ("device", "library", "words"),
    [
        ("gpu", None, "device 'gpu': expected cpu, cuda, cuda:N or auto"),
        ("cuda:x", None, "device 'cuda:x'"),
        ("cpu", "tensorflow", "expected one of numpy, cupy, torch, jax, strict"),
        ("cuda", "numpy", "numpy runs on the CPU only"),
        ("cpu", "cupy", "cupy runs on CUDA only"),
    ],
)
def test_impossible_choices_are_refused(device: str, library: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        xpnet.select(device, library)


def test_jax_in_float64_has_to_be_asked_for() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    backend = xpnet.select("cpu", "jax")
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(UsageError, match="jax_enable_x64"):
            backend.asarray(np.ones(2))
        assert xpnet.select("cpu", "jax", "float64").asarray(np.ones(2)).dtype == np.float64
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_cuda_of_other_libraries_is_explained(library: str) -> None:
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    if library == "torch" and module.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match=f"(?i)no CUDA in {library}") as caught:
        xpnet.select("cuda", library)
    assert "\n" not in str(caught.value)


def test_import_is_light() -> None:
    """`import xpnet` brings in no GPU library, no plotting, no command line, no downloader."""
    program = (
        "import sys, xpnet\n"
        "heavy = {'cupy', 'torch', 'jax', 'matplotlib', 'tyro', 'pooch', 'requests', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_freed_memory_is_kept_between_steps() -> None:
    """Page faults, counted: without it, each step of this network has some 450."""
    code = """
import ctypes, resource, sys
import numpy as np
import xpnet
if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit(77)
trainer = xpnet.Trainer(xpnet.mlp([784, 256, 10]), xpnet.optim.SGD(0.1))
x, t = np.zeros((128, 784), np.uint8), np.zeros(128, np.int32)
order = np.zeros((50, 128), np.int32)
def run():
    steps = trainer.run(trainer.params, trainer.state, (x, t), order)
    for trainer.params, trainer.state, _ in steps:
        pass
run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50 * 10


def test_the_users_own_memory_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpnet.backend.cpu import keep_freed_memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()


def test_jax_s_memory_that_is_used_up_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    from xpnet.backend import jax as backend

    device = types.SimpleNamespace(
        device_kind="GPU", memory_stats=lambda: {"bytes_limit": 8 << 30, "bytes_in_use": 7 << 30}
    )

    def full(array: Any, device: Any) -> Any:
        message = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2147483648 bytes."
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax, "devices", lambda kind: [device])
    monkeypatch.setattr(jax, "device_put", full)
    opened = backend.JAX("cuda", 0)
    assert (opened.memory, opened.free_memory()) == (8 << 30, 1 << 30)
    words = r"cuda:0 is out of memory: 2.0 GiB more are needed, 1.0 GiB of 8.0 GiB are free"
    with pytest.raises(DeviceError, match=words):
        opened.asarray(np.ones(1, np.float32))
