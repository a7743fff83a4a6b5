"""Read the weights of a TorchScript archive, without running the program that lies beside them.

Such a file is a zip: `data.pkl` says in pickle's language which module has which tensor, `data/0`, `data/1`, … are the
tensors' bytes, and `code/` is a program, of which `torch.jit.load` runs parts. Here each instruction of the pickle is
looked at, those that would call something only note what, and nothing but dense tensors is made of the notes.
"""

import pickletools
import sys
import zipfile
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch

from handclip_lib.errors import BackboneError

LARGEST_PICKLE = 1 << 26  # bytes; CLIP's have fewer than 2^19
MOST_MODULES = 10_000  # CLIP's largest has 1,500; modules that hold each other have no end
LONGEST_NAME = 500
_DTYPES = {
    "torch.BoolStorage": torch.bool, "torch.ByteStorage": torch.uint8, "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16, "torch.IntStorage": torch.int32, "torch.LongStorage": torch.int64,
    "torch.HalfStorage": torch.float16, "torch.BFloat16Storage": torch.bfloat16, "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass
class _Note:
    """Something the pickle names, and what it would be called with or filled from."""

    name: str
    state: Any = None


@dataclass
class _Storage:
    dtype: str
    key: str
    count: int


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip that torch would read as a program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """The tensors that the modules of an archive hold, by name, on the CPU: `torch.jit.load(path).state_dict()`.

    Raises:
        BackboneError: A tensor is not stored plainly, or only the archive's program could read it.
        ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("two of its entries have one name")
        if sum(info.compress_size for info in entries.values()) > path.stat().st_size:
            raise ValueError("its entries claim more bytes than it has")
        root = next(name for name in entries if name.endswith("/constants.pkl")).removesuffix("/constants.pkl")
        if f"{root}/data.pkl" not in entries:
            raise ValueError("it has no data.pkl, as archives of torch before 1.4 have none")
        if f"{root}/byteorder" in entries:
            with archive.open(f"{root}/byteorder") as written:
                order = written.read(9)
            if order != sys.byteorder.encode():
                raise BackboneError(f"{path} was written on a machine of another byte order; save it on one like this")
        if entries[f"{root}/data.pkl"].file_size > LARGEST_PICKLE:
            raise ValueError("its data.pkl is too large for any CLIP")
        return _Tensors(path, archive, entries, f"{root}/data/").of(_noted(archive.read(f"{root}/data.pkl")))


def declared_activation(path: Path) -> str:
    """Of "quick_gelu" and "gelu", the one that the classes of an archive's modules say; "" for neither, or both."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/constants.pkl"))
        pickled = archive.read(name.replace("constants.pkl", "data.pkl"))
    kinds = {b"\nQuickGELU\n": "quick_gelu", b"\nGELU\n": "gelu"}
    found = [activation for mark, activation in kinds.items() if mark in pickled]
    return found[0] if len(found) == 1 else ""


def _noted(pickled: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "STOP":
                return stack.pop()
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-int(opcode.name[-1]) :] = [tuple(stack[-int(opcode.name[-1]) :])]
            case "APPEND":
                _extend(stack, [stack.pop()])
            case "APPENDS":
                _extend(stack, since_mark())
            case "SETITEM":
                _fill(stack, [stack.pop(-2), stack.pop()])
            case "SETITEMS":
                _fill(stack, since_mark())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(argument.replace(" ", "."))
            case "NEWOBJ":
                stack[-2:] = [_Note(stack[-2])]
            case "REDUCE":
                stack[-2:] = [_Note(*stack[-2:])]
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], _Note):
                    raise ValueError("its data.pkl fills what is no object")
                stack[-1].state = state
            case "BINPERSID":
                _, dtype, key, _, count = stack.pop()
                if not isinstance(dtype, str) or not isinstance(key, str):
                    raise ValueError("its data.pkl names no storage")
                stack.append(_Storage(dtype, key, count))
            case other if other != "PROTO":
                raise ValueError(f"its data.pkl has the instruction {other}, which TorchScript does not write")
    raise ValueError("its data.pkl has no end")


