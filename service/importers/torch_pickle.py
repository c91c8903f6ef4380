"""Pickles as torch writes them, read without running anything: no name is imported, nothing is called.

An interpreter of the opcodes of its own. The standard Unpickler cannot be made safe by `find_class` alone: it
allocates as much as an index of its memo says, hashes nested keys without end, and sets attributes as it is told.
Knows nothing of files; every refusal is a ValueError that says why.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final, TypeAlias

import numpy as np

_OPCODES_MAX: Final = 3_000_000
_NAME_SHOWN: Final = 120  # characters
_DIMENSIONS_MAX: Final = 64
_NUMBER_MAX: Final = 1 << 62
_KEY_MAX: Final = 1 << 60  # greater integers can be made to share one hash
WAY_OUT: Final = "save the state dict instead: torch.save(model.state_dict(), 'model.pt')"


@dataclass(frozen=True, slots=True)
class Dtype:
    """A torch dtype; `numpy` is None where numpy has no such numbers."""

    name: str
    itemsize: int
    numpy: np.dtype[np.generic] | None = None


def _known(name: str) -> Dtype:
    dtype = np.dtype(name)
    return Dtype(name, dtype.itemsize, dtype)


BFLOAT16: Final = Dtype("bfloat16", 2)
_UNTYPED: Final = _known("uint8")
_DTYPES: Final = (
    *map(_known, ("float64", "float32", "float16", "int64", "int32", "int16", "int8")),
    *map(_known, ("uint64", "uint32", "uint16", "uint8", "bool", "complex64", "complex128")),
    BFLOAT16,
    Dtype("complex32", 4),
    *(Dtype(name, 1) for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")),
    *(Dtype(name, 1) for name in ("float8_e8m0fnu", "qint8", "quint8", "quint4x2", "quint2x4")),
    Dtype("qint32", 4),
)
_STORAGES: Final = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "qint8",
    "QUInt8": "quint8",
    "QInt32": "qint32",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}
_DTYPE_NAMES: Final[Mapping[str, Dtype]] = {f"torch.{dtype.name}": dtype for dtype in _DTYPES}
_STORAGE_NAMES: Final[Mapping[str, Dtype]] = {
    **{f"torch.{kind}Storage": _DTYPE_NAMES[f"torch.{name}"] for kind, name in _STORAGES.items()},
    **{f"torch.cuda.{kind}Storage": _DTYPE_NAMES[f"torch.{name}"] for kind, name in _STORAGES.items()},
    "torch.storage.UntypedStorage": _UNTYPED,
    "torch.UntypedStorage": _UNTYPED,
}


@dataclass(frozen=True, slots=True)
class Name:
    """A global of the allowed list, as a word."""

    full: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Where numbers lie: a key, not the numbers. `numel` counts numbers of the storage's own dtype."""

    key: str
    dtype: Dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage as the pickle describes it. `offset` and `stride` count numbers; nothing is checked yet."""

    storage: Storage
    dtype: Dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Opaque:
    """Stands for whatever does not matter: sets, bytes, devices."""


_OPAQUE: Final = Opaque()


@dataclass(frozen=True, slots=True)
class Unpickled:
    """The value of a pickle, made of dicts, lists, tuples, plain values and the classes here; and all its storages."""

    value: object
    storages: Mapping[str, Storage]


def load(file: BinaryIO) -> Unpickled:
    """Reads one pickle from the file's position to its end; raises ValueError for what is not read."""
    machine = _Machine()
    at = file.tell()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            at = position or 0
            if opcode.name == "STOP":
                return Unpickled(machine.stack.pop(), machine.storages)
            machine.step(opcode.name, argument, count)
    except Refused:
        raise
    except (IndexError, KeyError):
        raise ValueError(f"the pickle is damaged at byte {at}") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"the pickle cannot be read at byte {at}: {str(error)[:_NAME_SHOWN]}") from None
    raise ValueError("the pickle has no end")


class Refused(ValueError):
    """What is well-formed and deliberately not read."""


# Globals, and what calling them would have given


def _global(module: object, name: object) -> Name:
    full = f"{module}.{name}"
    if full in _CALLED or full in _DTYPE_NAMES or full in _STORAGE_NAMES:
        return Name(full)
    shown = repr(full if len(full) <= _NAME_SHOWN else full[:_NAME_SHOWN] + "...")
    if full.startswith("torch.nn."):
        raise Refused(f"the file holds a whole module ({shown}), not only its numbers; {WAY_OUT}")
    raise Refused(f"the pickle asks for {shown}, which is never loaded; {WAY_OUT}")


