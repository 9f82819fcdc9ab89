"""Reads the content of an :class:`~fsrl_ext.experiment.files.archive.Archive`: tensors, numbers and text.

``torch.save`` describes the content in a pickle. The reader here makes nothing of it but tensors on the CPU
and Python's plain values, whatever the file asks for, and every tensor lies within the record of its data.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fsrl_ext.experiment.files.archive import Archive, DamagedError

MAX_DEPTH = 50
"""Of dictionaries and lists within each other."""
MAX_ENTRIES = 5_000_000
"""Of all dictionaries and lists together."""


class ForeignObjectError(ValueError):
    """A file holds a pickled object, which is never loaded."""


_PLAIN = (type(None), bool, int, float, str, bytes)

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
}
_DTYPES = {
    str(x).removeprefix("torch."): x for x in (*_STORAGES.values(), torch.uint16, torch.uint32, torch.uint64)
}


def read_content(archive: Archive) -> Any:
    """The content of a file.

    :raises ForeignObjectError: for a pickled object of another kind than numbers, text and tensors.
    :raises DamagedError: for anything else that :func:`~fsrl_ext.experiment.files.archive.write_archive` does
        not write.
    """
    if "data.pkl" not in archive:
        raise DamagedError("it is not what torch.save writes")
    if "byteorder" in archive and archive.read("byteorder") != b"little":
        raise DamagedError("it was written on a machine with another order of bytes")
    description = archive.read("data.pkl")
    try:
        _check_memo(description)
        content = _Reader(description, archive).load()
    except (ForeignObjectError, DamagedError):
        raise
    except Exception as error:  # what pickle raises for a wrong description can be anything
        raise DamagedError(f"its description cannot be read: {type(error).__name__}") from error
    check_plain(content)
    return content


def check_plain(content: Any) -> None:
    """Checks that content consists of plain values and dense tensors, in bounded depth and number.

    :raises DamagedError: naming the part that is not.
    """
    count = 0

    def check(value: Any, part: str, depth: int) -> None:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH or count > MAX_ENTRIES:
            raise DamagedError(f"{part[:80]} is nested or shared beyond all measure")
        if type(value) in (dict, OrderedDict):
            # A module's state has one attribute; an attribute could also hide a method.
            if isinstance(value, OrderedDict) and not vars(value).keys() <= {"_metadata"}:
                raise DamagedError(f"{part} has attributes")
            for key, entry in value.items():
                if type(key) not in (str, int):
                    raise DamagedError(f"{part or 'it'} has a key that is neither text nor a whole number")
                check(entry, f"{part}.{key}" if part else str(key), depth + 1)
        elif type(value) in (list, tuple):
            for i, entry in enumerate(value):
                check(entry, f"{part}[{i}]", depth + 1)
        elif isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.dtype not in _DTYPES.values():
                raise DamagedError(f"{part} is a tensor of an unknown kind")
        elif type(value) not in _PLAIN:
            raise DamagedError(f"{part} is an object of {type(value).__module__}.{type(value).__qualname__}")

    check(content, "", 0)


def _check_memo(description: bytes) -> None:
    """Checks the numbers under which the pickle keeps values: pickle makes room up to the highest one."""
    for operation, argument, _ in pickletools.genops(description):
        if operation.name.endswith("PUT") and int(argument or 0) > len(description):
            raise DamagedError("its description cannot be read: an absurd number")


class _Reader(pickle.Unpickler):
    def __init__(self, description: bytes, archive: Archive) -> None:
        super().__init__(io.BytesIO(description))
        self._archive = archive
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle; nothing is imported."""
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.uint8
        makes = _MAKES.get((module, name))
        if makes is None:
            raise ForeignObjectError(f"holds a pickled object of {module}.{name}, which fsrl_ext never loads")
        # A function of its own each time: a pickle can set attributes of what it is given.
        return lambda *arguments: makes(*arguments)

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """The data of a tensor, once per record, as a flat tensor on the CPU wherever it was before."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise DamagedError("its description cannot be read: unknown data")
        if key not in self._storages:
            name = f"data/{key}"
            if name not in self._archive:
                raise DamagedError(f"the data of a tensor are missing ({name})")
            data = torch.empty(self._archive.size(name), dtype=torch.uint8)
            if len(data):
                self._archive.read_into(name, data.numpy().data)
            self._storages[key] = data
        data = self._storages[key]
        if count * dtype.itemsize != len(data):
            raise DamagedError(f"a tensor has another size than its data (data/{key})")
        return data.view(dtype)


def _tensor(
    data: torch.Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: Any,
    dtype: Any = None,
) -> torch.Tensor:
    if dtype is not None:
        data = data.view(dtype)
    if len(size) != len(stride) or min((offset, *size, *stride), default=0) < 0:
        raise DamagedError("a tensor has an impossible shape")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset
    # A tensor that repeats its data could be of any size.
    if count > len(data) or (count and last >= len(data)):
        raise DamagedError("a tensor is larger than its data")
    return data.as_strided(size, stride, offset)


def _typed_tensor(
    data: torch.Tensor, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, dtype: Any, *_: Any
) -> torch.Tensor:
    return _tensor(data, offset, size, stride, dtype=dtype)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DamagedError("its description cannot be read: bytes of an unknown encoding")
    return text.encode("latin1")


_MAKES: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): lambda: b"",
}
"""What a description may call. Pickle writes bytes as encoded text, and empty ones as a call of the type."""