def _extend(stack: list[Any], items: list[Any]) -> None:
    if isinstance(stack[-1], list):
        stack[-1].extend(items)
    elif not isinstance(stack[-1], _Note):
        raise ValueError("its data.pkl appends to what is no list")


def _fill(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], dict):
        raise ValueError("its data.pkl puts items into what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str):  # of others (a tuple in a tuple in a tuple, …) a hash can exhaust the stack
            stack[-1][key] = value


@dataclass
class _Tensors:
    path: Path
    archive: zipfile.ZipFile
    entries: dict[str, zipfile.ZipInfo]
    folder: str
    _read: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)

    def of(self, module: Any) -> dict[str, torch.Tensor]:
        """All tensors of a module and of those in it."""
        found: dict[str, torch.Tensor] = {}
        waiting, seen = [("", module)], 0
        while waiting:
            prefix, module = waiting.pop()
            seen += 1
            if not isinstance(module, _Note) or not isinstance(module.state, dict):
                why = "keeps its values for a program of its own (__setstate__), and no program in a file is run"
                raise self._refused(prefix.rstrip(".") or "its module", why)
            for attribute, value in module.state.items():
                name = prefix + attribute
                if len(name) > LONGEST_NAME or seen > MOST_MODULES:
                    raise ValueError("its modules hold each other without end")
                if not isinstance(value, _Note):
                    continue
                if value.name == "torch._utils._rebuild_tensor_v2":
                    found[name] = self._tensor(name, *value.state)
                elif value.name.startswith("__torch__."):
                    waiting.append((f"{name}.", value))
                elif "tensor" in value.name.rsplit(".", 1)[-1]:
                    why = f"is no plain tensor ({value.name}: quantized, sparse or of another kind)"
                    raise self._refused(name, why)
        return found

    def _tensor(
        self, name: str, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any
    ) -> torch.Tensor:
        if len(rest) > 2 and rest[2]:
            raise self._refused(name, "is stored negated or conjugated")
        numbers = (offset, storage.count, *size, *stride)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
            raise ValueError(f"the sizes of its tensor {name} are none")
        end = offset + 1 + sum((count - 1) * step for count, step in zip(size, stride, strict=True)) if all(size) else 0
        if max(end, prod(size)) > storage.count:
            raise self._refused(name, f"of size {size} is larger than what is stored of it ({storage.count} numbers)")
        return self._storage(name, storage).as_strided(size, stride, offset)

    def _storage(self, name: str, storage: _Storage) -> torch.Tensor:
        known = self._read.get((storage.dtype, storage.key))
        if known is not None:
            return known
        dtype, info = _DTYPES.get(storage.dtype), self.entries.get(f"{self.folder}{storage.key}")
        if dtype is None:
            raise self._refused(name, f"is of a type that no weights have ({storage.dtype})")
        if info is None:
            raise self._refused(name, f"lies in {self.folder}{storage.key}, which is not there")
        if info.compress_type != zipfile.ZIP_STORED:
            raise self._refused(name, "is compressed, which torch never does; unzip it and pack it again with `zip -0`")
        stored = bytearray(self.archive.read(info))
        if len(stored) != storage.count * dtype.itemsize:
            raise self._refused(name, f"has {len(stored)} bytes where {storage.count * dtype.itemsize} are announced")
        read = torch.frombuffer(stored, dtype=dtype) if stored else torch.empty(0, dtype=dtype)
        self._read[storage.dtype, storage.key] = read
        return read

    def _refused(self, name: str, why: str) -> BackboneError:
        said = "".join(letter if letter.isprintable() else "?" for letter in f"{name} {why}")
        return BackboneError(f"{self.path} was not read: {said}")
