"""The array: NumPy underneath, CuPy's manners.

Everything that computes goes through `apply`, which calls a function of NumPy's. While a stream
captures, that result only gives shapes and dtypes: it is overwritten with NaN, and the function
is called again, on the same memory, whenever the graph is launched.
"""

# ruff: noqa: N802, SIM905 - the names are CuPy's; lists of names are easier to read as text

import operator

import numpy as np

from cupy import simulator
from cupy._memory import Memory, MemoryPointer, reserve
from cupy._stream import download, get_current_stream, submit, upload

_IMPLICIT = (
    "Implicit conversion to a NumPy array is not allowed. "
    "Please use `.get()` to construct a NumPy array explicitly."
)
_BLAS = {"matmul", "dot", "tensordot", "inner", "vdot", "einsum"}
_JOINING = set("concat concatenate stack hstack vstack dstack column_stack".split())
# Their results' shapes, or what they do, depend on values: CuPy reads those on the host.
_COUNTING = set(
    "argwhere bincount compress extract flatnonzero intersect1d nonzero setdiff1d trim_zeros "
    "union1d unique unique_all unique_counts unique_inverse unique_values".split()
)
_WRITING = set("copyto fill_diagonal put put_along_axis putmask".split())  # into the first argument


class ndarray:
    __slots__ = ("__weakref__", "_a", "_memory")
    __array_ufunc__ = None  # a NumPy operand on the left gives way, and is refused below
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is None:
            memptr = empty(shape, dtype, order).data
        self._memory = memptr.mem
        offset = memptr.ptr - memptr.mem.ptr
        self._a = np.ndarray(shape, dtype, memptr.mem._bytes(), offset, strides, order)

    @property
    def data(self):
        return MemoryPointer(self._memory, self._a.ctypes.data - self._memory.ptr)

    @property
    def device(self):
        from cupy.cuda import Device

        return Device()

    @property
    def base(self):
        root = self._memory._root
        return None if self._a is root else _wrap(root, self._memory)

    @property
    def T(self):
        return _wrap(self._a.T, self._memory)

    @property
    def mT(self):
        return _wrap(self._a.mT, self._memory)

    # Copies between host and device.
    def get(self, stream=None, order="C", out=None, blocking=True):
        download([self._memory], stream)
        if out is None:
            return np.array(self._a, order=order)
        np.copyto(out, self._a)
        return out

    def set(self, arr, stream=None):
        arr = np.asarray(arr)
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype.name} array cannot be set to {self.dtype.name} array")
        upload(lambda: np.copyto(self._a, arr), self._memory, stream)

    def item(self, *index):
        return self.get().item(*index)

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __array__(self, dtype=None, copy=None):
        raise TypeError(_IMPLICIT)

    def __deepcopy__(self, memo):
        return self.copy()

    # Without computing.
    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def view(self, dtype=None):
        return _wrap(self._a.view(dtype or self.dtype), self._memory)

    def reshape(self, *shape, order="C"):
        return apply("copy", np.reshape, self, _one(shape), order=order)

    def transpose(self, *axes):
        return _wrap(self._a.transpose(*axes), self._memory)

    # Computing.
    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return apply("astype", lambda a: a.astype(dtype, order=order), self)

    def copy(self, order="C"):
        return apply("copy", lambda a: a.copy(order), self)

    def fill(self, value):
        self[...] = value  # of zeros, in a dense array: a memset

    def __getitem__(self, key):
        key, arrays = self._key(key)
        if not arrays:  # the Ellipsis makes a view even of a single element
            view = self._a[key if any(k is Ellipsis for k in key) else (*key, Ellipsis)]
            return _wrap(view, self._memory)
        return apply("getitem", lambda a, *k: a[k], self, *key)

    def __setitem__(self, key, value):
        key, arrays = self._key(key)
        memories = [a._memory for a in arrays]
        on_device = isinstance(value, ndarray)
        value, key = _plain(value, memories), _plain(key, [])
        self._a[key].__class__  # noqa: B018 - an index that does not exist is refused now
        if np.ndim(value):
            np.broadcast_to(value, self._a[key].shape)
        if not _capturing():
            self._a[key] = value
        name, kind = "copy" if np.ndim(value) else "fill", "KERNEL"
        if arrays:
            name = f"scatter {name}"
        else:
            kind = _kind_of_write(self._a[key], value, on_device)
        if kind is not None:
            later = (lambda: self._a.__setitem__(key, value)) if _capturing() else None
            submit(name, later, memories, [self._memory], kind=kind)

    def _key(self, key):
        """The index as a tuple, and the arrays in it; out-of-range elements wrap around."""
        key = list(key) if isinstance(key, tuple) else [key]
        arrays, axis = [], 0
        used = sum(k is not None and k is not Ellipsis for k in key)
        for i, k in enumerate(key):
            if isinstance(k, list | np.ndarray) and np.ndim(k):
                k = key[i] = asarray(k, dtype=None if len(k) else int)
            if isinstance(k, ndarray):
                arrays.append(k)
                if k.dtype == bool:
                    download([k._memory])
                    axis += k.ndim
                    continue
                size = self.shape[axis] if axis < self.ndim else 1
                key[i] = apply("wrap", lambda a, n: a % n, k, max(size, 1))
                arrays.append(key[i])
            if k is Ellipsis:
                axis += self.ndim - used
            elif k is not None:
                axis += 1
        return tuple(key), arrays


