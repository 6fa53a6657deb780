"""What runs on a GPU, checked without one: on a simulated CuPy, and by NVIDIA's compiler.

`tests/simulator` is put in CuPy's place in processes of its own; its README says what it refuses
and what it cannot show.
"""

from __future__ import annotations

import ctypes
import json
import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import simulated

from benchmarks import mega
from xpnet.backend.cuda.fuse import C_TYPES, NUMBER, WHOLE_NUMBER, Kind, Untraceable, trace


def test_the_simulator_does_what_cupy_does() -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = simulated(*words, "tests/simulator/check_simulator.py")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_everything_for_a_gpu_passes_on_the_simulator() -> None:
    done = simulated("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests")
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 400
    assert "no CUDA GPU" not in done.stdout


def test_ranks_train_on_simulated_gpus() -> None:
    words = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        "-k",
        "as_one or none_does",
    ]
    done = simulated(*words, "tests/backend/test_nccl.py")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


def test_the_command_line_trains_on_the_simulator(tmp_path: Path) -> None:
    words = ["-m", "xpnet.train", "--hidden", "50", "--batch-size", "100", "--epochs", "3"]
    words += ["--device", "cuda", "--out", str(tmp_path / "a")]
    done = simulated(*words)
    assert done.returncode == 0, done.stderr
    assert "cupy 14.2.0 on cuda:0 (Simulated GPU" in done.stdout
    on_the_gpu = json.loads((tmp_path / "a/summary.json").read_text())
    done = simulated(*words[:-1], str(tmp_path / "b"), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    on_the_cpu = json.loads((tmp_path / "b/summary.json").read_text())
    assert abs(on_the_gpu["test_accuracy"] - on_the_cpu["test_accuracy"]) < 0.006


def test_what_the_simulator_offers_is_there_in_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    if hasattr(cupy, "simulator"):
        pytest.skip("this is the simulator")
    done = simulated("-c", "from cupy import simulator; print(*simulator.names())")
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(names) > 300
    for name in names:
        module, *path = name.split(".")
        value = import_module(module)
        for part in path:
            if not hasattr(value, part):
                value = import_module(f"{module}.{part}")  # a submodule
            value = getattr(value, part, value)


def test_the_simulator_s_nccl_is_cupy_s() -> None:
    """Names, parameters and numbers; CuPy's module loads where NCCL is installed."""
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    if hasattr(cupy, "simulator"):
        pytest.skip("this is the simulator")
    with warnings.catch_warnings(action="ignore"):
        nccl = import_module("cupy.cuda.nccl")
    if not nccl.available:
        pytest.skip("NCCL is not installed (nvidia-nccl-cu13)")
    script = """if True:
        import inspect, json
        from cupy.cuda import nccl
        kind = nccl.NcclCommunicator
        functions = {f"NcclCommunicator.{n}": getattr(kind, n) for n in vars(kind) if n[0] != "_"}
        functions |= {"NcclCommunicator": kind.__init__}
        functions |= {n: getattr(nccl, n) for n in ("get_unique_id", "get_version")}
        names = {n: list(inspect.signature(f).parameters) for n, f in functions.items()}
        numbers = {n: v for n, v in vars(nccl).items() if n.startswith("NCCL_")}
        print(json.dumps([names, numbers]))
    """
    done = simulated("-c", script)
    assert done.returncode == 0, done.stderr
    functions, numbers = json.loads(done.stdout)
    assert len(functions) == 6
    for name, expected in functions.items():
        value: Any = nccl
        for part in name.split("."):
            value = getattr(value, part)
        line = value.__doc__.splitlines()[0]  # "NcclCommunicator.abort(self)"
        words = re.findall(r"(\w+)(?:=\w+)?(?:,|$)", line[line.index("(") + 1 : line.rindex(")")])
        assert words == [word for word in expected if name != "NcclCommunicator" or word != "self"]
    assert numbers == {name: int(getattr(nccl, name)) for name in numbers}
    assert issubclass(nccl.NcclError, RuntimeError)
    assert isinstance(nccl.get_unique_id(), bytes)


# -- The text of the kernels -----------------------------------------------------------


def kernels() -> dict[str, str]:
    """CUDA C of every kind of kernel, as `xpnet.backend.cuda.kernels` writes it."""
    script = """if True:
        import json, sys
        sys.path[:0] = ["tests", "tests/backend"]
        import cupy, numpy as np, test_cuda, xpnet
        from xpnet import optim
        from xpnet.backend.cuda import kernels as k
        from xpnet.backend.cuda.fuse import C_TYPES
        from xpnet.arrays.dispatch import with_kernels
        texts = {}
        make_raw, make = cupy.RawKernel, cupy.ElementwiseKernel
        def raw(code, name):
            texts[f"{name} {len(texts)}"] = code
            return make_raw(code, name)
        names = {**C_TYPES, "uint16": "unsigned short", "float16": "float16"}
        def elementwise(inputs, outputs, body, name):
            parameters = [(names[p.split()[0]], p.split()[1]) for p in inputs.split(", ")]
            results = [(names[p.split()[0]], p.split()[1]) for p in outputs.split(", ")]
            arguments = [f"const {c}* _{n}" for c, n in parameters]
            arguments += [f"{c}* _{n}" for c, n in results]
            texts[f"{name} {len(texts)}"] = (
                "typedef float float16;\\n"
                f'extern "C" __global__ void {name}({", ".join(arguments)}) {{\\n'
                "int _i = blockIdx.x * blockDim.x + threadIdx.x;\\n"
                + "".join(f"{c} {n} = _{n}[_i];\\n" for c, n in parameters)
                + "".join(f"{c}& {n} = _{n}[_i];\\n" for c, n in results)
                + body + "\\n}"
            )
            return make(inputs, outputs, body, name)
        cupy.RawKernel, cupy.ElementwiseKernel = raw, elementwise
        cuda = xpnet.select("cuda")
        fresh = k.make_kernels("float32", [])
        for name in test_cuda.ARGUMENTS:
            module, _, attribute = name.rpartition(".")
            function = getattr(__import__(f"xpnet.{module}", fromlist=["_"]), attribute)
            for arguments in test_cuda.ARGUMENTS[name]:
                def on_the_gpu(a):
                    if isinstance(a, list):
                        return [on_the_gpu(each) for each in a]
                    return cuda.asarray(a.copy()) if isinstance(a, np.ndarray) else a
                with_kernels(function, fresh)(*map(on_the_gpu, arguments))
        for rule in test_cuda.RULES:
            p = {"W": cuda.asarray(np.ones((3, 2), "f4")), "b": cuda.asarray(np.ones(2, "f4"))}
            g = {name: a.copy() for name, a in p.items()}
            with_kernels(optim.update, fresh)(rule, g, optim.init(rule, p), p)
        for rule, varied in ((optim.SGD(0.1), ("lr",)), (optim.AdamW(0.1), ("lr", "beta1"))):
            rule, ones = optim.PerModel(rule, varied), lambda *shape: np.ones(shape, "f4")
            p = {"W": cuda.asarray(ones(4, 3, 2)), "b": cuda.asarray(ones(4, 2))}
            g = {name: a.copy() for name, a in p.items()}
            each = {name: cuda.asarray(0.5 * ones(4)) for name in rule.names}
            with_kernels(optim.update, fresh)(rule, g, optim.init(rule, p) | each, p)
        from xpnet.backend.cuda.gather import Gather
        from xpnet.backend.cuda.graphs import CupyGraphs
        from xpnet.backend.cuda.nccl import NcclSum
        from xpnet.parallel import ALONE as alone
        from xpnet.data import Scaling
        from xpnet.data.loader import Feed
        for dtype in ("float32", "float64"):
            for scaling in (None, Scaling(3.0, 0.1)):
                data = tuple(map(cuda.asarray, (np.ones((5, 3), "u1"), np.ones(5, "i4"))))
                rows = cuda.asarray(np.arange(2))
                Gather(Feed(cuda, dtype, scaling).prepare, [])(data, rows)
                weights = cuda.asarray(np.ones((2, 5), dtype))
                Gather(Feed(cuda, dtype, scaling).prepare, [])((*data, weights), rows)
            NcclSum(alone, 0)._packed([cuda.asarray(np.ones((), dtype))])
            CupyGraphs(0).stack([cuda.asarray(np.ones((), dtype))], cuda.asarray(np.ones(1, dtype)))
        print(json.dumps(texts))
    """
    done = simulated("-c", script)
    assert done.returncode == 0, done.stderr
    texts: dict[str, str] = json.loads(done.stdout)
    for units, threads in ((2, 512), (2, 1024)):
        shape = mega.Shape(784, 50, 10, 100, units, threads)
        texts[f"{mega.NAME} {threads}"] = mega.source(shape)
    return texts


@pytest.mark.parametrize("architecture", ["compute_75", "sm_90"])
def test_nvidia_s_compiler_takes_every_kernel(architecture: str) -> None:
    """NVRTC needs no GPU, and no driver."""
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder is not installed")
    try:
        path = pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path
    except RuntimeError:
        pytest.skip("NVRTC is not installed (nvidia-cuda-nvrtc)")
    nvrtc = ctypes.CDLL(path)
    texts = kernels()
    assert {name.split()[0] for name in texts} >= {
        "xpnet_update", "xpnet_softmax_cross_entropy", "xpnet_weighted_sum", "xpnet_sum_rows",
        "xpnet_gather", "xpnet_stack", "xpnet_add_bias_then", "xpnet_sigmoid", "xpnet_bits",
        "xpnet_rates", "xpnet_rates_per_model", "xpnet_pack",
        "xpnet_convolve", "xpnet_convolve_weights", "xpnet_columns", "xpnet_images", "xpnet_pad",
        "xpnet_max_pool", "xpnet_max_pool_backward",
        "xpnet_average_pool", "xpnet_average_pool_backward", "xpnet_sum_channels",
        "xpnet_product", "xpnet_to_bfloat16", "xpnet_to_float16", "xpnet_from_float16", mega.NAME,
    }  # fmt: skip
    for name, text in texts.items():
        program = ctypes.c_void_p()
        options = (ctypes.c_char_p * 2)(f"-arch={architecture}".encode(), b"-std=c++17")
        assert not nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None
        )
        status = nvrtc.nvrtcCompileProgram(program, 2, options)
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        assert status == 0, f"{name}:\n{text}\n{log.value.decode()}"
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


