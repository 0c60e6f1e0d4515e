"""Reading PyTorch files without running code in them.

`torch.save` writes a pickle, and a pickle is a program: unpickling calls the functions that it
names. Here nothing is imported or called. The few functions that rebuild tensors are replaced by
functions of this module, containers become dicts and lists, and everything else
(`argparse.Namespace`, NumPy scalars, whole models) becomes an `Inert`, which only stores the name.
Three rules prevent a small file from using unlimited time or memory: keys must be scalars (hashing
a nested tuple can take 2^60 steps), the pickle itself is limited to `MAX_PICKLE` bytes, and
storages must be uncompressed in the file.
"""

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

MAX_PICKLE = 64 << 20
"""Largest pickle without tensors, in bytes; that of a ResNet-1001 has 1 MB."""

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class PickleError(ValueError):
    """The pickle is damaged, or contains something that checkpoints do not contain."""


@dataclass
class Inert:
    """An object whose class or function was not called."""

    name: str
    """The name, such as `argparse.Namespace`."""
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class UnsupportedTensor:
    """A tensor that is not dense with ordinary values: sparse, nested, quantised, or on the meta
    device."""

    kind: str


@dataclass(frozen=True)
class Storage:
    """A pickle's description of a tensor's values."""

    key: str
    dtype: torch.dtype
    count: int


class _Bounded:
    """A file from which a limited number of bytes can be read."""

    def __init__(self, file: IO[bytes], limit: int = MAX_PICKLE) -> None:
        self.file, self.left = file, limit

    def read(self, size: int) -> bytes:
        self._take(size)
        found = self.file.read(size)
        if len(found) < size:
            raise EOFError
        return found

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        self._take(len(line))
        return line

    def _take(self, size: int) -> None:
        self.left -= size
        if size < 0 or self.left < 0:
            raise PickleError(f"its pickle is larger than {MAX_PICKLE >> 20} MB")