for _name in "shape dtype ndim size nbytes itemsize strides flags".split():
    setattr(ndarray, _name, property(operator.attrgetter(f"_a.{_name}")))


def _capturing():
    return get_current_stream()._capture is not None


def _one(arguments):
    return arguments[0] if len(arguments) == 1 else arguments


def _plain(x, memories):
    """An argument as NumPy's, the memory of its arrays added to `memories`."""
    if isinstance(x, ndarray):
        memories.append(x._memory)
        return x._a
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, list | tuple):
        return type(x)(_plain(i, memories) for i in x)
    return x


def _kind_of_write(target, value, on_device):
    """What ``target[...] = value`` is on a GPU: a node's kind; None where nothing is done.

    `_scatter_op` in CuPy's _core/_routines_indexing.pyx, and `fill` in its _core/core.pyx.
    """
    dense = target.flags.c_contiguous
    if not on_device:
        return "MEMSET" if dense and value == 0 else "KERNEL"
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    if (value.shape, value.strides) == (target.shape, target.strides):
        if value.ctypes.data == target.ctypes.data:
            return None  # as after x[1:] += 1
        if dense and value.dtype == target.dtype:
            return "MEMCPY"
    return "KERNEL"


def _poison(a):
    a[...] = np.nan if a.dtype.kind in "fc" else 0


def _wrap(a, memory=None):
    """A NumPy array as ours; without `memory`, one that nobody else knows of."""
    new = object.__new__(ndarray)
    new._a = a = np.asarray(a)
    if memory is None:
        root = a
        while isinstance(root.base, np.ndarray):
            root = root.base
        reserve(root.nbytes)
        memory = Memory(root)
        memory.capture = get_current_stream()._capture
    new._memory = memory
    return new


def _leaves(x):
    """The arrays among a function's results, in order."""
    if isinstance(x, tuple | list):
        return [leaf for i in x for leaf in _leaves(i)]
    return [np.asarray(x)] if isinstance(x, np.ndarray | np.generic | bool | int | float) else []


def _adopt(x, memories, new):
    """A function's results as ours; those that are no views of its arguments are added to `new`."""
    if isinstance(x, tuple | list):
        items = [_adopt(i, memories, new) for i in x]
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if not _leaves(x):
        return x
    x = np.asarray(x)
    for memory in memories:
        if np.may_share_memory(x, memory._root):
            return _wrap(x, memory)
    new.append(_wrap(x))
    return new[-1]