# -- Tracing ---------------------------------------------------------------------------

PAIR = [Kind("float32", 2), Kind("int32", 2)]


def test_a_traced_function_is_written_down_statement_by_statement() -> None:
    lines = trace(
        lambda x, y: (2.0 * x + y, x > 0), [None, None], [Kind("float32", 1), Kind("float32", 0)]
    )
    assert lines.statements == [
        "float t0 = (float)(x0 * (2.0f));",
        "float t1 = (float)(t0 + x1);",
        "bool t2 = x0 > (0.0f);",
    ]
    assert lines.outputs == [("t1", "float32", {0, 1}), ("t2", "bool", {0})]
    assert lines.form == (0, 1)


def test_dtypes_are_those_of_the_standard() -> None:
    """float32 with int32 is float64 to NumPy; whole numbers wrap around."""
    lines = trace(lambda x, k: (x * k, k * k), [None, None], PAIR)
    assert [output.dtype for output in lines.outputs] == [
        np.result_type(np.float32, np.int32).name, "int32",
    ]  # fmt: skip
    assert "(unsigned)x1 * (unsigned)x1" in lines.statements[1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, k: x if x > 0 else k,
        lambda x, k: x[0],
        lambda x, k: x + float("inf"),
        lambda x, k: x + np.ones(3),
        lambda x, k: k * 0.5,
        lambda x, k: k / k,
        lambda x, k: x & 3,
        lambda x, k: x.__array_namespace__().sum(x),
        lambda x, k: x.shape[0] * x,
        lambda x, k: "text",
        lambda x, k: float(x),
        lambda x, k: x * 1e39,
        lambda x, k: k + (1 << 40),
        lambda x, k: -(x > 0),
        lambda x, k: (x > 0) * 2,
        lambda x, k: k**2.0,
        lambda x, k: {}[k],
    ],
)
def test_what_cannot_be_fused_is_not_traced(function: object) -> None:
    with pytest.raises(Untraceable):
        trace(function, [None, None], PAIR)  # type: ignore[arg-type]


def test_a_number_takes_on_the_dtype_that_it_meets() -> None:
    kinds = [Kind("float32", 1), Kind("int32", 1), NUMBER, WHOLE_NUMBER]
    lines = trace(lambda x, k, a, n: (x * a, x * n, k * n, a + n), [None] * 4, kinds)
    assert [o.dtype for o in lines.outputs] == ["float32", "float32", "int32", "float32"]
    assert lines.statements[0] == "float t0 = (float)(x0 * ((float)x2));"
    with pytest.raises(Untraceable, match="a number of float64 with int32"):
        trace(lambda x, k, a, n: k * a, [None] * 4, kinds)


def test_every_type_that_is_computed_in_has_its_size() -> None:
    sizes = {"bool": 1, "unsigned char": 1, "signed char": 1, "int": 4, "long long": 8}
    for name, c_type in C_TYPES.items():
        assert np.dtype(name).itemsize == {**sizes, "float": 4, "double": 8}[c_type]
