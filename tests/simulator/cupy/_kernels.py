"""Kernels: the CUDA text itself, compiled for the CPU, and stricter about its arguments."""

import ctypes
import functools
import re

import numpy as np

from cupy import _build
from cupy._array import empty, ndarray
from cupy._errors import CompileException, CUDADriverError
from cupy._memory import MemoryPointer
from cupy._stream import submit

# The last two: some systems' checks forbid the jumps from stack to stack in cuda_on_cpu.h.
_OPTIONS = ["-O1", "-std=c++20", "-fwrapv", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]
_OPTIONS += ["-fno-stack-protector"]
_TOGETHER = re.compile(r"__sync(threads|warp)|__shfl_|__(ballot|any|all)_sync|__reduce_\w+_sync")
_C_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float16": "float16",
    "float32": "float",
    "float64": "double",
}


@functools.cache
def _compile(code, options=()):
    # A PyDLL keeps the interpreter's lock: threadIdx and its like are global variables.
    return ctypes.PyDLL(_build.build(code, "g++", [*_OPTIONS, *options], CompileException))


# --- ElementwiseKernel ---------------------------------------------------------------------------


class _Parameter:
    def __init__(self, text):
        *words, self.name = text.split()
        self.raw = words[:1] == ["raw"]
        (self.type,) = words[1:] if self.raw else words
        self.variable = len(self.type) == 1
        if self.name in ("n", "i") or self.name.startswith("_"):
            raise ValueError(f"Can't use reserved name: {self.name}")


def _parameters(text):
    return [_Parameter(p) for p in text.split(",") if p.strip()]


class ElementwiseKernel:
    def __init__(self, in_params, out_params, operation, name="kernel", reduce_dims=True,
                 preamble="", no_return=False, return_tuple=False, doc="", *, loop_prep="",
                 after_loop="", options=(), **other):  # fmt: skip
        self.in_params, self.out_params = _parameters(in_params), _parameters(out_params)
        self.params = (*self.in_params, *self.out_params)
        self.nin, self.nout = len(self.in_params), len(self.out_params)
        self.name, self.operation, self.preamble = name, operation, preamble
        self.no_return, self.return_tuple = no_return, return_tuple
        self._around = loop_prep, after_loop

    def __call__(self, *args, size=None, stream=None, block_size=128):
        if len(args) not in (self.nin, self.nin + self.nout):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                f"{self.nin + self.nout} (with outputs), but given {len(args)}."
            )
        for a in args:
            if not isinstance(a, ndarray | np.generic | bool | int | float):
                raise TypeError(f"Unsupported type {type(a)}")
        types = self._types(args)
        given, outs = args[: self.nin], list(args[self.nin :])
        pairs = list(zip(self.params, args, strict=False))
        if any(p.raw and not isinstance(a, ndarray) for p, a in pairs):
            raise TypeError("raw array must be an ndarray")
        shapes = [a.shape for p, a in pairs if isinstance(a, ndarray) and not p.raw]
        if size is None and not shapes:
            raise ValueError("Loop size is undecided.")
        if size is not None and shapes:
            raise ValueError("Specified 'size' can be used only if all of the ndarray are 'raw'.")
        inputs = shapes[: sum(isinstance(a, ndarray) and not p.raw for p, a in pairs[: self.nin])]
        shape = np.broadcast_shapes(*(inputs or shapes[:1])) if size is None else (size,)
        if not outs:
            if any(p.raw for p in self.out_params) and size is None:
                raise ValueError("Output array size is Undecided")
            outs = [empty(shape, types[p.type]) for p in self.out_params]
        for p, a in zip(self.out_params, outs, strict=True):
            if not p.raw and a.shape != shape:
                raise ValueError("Out shape is mismatched")

        values = []  # per parameter: an array, or a 0-d NumPy value that goes by value
        for p, a in zip(self.params, (*given, *outs), strict=True):
            scalar = not isinstance(a, ndarray)
            values.append(np.asarray(a, types[p.type]) if scalar else a._a)
        scalars = tuple(not isinstance(a, ndarray) for a in (*given, *outs))
        key = tuple(np.dtype(types[p.type]).name for p in self.params)
        run = _compile(self._code(key, scalars)).simulator_elementwise
        count = int(np.prod(shape))

        def compute():
            ready = []  # what the C loop reads and writes: contiguous, of the whole shape
            for p, v, scalar in zip(self.params, values, scalars, strict=True):
                whole = v if scalar or p.raw else np.broadcast_to(v, shape)
                ready.append(np.ascontiguousarray(whole).reshape(whole.shape))
            pointers = (ctypes.c_void_p * len(ready))(*(r.ctypes.data for r in ready))
            sizes = (ctypes.c_longlong * len(ready))(*(r.size for r in ready))
            run(pointers, sizes, ctypes.c_longlong(count))
            for v, r in zip(values[self.nin :], ready[self.nin :], strict=True):
                if v.ctypes.data != r.ctypes.data:  # the output is a view with gaps
                    v[...] = r

        if count:
            reads = [a._memory for a in given if isinstance(a, ndarray)]
            submit(f"kernel {self.name}", compute, reads, [a._memory for a in outs], stream)
        if self.no_return:
            return None
        return outs[0] if self.nout == 1 and not self.return_tuple else tuple(outs)

    def _types(self, args):
        """Type by name or letter; an array must have its parameter's own."""
        types = {p.type: np.dtype(p.type) for p in self.params if not p.variable}
        for p, a in zip(self.params, args, strict=False):
            if isinstance(a, ndarray) and types.setdefault(p.type, a.dtype) != a.dtype:
                raise TypeError(f"Type is mismatched. {p.name} {a.dtype} {types[p.type]}")
        for p, a in zip(self.params, args, strict=False):
            types.setdefault(p.type, np.asarray(a).dtype if not isinstance(a, ndarray) else None)
        unknown = [p.type for p in self.params if p.type not in types]
        if unknown:
            raise TypeError(f"type of {unknown[0]} is undecided")
        return types

    def _code(self, types, scalars):
        declared = []
        for i, (p, t, scalar) in enumerate(zip(self.params, types, scalars, strict=True)):
            c = _C_TYPES[t]
            const = "const " if i < self.nin else ""
            if p.raw:
                declared.append((f"Raw<{const}{c}> {p.name}{{({c} *)_p[{i}], _n[{i}]}};", ""))
            elif scalar:
                declared.append((f"const {c} {p.name} = *({c} *)_p[{i}];", ""))
            else:
                declared.append(("", f"{const}{c} &{p.name} = (({c} *)_p[{i}])[i];"))
        variables = {
            p.type: _C_TYPES[t] for p, t in zip(self.params, types, strict=True) if p.variable
        }
        aliases = "\n".join(f"typedef {c} {name};" for name, c in variables.items())
        outer = "\n    ".join(d[0] for d in declared if d[0])
        inner = "\n        ".join(d[1] for d in declared if d[1])
        return f"""#include "cuda_on_cpu.h"
{aliases}
{self.preamble}
extern "C" void simulator_elementwise(void **_p, long long *_n, long long n) {{
    {outer}
    {self._around[0]};
    for (long long i = 0; i < n; i++) {{
        {inner}
        {self.operation};
    }}
    {self._around[1]};
}}
"""