def apply(name, function, *args, out=None, **kwargs):
    """Call a NumPy function on our arrays, now or when the graph is launched."""
    memories, arrays = [], []
    plain = tuple(_plain(a, memories) for a in args)
    kwargs = {k: _plain(v, memories) for k, v in kwargs.items()}
    capturing = get_current_stream()._capture
    out = _one(out) if isinstance(out, tuple) else out
    if out is not None:
        if not isinstance(out, ndarray):
            raise TypeError(f"Unsupported type {type(out)}")
        with np.errstate(all="ignore"):  # in a capture, only to see whether it can be done
            target = np.empty_like(out._a) if capturing else out._a
            function(*plain, out=target, **kwargs)
        again = (lambda: function(*plain, out=out._a, **kwargs)) if capturing else None
        submit(name, again, memories, [out._memory])
        return out

    with np.errstate(all="ignore"):
        result = function(*plain, **kwargs)
    adopted = _adopt(result, memories, arrays)
    fresh = [a._a for a in arrays]
    if not fresh:
        return adopted
    if capturing:
        for a in fresh:
            _poison(a)

    def replay():
        leaves = _leaves(function(*plain, **kwargs))
        for target, value in zip(fresh, leaves, strict=True):
            np.copyto(target, value)

    submit(name, replay if capturing else None, memories, [a._memory for a in arrays])
    return adopted


# --- Creation ----------------------------------------------------------------------------------


def _kind(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def empty(shape, dtype=float, order="C"):
    shape = shape if isinstance(shape, tuple | list) else (operator.index(shape),)
    size = int(np.prod([operator.index(n) for n in shape], dtype=object)) * _kind(dtype).itemsize
    reserve(size)
    a = np.empty(shape, dtype, order)
    _poison(a)  # whoever reads it before it is written shall notice
    return _wrap(a)


def full(shape, fill_value, dtype=None, order="C"):
    if dtype is None:
        dtype = getattr(fill_value, "dtype", None) or np.array(fill_value).dtype
    return _filled(empty(shape, dtype, order), fill_value)


def _filled(new, value, kind="KERNEL"):
    """A new array, filled; zeros() does it by a memset, full() and ones() by a kernel."""
    memories = []
    value = _plain(value, memories)
    submit("fill", lambda: new._a.__setitem__(..., value), memories, [new._memory], kind=kind)
    return new


def zeros(shape, dtype=float, order="C"):
    return _filled(empty(shape, dtype, order), 0, "MEMSET")


def ones(shape, dtype=float, order="C"):
    return _filled(empty(shape, dtype, order), 1)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    fortran = "F" if order == "K" and prototype.flags.fnc else "C"
    shape = prototype.shape if shape is None else shape
    return empty(shape, dtype or prototype.dtype, fortran)


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    return _filled(empty_like(a, dtype, order, None, shape), fill_value)


def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
    return _filled(empty_like(a, dtype, order, None, shape), 0, "MEMSET")


def ones_like(a, dtype=None, order="K", subok=None, shape=None):
    return full_like(a, 1, dtype, order, subok, shape)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        return obj.copy() if copy and dtype in (None, obj.dtype) else obj.astype(
            dtype or obj.dtype, copy=bool(copy)
        )  # fmt: skip
    if isinstance(obj, list | tuple) and any(isinstance(i, ndarray) for i in obj):
        return namespace["stack"]([asarray(i) for i in obj]).astype(
            dtype or np.result_type(*(i.dtype for i in obj)), copy=False
        )
    a = np.array(obj, dtype=dtype, order=order, ndmin=ndmin)
    _kind(a.dtype)
    if a.ndim == 0:  # a fill, by value
        new = empty((), a.dtype)
        new.fill(a[()])
        return new
    if get_current_stream()._capture is None:
        reserve(a.nbytes)
    else:
        upload(None, None)
    new = _wrap(a)
    upload(lambda: None, new._memory)
    return new


def asarray(a, dtype=None, order=None, *, blocking=False, copy=None):
    return array(a, dtype, copy=bool(copy), order=order or "K")


asanyarray = asarray


def ascontiguousarray(a, dtype=None):
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy("C")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)


# --- Functions of NumPy's ------------------------------------------------------------------------