def _ordered(args: tuple[object, ...]) -> object:
    made: dict[object, object] = {}
    (pairs,) = args or ([],)
    if not isinstance(pairs, list):
        raise TypeError("an OrderedDict is not made of pairs")
    for key, value in pairs:
        _set(made, key, value)
    return made


def _tensor(args: tuple[object, ...]) -> object:
    return _view(args[:4], None, args[6:7])


def _typed_tensor(args: tuple[object, ...]) -> object:
    dtype = args[6]
    if not isinstance(dtype, Name):
        raise TypeError("the dtype of a tensor is not one")
    return _view(args[:4], _DTYPE_NAMES[dtype.full], args[7:8])


def _view(args: tuple[object, ...], dtype: Dtype | None, metadata: tuple[object, ...]) -> Tensor:
    storage, offset, size, stride = args
    if not isinstance(storage, Storage):
        raise TypeError("a tensor has no storage")
    if metadata and isinstance(metadata[0], dict) and any(value is True for value in metadata[0].values()):
        raise Refused(
            "a tensor is stored with its sign or conjugation pending; resolve_neg() and resolve_conj() end that"
        )
    view = Tensor(storage, dtype or storage.dtype, _number(offset), _numbers(size), _numbers(stride))
    if len(view.size) != len(view.stride):
        raise ValueError(f"a tensor has {len(view.size)} sizes and {len(view.stride)} strides")
    return view


def _parameter(args: tuple[object, ...]) -> object:
    if not isinstance(args[0], Tensor):
        raise TypeError("a parameter has no tensor")
    return args[0]


def _size(args: tuple[object, ...]) -> object:
    return _numbers(args[0])


def _opaque(_args: tuple[object, ...]) -> object:
    return _OPAQUE


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _NUMBER_MAX:
        raise ValueError("a size, stride or offset is impossible")
    return value


def _numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _DIMENSIONS_MAX:
        raise ValueError("a size or stride is impossible")
    return tuple(_number(value) for value in values)


_CALLED: Final[Mapping[str, Callable[[tuple[object, ...]], object]]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch.device": _opaque,
    "torch.serialization._get_layout": _opaque,
    "collections.Counter": _opaque,
    "_codecs.encode": _opaque,
    "builtins.bytearray": _opaque,
    "builtins.complex": _opaque,
    "builtins.set": _opaque,
    "__builtin__.bytearray": _opaque,
    "__builtin__.complex": _opaque,
    "__builtin__.set": _opaque,
}
"""The names beside dtypes and storages: what torch itself loads with `weights_only`, less what no table needs."""


def _set(target: object, key: object, value: object) -> None:
    """Keys are text, small integers and None: their hashes cost nothing. Other items are left out."""
    if not isinstance(target, dict):
        if isinstance(target, Opaque):
            return
        raise TypeError("items are set in something that is no dict")
    if key is None or type(key) is str or (isinstance(key, int) and abs(key) < _KEY_MAX):
        target[key] = value