class Reader(pickle._Unpickler):
    """The standard library's Python unpickler, with every call replaced."""

    stack: list[Any]
    append: Callable[[Any], None]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: IO[bytes], storage: Callable[[Storage], Tensor]) -> None:
        super().__init__(_Bounded(file), encoding="latin1")
        self.storage = storage
        self.named: dict[str, Storage] = {}
        """The storages that the pickle refers to."""
        self.left = MAX_PICKLE
        """Number of values that may still be copied: a few bytes can request copies of long
        lists."""

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise PickleError("a pickle that creates too many values")

    def find_class(self, module: str, name: str) -> Any:
        found = _CALLS.get(f"{module}.{name}")
        if found is not None:
            return found
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return Inert(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("module",):  # the source code of a class
            return pid[1]
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise PickleError("an unknown reference")
        _, dtype, key, _, count = pid[:5]
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str | int)):
            raise PickleError("a storage of an unknown kind")
        if not isinstance(count, int) or count < 0:
            raise PickleError("a storage of an impossible size")
        self.named[str(key)] = Storage(str(key), dtype, count)
        return self.named[str(key)]

    # --- the instructions of a pickle that call, hash or allocate ---------------------------------

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(self._call(function, arguments))

    def load_newobj(self) -> None:
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments
        self.load_reduce()

    def _instantiate(self, klass: Any, args: Any) -> None:  # INST and OBJ
        self.append(self._call(klass, tuple(args)))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise PickleError("a call without arguments")
        if isinstance(function, Inert):
            return Inert(function.name, arguments)
        if isinstance(function, torch.dtype):
            return Inert("a storage")
        if not callable(function):
            raise PickleError("a call of something that is not a function")
        return function(self, *arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state
        elif isinstance(self.stack[-1], _Array):
            values = state[4] if isinstance(state, tuple) and len(state) == 5 else b""
            self._spend(len(values))
            self._replace(self.stack[-1], self.stack[-1].filled(state))

    def _replace(self, old: Any, new: Any) -> None:
        """Replace the top of the stack, and the same object among the last entries of the memo."""
        self.stack[-1] = new
        for key in list(self.memo)[-8:]:
            if self.memo[key] is old:
                self.memo[key] = new

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(self.stack[-1], items)

    def _set(self, target: Any, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(target, dict):
                target[_scalar(key)] = value
            elif not isinstance(target, Inert):
                raise PickleError("an item of something that is not a dict")

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise PickleError("an element of something that is not a list")

    def load_empty_set(self) -> None:
        self.append([])  # a list instead of a set, so that nothing is hashed

    def load_additems(self) -> None:
        self.load_appends()

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(items)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def load_refused(self) -> None:
        raise PickleError("an instruction that checkpoints do not contain")

    # --- replacements of functions that checkpoints call ------------------------------------------

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        if not isinstance(storage, Storage):
            return UnsupportedTensor("without own values")
        numbers = (offset, *size, *stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(size) != len(stride):
            raise PickleError("a tensor of an impossible shape")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.count:
            raise PickleError("a tensor that is larger than its storage")
        return self.storage(storage).as_strided(tuple(size), tuple(stride), offset)

    def tensor_v3(self, storage: Any, *rest: Any) -> Any:
        offset, size, stride, _, _, dtype = rest[:6]
        if isinstance(storage, Storage) and isinstance(dtype, torch.dtype):
            storage = Storage(storage.key, dtype, storage.count // dtype.itemsize)
        return self.tensor(storage, offset, size, stride)

    def parameter(self, data: Any, *_: Any) -> Any:
        return data

    def of_type(self, function: Any, _: Any, arguments: Any, *__: Any) -> Any:
        return self._call(function, arguments)

    def ordered_dict(self, items: Any = (), *_: Any) -> dict[Any, Any]:
        self._spend(len(items))
        return {_scalar(key): value for key, value in items}

    def size(self, items: Any = ()) -> Any:
        return items

    def array(self, *_: Any) -> Any:
        return _Array()

    def array_of(self, values: Any, dtype: Any, shape: Any, order: Any) -> Any:
        self._spend(len(values))
        return _Array().filled((1, shape, dtype, order == "F", values))

    def encoded(self, text: Any, _: Any = "latin1") -> bytes:
        self._spend(len(text))
        return bytes(text, "latin1")

    def array_dtype(self, text: Any, *_: Any) -> Any:
        return Inert("numpy.dtype", (text,))


class _Array:
    """A NumPy array whose values follow later in the pickle."""

    def filled(self, state: Any) -> Any:
        _, shape, dtype, by_column, values = state
        if not (isinstance(dtype, Inert) and dtype.arguments and isinstance(values, bytes | str)):
            return UnsupportedTensor("an array of objects")
        kind = np.dtype(str(dtype.arguments[0]))
        if isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",):
            kind = kind.newbyteorder(">")
        if kind.kind not in "fiub":
            return UnsupportedTensor("an array of objects")
        raw = values if isinstance(values, bytes) else values.encode("latin1")
        found = np.frombuffer(raw, kind).reshape(shape, order="F" if by_column else "C")
        return torch.from_numpy(found.astype(kind.newbyteorder("=")))


def _unsupported(kind: str) -> Callable[..., UnsupportedTensor]:
    return lambda *_: UnsupportedTensor(kind)


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": Reader.tensor,
    "torch._utils._rebuild_tensor_v2": Reader.tensor,
    "torch._utils._rebuild_tensor_v3": Reader.tensor_v3,
    "torch._utils._rebuild_parameter": Reader.parameter,
    "torch._utils._rebuild_parameter_with_state": Reader.parameter,
    "torch._tensor._rebuild_from_type_v2": Reader.of_type,
    "torch._utils._rebuild_qtensor": _unsupported("quantised"),
    "torch._utils._rebuild_sparse_tensor": _unsupported("sparse"),
    "torch._utils._rebuild_nested_tensor": _unsupported("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unsupported("without values (meta device)"),
    "torch._utils._rebuild_wrapper_subclass": _unsupported("of a subclass"),
    "torch.Size": Reader.size,
    "collections.OrderedDict": Reader.ordered_dict,
    "numpy.core.multiarray._reconstruct": Reader.array,
    "numpy._core.multiarray._reconstruct": Reader.array,
    "numpy.dtype": Reader.array_dtype,
    "numpy.core.numeric._frombuffer": Reader.array_of,
    "numpy._core.numeric._frombuffer": Reader.array_of,
    "_codecs.encode": Reader.encoded,
}
_REPLACED: dict[int, Callable[[Any], None]] = {
    code[0]: method
    for codes, method in (
        ((pickle.REDUCE,), Reader.load_reduce),
        ((pickle.NEWOBJ,), Reader.load_newobj),
        ((pickle.NEWOBJ_EX,), Reader.load_newobj_ex),
        ((pickle.BUILD,), Reader.load_build),
        ((pickle.SETITEM,), Reader.load_setitem),
        ((pickle.SETITEMS,), Reader.load_setitems),
        ((pickle.DICT,), Reader.load_dict),
        ((pickle.APPEND,), Reader.load_append),
        ((pickle.APPENDS,), Reader.load_appends),
        ((pickle.EMPTY_SET,), Reader.load_empty_set),
        ((pickle.ADDITEMS,), Reader.load_additems),
        ((pickle.FROZENSET,), Reader.load_frozenset),
        ((pickle.BYTEARRAY8,), Reader.load_bytearray8),
        ((pickle.NEXT_BUFFER, pickle.READONLY_BUFFER), Reader.load_refused),
        ((pickle.EXT1, pickle.EXT2, pickle.EXT4), Reader.load_refused),
    )
    for code in codes
}
Reader.dispatch = dict(pickle._Unpickler.dispatch) | _REPLACED


def _scalar(key: Any) -> str | int | float | bytes | None:
    if key is None or isinstance(key, str | int | float | bytes):
        return key
    return f"a key of type {type(key).__name__}"