# Those of CuPy's that compute with arrays. Names that this NumPy lacks are left out.
_FUNCTIONS = """
abs absolute acos acosh add arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan
atan2 atanh bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor cbrt ceil conj conjugate copysign cos cosh deg2rad degrees divide
divmod equal exp exp2 expm1 fabs float_power floor floor_divide fmax fmin fmod frexp gcd greater
greater_equal heaviside hypot invert isfinite isinf isnan lcm ldexp left_shift less less_equal log
log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor matmul maximum
minimum mod modf multiply negative nextafter not_equal positive pow power rad2deg radians
reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract tan tanh
true_divide trunc

all allclose amax amin angle any append arange argmax argmin argpartition argsort argwhere around
array_equal array_split atleast_1d atleast_2d atleast_3d average bincount broadcast_arrays
broadcast_to choose clip column_stack compress concat concatenate convolve copy copyto
count_nonzero cov cross cumprod cumsum cumulative_prod cumulative_sum diag diagflat diagonal diff
digitize dot dsplit dstack einsum expand_dims extract eye fill_diagonal fix flatnonzero flip fliplr
flipud gradient hsplit hstack identity imag indices inner interp intersect1d isclose isin isneginf
isposinf kron lexsort linspace logspace matrix_transpose max mean median meshgrid min moveaxis
nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanprod nanstd
nansum nanvar nonzero outer packbits pad partition percentile permute_dims prod ptp put
put_along_axis putmask quantile ravel real repeat reshape roll rollaxis rot90 round searchsorted
select setdiff1d setxor1d sinc sort split squeeze stack std sum swapaxes take take_along_axis
tensordot tile trace transpose trapezoid tri tril trim_zeros triu union1d unique unique_all
unique_counts unique_inverse unique_values unpackbits unravel_index unwrap vander var vdot vsplit
vstack where
""".split()
# Those that say something about arrays and compute nothing.
_FACTS = """
array_equiv broadcast_shapes can_cast common_type iscomplexobj isdtype isfortran isrealobj isscalar
issubdtype may_share_memory min_scalar_type ndim promote_types result_type shape shares_memory size
""".split()
_DTYPES = """
bool bool_ byte cdouble complex128 complex64 complexfloating csingle double dtype finfo float16
float32 float64 floating generic half iinfo inexact int16 int32 int64 int8 int_ intc integer intp
long longlong number short signedinteger single ubyte uint uint16 uint32 uint64 uint8 uintc uintp
ulong ulonglong unsignedinteger ushort e euler_gamma inf nan newaxis pi
""".split()
_SEQUENCES = set(
    "append array_split broadcast_arrays column_stack concat concatenate dstack einsum eye hstack "
    "identity indices lexsort meshgrid ndim select stack tri vstack".split()
)