def _extend(target: object, values: list[object]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif not isinstance(target, Opaque):
        raise TypeError("items are appended to something that is no list")


# The machine


@dataclass(slots=True)
class _Machine:
    """The stack, what lies below each open mark, the memo, and the storages that were named."""

    stack: list[object] = field(default_factory=list)
    below: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def step(self, opcode: str, argument: object, count: int) -> None:
        if count == _OPCODES_MAX:
            raise Refused(f"the pickle has more than {_OPCODES_MAX:,} instructions")
        if opcode in _PUSHED:
            self.stack.append(argument)
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in _IGNORED:
            raise Refused(f"the pickle has the instruction {opcode}, which is not read; {WAY_OUT}")

    def marked(self) -> list[object]:
        """Closes the last mark and gives what was above it."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def store(self, index: object) -> None:
        if not isinstance(index, int):
            raise TypeError("the memo is indexed by something that is no number")
        self.memo[index] = self.stack[-1]


_Step: TypeAlias = Callable[[_Machine, object], None]


def _mark(machine: _Machine, _: object) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine, _: object) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


def _get(machine: _Machine, index: object) -> None:
    machine.stack.append(machine.memo[index])  # type: ignore[index]  # a wrong type is a KeyError like any other


def _tuple_of(count: int) -> _Step:
    def step(machine: _Machine, _: object) -> None:
        values = tuple(machine.stack.pop() for _ in range(count))
        machine.stack.append(values[::-1])

    return step


def _append(machine: _Machine, _: object) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


def _appends(machine: _Machine, _: object) -> None:
    values = machine.marked()
    _extend(machine.stack[-1], values)


def _set_item(machine: _Machine, _: object) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine.stack[-1], key, value)


def _set_items(machine: _Machine, _: object) -> None:
    values = machine.marked()
    for key, value in zip(values[::2], values[1::2], strict=True):
        _set(machine.stack[-1], key, value)


def _dict(machine: _Machine, _: object) -> None:
    values = machine.marked()
    made: dict[object, object] = {}
    for key, value in zip(values[::2], values[1::2], strict=True):
        _set(made, key, value)
    machine.stack.append(made)


def _named(_machine: _Machine, argument: object) -> Name:
    module, _, name = str(argument).partition(" ")
    return _global(module, name)


def _stacked(machine: _Machine) -> Name:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError("a global is not named by text")
    return _global(module, name)


def _reduce(machine: _Machine, _: object) -> None:
    args, called = machine.stack.pop(), machine.stack.pop()
    if not isinstance(called, Name) or not isinstance(args, tuple):
        raise TypeError("something is called that is no function")
    if called.full not in _CALLED:
        raise Refused(f"the pickle calls {called.full!r}, which is never done; {WAY_OUT}")
    machine.stack.append(_CALLED[called.full](args))


def _instance(machine: _Machine, argument: object) -> None:
    built = _named(machine, argument)
    raise Refused(f"the pickle builds an object of {built.full!r}, which is never done; {WAY_OUT}")


def _object(machine: _Machine, _: object) -> None:
    names = [value.full for value in machine.stack if isinstance(value, Name)][-1:]
    raise Refused(f"the pickle builds an object of {names[0] if names else 'no class'!r}; {WAY_OUT}")


def _build(machine: _Machine, _: object) -> None:
    machine.stack.pop()  # the state of an object is left out; the object stays
    machine.stack[-1]  # there must be one


def _persistent(machine: _Machine, _: object) -> None:
    machine.stack.append(_storage(machine, machine.stack.pop()))


def _storage(machine: _Machine, described: object) -> Storage:
    if not isinstance(described, tuple) or not described or described[0] != "storage":
        raise Refused(f"the pickle refers to something that is no storage; {WAY_OUT}")
    kind, key, _location, numel = described[1:5]
    if any(part is not None for part in described[5:]):  # no torch since 0.4 writes these
        raise Refused(f"the file has views of storages as torch 0.3 wrote them; load it with torch and {WAY_OUT}")
    if not isinstance(kind, Name) or kind.full not in _STORAGE_NAMES or type(key) is not str:
        raise TypeError("a storage has no type or no key")
    storage = Storage(key, _STORAGE_NAMES[kind.full], _number(numel))
    if machine.storages.setdefault(key, storage) != storage:
        raise ValueError(f"the storage {key[:_NAME_SHOWN]!r} is described twice and differently")
    return storage


_PUSHED: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_IGNORED: Final = frozenset({"PROTO", "FRAME"})
_STEPS: Final[Mapping[str, _Step]] = {
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    **dict.fromkeys(
        ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_SET"),
        lambda machine, _: machine.stack.append(_OPAQUE),
    ),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.marked().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda machine, _: _push(machine, tuple(machine.marked())),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": lambda machine, _: _push(machine, machine.marked()),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "FROZENSET": lambda machine, _: _push(machine, _OPAQUE, machine.marked()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.store),
    "MEMOIZE": lambda machine, _: machine.store(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "GLOBAL": lambda machine, argument: machine.stack.append(_named(machine, argument)),
    "STACK_GLOBAL": lambda machine, _: machine.stack.append(_stacked(machine)),
    "REDUCE": _reduce,
    "INST": _instance,
    **dict.fromkeys(("OBJ", "NEWOBJ", "NEWOBJ_EX"), _object),
    "BUILD": _build,
    "BINPERSID": _persistent,
}


def _push(machine: _Machine, value: object, *_dropped: object) -> None:
    machine.stack.append(value)  # the arguments are made first: a mark changes the stack