# --- RawKernel -----------------------------------------------------------------------------------


def _kernels(code):
    """The kernels of a text, by name: whether their threads work together."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", code, flags=re.S)
    found, outside, end = {}, [], 0
    for match in re.finditer(
        r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^)]*\)\s*)?(?:void\s+)?(\w+)\s*\(",
        plain,
    ):
        at = plain.index("{", match.end())
        outside.append(plain[end : match.start()])
        depth, end = 1, at + 1
        while depth:
            depth += {"{": 1, "}": -1}.get(plain[end], 0)
            end += 1
        found[match[1]] = bool(_TOGETHER.search(plain[at:end]))
    helpers = bool(_TOGETHER.search("".join([*outside, plain[end:]])))
    return {name: together or helpers for name, together in found.items()}


class RawModule:
    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc",
                 translate_cucomplex=False, enable_cooperative_groups=False,
                 name_expressions=None, jitify=False):  # fmt: skip
        if code is None or name_expressions:
            raise NotImplementedError('simulator: a RawModule needs `code`, of extern "C" kernels')
        self.code, self.options = code, tuple(options)
        self.cooperative = enable_cooperative_groups
        self._together = _kernels(code)

    def compile(self, log_stream=None):
        for name in self._together:
            self._library(name)

    def get_function(self, name):
        if name not in self._together:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return RawKernel(self.code, name, self.options, enable_cooperative_groups=self.cooperative)

    def _library(self, name):
        """Compiled by twos: kernels whose threads work together, and the others, which are fast."""
        together = self._together[name]
        code = re.sub(
            r"extern\s+__shared__\s+((?:__align__\s*\([^)]*\)\s*)?)([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;",
            r"static \2 *const \3 = (\2 *)simulator::dynamic;",
            self.code,
        )
        names = [n for n, t in self._together.items() if t == together]
        lines = [
            *(["#define SIMULATOR_FIBERS"] if together else []),
            '#include "cuda_on_cpu.h"',
            "#line 1",
            code,
            *(f"SIMULATOR_EXPORT({n})" for n in names),
        ]
        defines = tuple(o for o in self.options if re.match("-[DUI]", o))
        return _compile("\n".join(lines), defines)


# CuPy compiles equal texts once, so their kernels are one function of CUDA, with one limit.
_dynamic_limits = {}


class RawKernel:
    def __init__(self, code, name, options=(), backend="nvrtc", *, translate_cucomplex=False,
                 enable_cooperative_groups=False, jitify=False):  # fmt: skip
        self._module = RawModule(
            code, options=options, enable_cooperative_groups=enable_cooperative_groups
        )
        self.code, self.name, self.options = code, name, tuple(options)

    @property
    def max_dynamic_shared_size_bytes(self):
        return _dynamic_limits.get((self.code, self.name, self.options), 48 * 1024)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        _dynamic_limits[self.code, self.name, self.options] = size

    def compile(self, log_stream=None):
        self._load()

    @functools.cached_property
    def _types(self):
        text = ctypes.create_string_buffer(4096)
        self._load()[f"simulator_types_{self.name}"](text)
        return text.value.decode().split()

    def _load(self):
        if self.name not in self._module._together:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {self.name}")
        return self._module._library(self.name)

    def __call__(self, grid, block, args, *, shared_mem=0):
        grid, block = ((*g, 1, 1)[:3] for g in (grid, block))
        threads = int(np.prod(block))
        if not (0 < threads <= 1024 and block[2] <= 64 and min(grid) > 0 and max(grid[1:]) < 65536):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if shared_mem > min(self.max_dynamic_shared_size_bytes, 227 * 1024):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if self._module.cooperative and int(np.prod(grid)) > 1:
            raise NotImplementedError(
                f"simulator: {self.name}: a cooperative kernel of {np.prod(grid)} blocks; they run "
                "one after another, and the first would wait for the others forever"
            )
        if len(args) != len(self._types):
            raise TypeError(f"{self.name}: {len(args)} arguments for {len(self._types)} parameters")
        reads, writes, values, kept = [], [], [], []
        for i, (value, want) in enumerate(zip(args, self._types, strict=True)):
            where = f"{self.name}: argument {i + 1}"
            passed = _passed(value, want, where)
            kept.append(value._a if isinstance(value, ndarray) else value)
            if isinstance(value, ndarray | MemoryPointer):
                memory = value._memory if isinstance(value, ndarray) else value.mem
                kept.append(memory._root)
                (reads if want[0] == "c" else writes).append(memory)
            values.append(passed)
        launch = self._load()[f"simulator_launch_{self.name}"]
        launch.restype = ctypes.c_char_p
        geometry = (ctypes.c_uint * 6)(*grid, *block)
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))

        def compute(kept=(kept, values)):
            fault = launch(geometry, ctypes.c_size_t(shared_mem), pointers)
            if fault:
                raise RuntimeError(f"simulator: kernel {self.name}: {fault.decode()}")

        submit(f"kernel {self.name}", compute, reads, writes)


def _passed(value, want, where):
    """The bytes of an argument, as CuPy passes them; TypeError where the kernel wants others."""
    pointer = want[0] in "pc"
    wanted = want[1:] if pointer else want
    if isinstance(value, ndarray):
        if not pointer:
            raise TypeError(f"{where}: an array for a parameter of type {want}")
        if wanted not in ("V0", f"{value.dtype.kind}{value.itemsize}"):
            raise TypeError(f"{where}: {value.dtype} for a pointer to {wanted}")
        if not value.flags.c_contiguous:
            raise ValueError(f"{where}: the array is not C-contiguous, and CuPy passes no strides")
        return np.uint64(value._a.ctypes.data)[...]
    if isinstance(value, MemoryPointer):
        if not pointer:
            raise TypeError(f"{where}: a pointer for a parameter of type {want}")
        return np.uint64(value.ptr)[...]
    if type(value) in (bool, int, float):  # CuPy: a byte, a long long, a double
        value = {bool: np.bool_, int: np.int64, float: np.float64}[type(value)](value)
    if not isinstance(value, np.generic) and not (isinstance(value, np.ndarray) and not value.ndim):
        raise TypeError(f"Unsupported type {type(value)}")
    sort = {"u": "i"}.get(value.dtype.kind, value.dtype.kind)
    if pointer:
        good = sort == "i" and value.itemsize == 8
    else:
        good = (sort, value.itemsize) == (wanted[0].replace("u", "i"), int(wanted[1:]))
    if not good:
        raise TypeError(f"{where}: a {value.dtype} is passed, but the parameter is of type {want}")
    return np.asarray(value)