def _function(name, original, blas=False):
    """NumPy's function on our arrays, with CuPy's refusals."""
    ufunc = isinstance(original, np.ufunc)
    adapted = {
        "take": lambda a, indices, **k: np.take(a, indices, **{**k, "mode": "wrap"}),
        "take_along_axis": lambda a, i, axis=None: np.take_along_axis(
            a, i % a.shape[-1 if axis is None else axis], axis
        ),
    }.get(name, original)

    def function(*args, out=None, **kwargs):
        if name not in _SEQUENCES and args and isinstance(args[0], list | tuple):
            raise TypeError(f"Unsupported type {type(args[0])}")
        if name == "take" and len(args) == 3:
            args, kwargs = args[:2], {"axis": args[2], **kwargs}
        if ufunc and len(args) > original.nin:
            args, out = args[: original.nin], args[original.nin]
        everything = [*args, *kwargs.values()]
        if get_current_stream()._capture and (
            blas
            or (
                name in _BLAS
                and any(isinstance(a, ndarray) and a.dtype.kind in "fc" for a in everything)
            )
        ):
            raise NotImplementedError(
                "calling cuBLAS API during stream capture is currently unsupported"
            )
        if name in _COUNTING or (name == "where" and len(everything) == 1):
            memories = []
            _plain(everything, memories)
            download(memories)
        if name in _WRITING:
            memories = []
            plain = _plain(args, memories)
            fixed = {k: _plain(v, memories) for k, v in kwargs.items()}
            dense = name == "copyto" and _copied_as_it_lies(*plain, **fixed)
            kind = "MEMCPY" if dense else "KERNEL"
            submit(name, lambda: original(*plain, **fixed), memories, memories[:1], kind=kind)
            return None
        if name == "mean" and out is None and _divides(*args, **kwargs):
            total = namespace["sum"](*args, **kwargs)
            return namespace["true_divide"](total, args[0].size // total.size, out=total)
        result = apply(name, adapted, *args, out=out, **kwargs)
        if name in _JOINING:
            _join(name, args[0], result.dtype)
        return result

    function.__name__ = function.__qualname__ = name
    return function


def _copied_as_it_lies(target, source, **rest):
    """`_can_memcpy` in CuPy's _manipulation/basic.py."""
    if not isinstance(source, np.ndarray) or not source.ndim or rest:
        return False
    both = source.flags, target.flags
    dense = all(f.c_contiguous for f in both) or all(f.f_contiguous for f in both)
    return dense and (source.dtype, source.size) == (target.dtype, target.size)


def _join(name, arrays, dtype):
    """What joining costs beside its first node: `_concatenate` in _core/_routines_manipulation.pyx.

    Up to eight arrays are copied one by one. More, if they are small and of the result's dtype, by
    one kernel that reads a table of their addresses, which the host uploads; with a second table of
    their sizes and a third of their strides, unless they are dense and of one size along the axis.
    """
    small = sum(a.size for a in arrays) * dtype.itemsize < (2 << 20) * len(arrays)
    if len(arrays) > 8 and small and {a.dtype for a in arrays} == {dtype}:
        alike = all(a.flags.c_contiguous for a in arrays) and len({a.shape for a in arrays}) == 1
        for _ in range(1 if alike else 3):
            asarray(np.zeros(len(arrays), np.int64))
        return
    for _ in arrays[1:]:
        submit(name, lambda: None)


def _divides(a, axis=None, dtype=None, keepdims=False):
    """Whether the mean is CUB's sum and a division: `_ndarray_mean` in _routines_statistics.pyx.

    CUB adds up whole arrays and, of dense ones, whole rows; else it is one kernel of CuPy's own.
    """
    dense = a.flags.c_contiguous or a.flags.f_contiguous
    if not (dense and a.size and a.dtype.kind == "f" and a.itemsize >= 4):
        return False
    axes = range(a.ndim) if axis is None else np.atleast_1d(axis) % a.ndim
    last = range(a.ndim - len(axes), a.ndim) if a.flags.c_contiguous else range(len(axes))
    return dtype in (None, a.dtype) and (len(axes) == a.ndim or sorted(axes) == list(last))


def _fact(original):
    return lambda *args, **kwargs: original(
        *_plain(args, []), **{k: _plain(v, []) for k, v in kwargs.items()}
    )


# Not this module's globals: Python's own abs, all, any, max, ... are needed here.
namespace = (
    {n: _function(n, getattr(np, n)) for n in _FUNCTIONS if hasattr(np, n)}
    | {n: _fact(getattr(np, n)) for n in _FACTS}
    | {n: getattr(np, n) for n in _DTYPES}
)


def astype(x, dtype, /, *, copy=True):
    return x.astype(dtype, copy=copy)


def is_available():
    return simulator.device_count > 0


for _name in (
    "all any argmax argmin argsort clip conj cumprod cumsum diagonal dot max mean min nonzero prod "
    "ravel repeat round searchsorted squeeze std sum swapaxes take trace var"
).split():
    setattr(ndarray, _name, namespace[_name])


def _binary(ufunc, swapped=False, inplace=False):
    def operate(self, other):
        if not isinstance(other, ndarray | np.ndarray | np.generic | bool | int | float | complex):
            return NotImplemented
        args = (other, self) if swapped else (self, other)
        return ufunc(*args, out=self if inplace else None)

    return operate


_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "divmod": "divmod",
}
for _symbol, _name in _OPERATORS.items():
    setattr(ndarray, f"__{_symbol}__", _binary(namespace[_name]))
    setattr(ndarray, f"__r{_symbol}__", _binary(namespace[_name], swapped=True))
    setattr(ndarray, f"__i{_symbol}__", _binary(namespace[_name], inplace=True))
for _symbol, _name in {
    "lt": "less",
    "le": "less_equal",
    "eq": "equal",
    "ne": "not_equal",
    "gt": "greater",
    "ge": "greater_equal",
}.items():
    setattr(ndarray, f"__{_symbol}__", _binary(namespace[_name]))
for _symbol, _name in {
    "neg": "negative",
    "pos": "positive",
    "abs": "absolute",
    "invert": "invert",
}.items():
    setattr(ndarray, f"__{_symbol}__", namespace[_name])
