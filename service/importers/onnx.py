"""ONNX: the table behind a `Gather`, as it is stored, cast, scaled or dequantised. Needs the package onnx.

Nothing of the graph is run: what stands between a stored tensor and the `Gather` is applied to blocks of its rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.bfloat16 import widened
from service.importers.candidates import choose
from service.importers.matrix import AnyArray, Matrix, table_of
from service.importers.options import ImportOptions

_LONGEST: Final = 2 << 30  # bytes; no protobuf message is longer
_WIDEST: Final = 1000  # nodes that a table is made by
_DEEPEST: Final = 8  # nodes between a stored tensor and its Gather
_DTYPES: Final = {1: "<f4", 2: "|u1", 3: "|i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
_WIDER: Final = {12: "<u4", 13: "<u8"}
_FIELDS: Final = {
    "<f4": "float_data",
    "<f8": "double_data",
    "<i8": "int64_data",
    "<u4": "uint64_data",
    "<u8": "uint64_data",
}
_BFLOAT16: Final = 16
_EXTERNAL: Final = 1
_TABLE_INPUT: Final = {"Gather": 0, "EmbedLayerNormalization": 2}
"""The input of a node in which it looks up rows."""

Rows: TypeAlias = Callable[[int, int], AnyArray]
"""Rows from the first up to another."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of the graph whose rows can be had; `name` is that of the stored tensor it is made of."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: Rows
    stored_as: str | None = None

    def whole(self) -> AnyArray:
        return self.rows(0, self.shape[0] if self.shape else 1)


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table that a `Gather` of the model looks up, or the one that `options.tensor` names."""
    try:
        found = _candidates(path, _Graph(path, _model(path).graph), options.tensor)
    except UnicodeDecodeError as error:  # protobuf decodes a name when it is looked at
        raise ImportFormatError(str(path), f"a name is not UTF-8: {error.reason}") from None
    return table_of(path, choose(path, [_matrix(value) for value in found], options.tensor), options)


def _candidates(path: Path, graph: "_Graph", tensor: str | None) -> "list[_Value]":
    found, refused = graph.tables()
    if tensor is not None and not any(tensor in value.name for value in found):
        return [graph.value(name) for name in graph.stored if tensor in name] or found
    if not found and refused is not None:
        raise refused
    if not found:
        reason = "there is no Gather from a stored table"
        raise ImportFormatError(str(path), reason + ("; choose a tensor with --tensor" if graph.stored else ""))
    return found


def _matrix(value: _Value) -> Matrix:
    def slices(step: int) -> Iterator[AnyArray]:
        count = value.shape[0]
        return (value.rows(first, min(first + step, count)) for first in range(0, count, step))

    return Matrix(value.shape, value.dtype, slices, value.name, stored_as=value.stored_as)


def _model(path: Path) -> Any:  # noqa: ANN401  (onnx is not installed everywhere)
    try:
        onnx = import_module("onnx")
        errors = import_module("google.protobuf.message").Error
    except ImportError:
        reason = "reading ONNX needs a package: pip install 'embedding-table-service[onnx]'"
        raise ImportFormatError(str(path), reason) from None
    if path.stat().st_size > _LONGEST:
        raise ImportFormatError(str(path), "it is longer than an ONNX model can be")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (errors, ValueError, RecursionError) as error:
        raise ImportFormatError(str(path), f"it is not an ONNX model: {error}") from None
    if not model.HasField("graph"):
        raise ImportFormatError(str(path), "the model has no graph")
    return model


class _Graph:
    """The nodes and stored tensors of a graph by the names of what they give."""

    def __init__(self, path: Path, graph: Any) -> None:  # noqa: ANN401
        self._path = path
        self._nodes: Sequence[Any] = graph.node
        self._makers = {output: node for node in graph.node for output in node.output if output}
        self._dequantizers = {
            node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear" and len(node.input) > 1
        }
        self.stored: Mapping[str, Any] = {
            **{node.output[0]: attribute.t for node in graph.node for attribute in _constant(node)},
            **{tensor.name: tensor for tensor in graph.initializer},
        }

    def tables(self) -> tuple[list[_Value], ImportFormatError | None]:
        """What the nodes look up rows in, each table of numbers with two axes once; and the first that is refused."""
        refused: ImportFormatError | None = None
        found: dict[tuple[str, str], _Value] = {}
        for node in self._nodes:
            at = _TABLE_INPUT.get(node.op_type)
            if at is None or len(node.input) <= at or _attribute(node, "axis", 0) not in (0, -2):
                continue
            try:
                value = self._looked_up(node, node.input[at])
            except ImportFormatError as error:
                refused = refused or error
                continue
            if value is not None and len(value.shape) == 2 and (value.dtype.kind == "f" or value.stored_as):
                found.setdefault((value.name, node.input[at]), value)
        return list(found.values()), refused

    def value(self, name: str, depth: int = 0) -> _Value:
        """The tensor of this name; raises ImportFormatError where it is not made of stored ones as we know it."""
        if name in self.stored:
            return _stored(self._path, name, self.stored[name])
        node = self._makers.get(name)
        if node is None or depth == _DEEPEST:
            raise self._refusal(name, "it is not stored in the model")
        if node.op_type == "Identity" and node.input:
            return self.value(node.input[0], depth + 1)
        if node.op_type == "Cast" and node.input:
            return self._cast(node, self.value(node.input[0], depth + 1))
        if node.op_type in ("Mul", "Div") and len(node.input) == 2:
            left, right = (self.value(side, depth + 1) for side in node.input)
            return self._scaled(node, left, right)
        if node.op_type == "DequantizeLinear" and len(node.input) in (2, 3):
            return self._dequantized(node, *(self.value(side, depth + 1) for side in node.input if side))
        raise self._refusal(name, f"it is made by {node.op_type}, which is not followed")

    def _looked_up(self, node: Any, name: str) -> _Value | None:  # noqa: ANN401
        """The table of a Gather; of integers, as what a DequantizeLinear behind the Gather makes of it."""
        if not self._is_constant(name):
            return None
        value = self.value(name)
        if len(value.shape) != 2 or value.dtype.kind not in "iu":
            return value
        after = next((self._dequantizers[output] for output in node.output if output in self._dequantizers), None)
        if after is None:
            return value
        scale = [self.value(side) for side in after.input[1:3] if side and self._is_constant(side)]
        if len(scale) != sum(map(bool, after.input[1:3])) or any(prod(one.shape) != 1 for one in scale) or not scale:
            raise self._refusal(name, "what is gathered is dequantised with other scales than a single one")
        return self._dequantized(after, value, *scale)

    def _is_constant(self, name: str) -> bool:
        """Whether a tensor is made of stored ones alone, and not of the model's inputs."""
        waiting, seen = [name], set[str]()
        while waiting:
            one = waiting.pop()
            if one in self.stored or one in seen or not one:
                continue
            seen.add(one)
            if one not in self._makers or not self._makers[one].input or len(seen) > _WIDEST:
                return False
            waiting.extend(self._makers[one].input)
        return True

    def _cast(self, node: Any, value: _Value) -> _Value:  # noqa: ANN401
        target = _attribute(node, "to", 0)
        if target not in (1, 10, 11) or value.dtype.kind not in "fiu":
            raise self._refusal(node.output[0], f"a Cast of {value.dtype.name} to the type {target} is not followed")
        dtype = np.dtype(_DTYPES[target])

        def rows(first: int, after: int) -> AnyArray:
            with np.errstate(over="ignore"):
                return value.rows(first, after).astype(dtype)

        return _Value(value.name, value.shape, dtype, rows)

    def _scaled(self, node: Any, left: _Value, right: _Value) -> _Value:  # noqa: ANN401
        table, factor = (left, right) if prod(left.shape) >= prod(right.shape) else (right, left)
        if "bfloat16" in (left.stored_as, right.stored_as):  # its products are rounded, ours would not be
            raise self._refusal(node.output[0], "a product of bfloat16 numbers is not followed")
        if node.op_type == "Div" and table is not left:
            raise self._refusal(node.output[0], "a Div by the table is not followed")
        if table.dtype != factor.dtype or table.dtype.kind != "f":
            raise self._refusal(node.output[0], f"{table.dtype.name} and {factor.dtype.name} are multiplied")
        operation = np.multiply if node.op_type == "Mul" else np.divide
        part = self._beside(node, table, factor)

        def rows(first: int, after: int) -> AnyArray:
            with np.errstate(all="ignore"):
                result: AnyArray = operation(table.rows(first, after), part(first, after))
                return result

        return _Value(table.name, table.shape, table.dtype, rows)

    def _dequantized(self, node: Any, table: _Value, scale: _Value, zero: _Value | None = None) -> _Value:  # noqa: ANN401
        if table.dtype.kind not in "iu" or scale.dtype.kind != "f" or _attribute(node, "block_size", 0):
            raise self._refusal(node.output[0], "this kind of DequantizeLinear is not followed")
        axis = _attribute(node, "axis", 1) % max(1, len(table.shape))
        scales = self._beside(node, table, _along(scale, axis))
        zeros = None if zero is None else self._beside(node, table, _along(zero, axis))

        def rows(first: int, after: int) -> AnyArray:
            block = table.rows(first, after).astype(np.int64)
            if zeros is not None:
                block -= zeros(first, after)
            with np.errstate(all="ignore"):
                return block.astype(scale.dtype) * scales(first, after)

        return _Value(table.name, table.shape, scale.dtype, rows, stored_as=table.dtype.name)

    def _beside(self, node: Any, table: _Value, factor: _Value) -> Rows:  # noqa: ANN401
        """The part of a factor that belongs to rows of the table; the factor has the table's shape, or broadcasts."""
        shape = (1,) * (len(table.shape) - len(factor.shape)) + factor.shape
        fits = len(shape) == len(table.shape) == 2 and all(
            one in (1, other) for one, other in zip(shape, table.shape, strict=True)
        )
        if not fits or (prod(factor.shape) > sum(table.shape) and factor.shape != table.shape):
            reason = f"{list(factor.shape)} does not go with {list(table.shape)}"
            raise self._refusal(node.output[0], reason)
        if factor.shape == table.shape:
            return factor.rows
        small = factor.whole().reshape(shape)
        return (lambda first, after: small[first:after]) if shape[0] > 1 else (lambda _first, _after: small)

    def _refusal(self, name: str, reason: str) -> ImportFormatError:
        return ImportFormatError(str(self._path), reason, f"tensor {name!r}")


def _along(value: _Value, axis: int) -> _Value:
    """A scale for each row as a column; every other scale as it is."""
    if len(value.shape) != 1 or axis != 0 or value.shape == (1,):
        return value
    return _Value(value.name, (*value.shape, 1), value.dtype, lambda first, after: value.rows(first, after)[:, None])


def _constant(node: Any) -> list[Any]:  # noqa: ANN401
    if node.op_type != "Constant" or not node.output:
        return []
    return [attribute for attribute in node.attribute if attribute.name == "value" and attribute.HasField("t")]


def _attribute(node: Any, name: str, default: int) -> int:  # noqa: ANN401
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _stored(path: Path, name: str, tensor: Any) -> _Value:  # noqa: ANN401
    shape = tuple(tensor.dims)
    code = tensor.data_type
    known = {**_DTYPES, **_WIDER}
    if any(axis < 0 for axis in shape):
        raise ImportFormatError(str(path), f"its shape is {list(shape)}", f"tensor {name!r}")
    if code == _BFLOAT16:
        halves = _numbers(path, name, tensor, shape, np.dtype("<u2"))
        rows: Rows = lambda first, after: widened(halves(first, after))  # noqa: E731
        return _Value(name, shape, np.dtype(np.float32), rows, stored_as="bfloat16")
    if code not in known:
        return _Value(name, shape, np.dtype(np.void), partial(_unreadable, path, name), stored_as=f"the type {code}")
    dtype = np.dtype(known[code])
    return _Value(name, shape, dtype, _numbers(path, name, tensor, shape, dtype))


def _unreadable(path: Path, name: str, _first: int, _after: int) -> AnyArray:
    raise ImportFormatError(str(path), "its type is not read", f"tensor {name!r}")


def _numbers(path: Path, name: str, tensor: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:  # noqa: ANN401
    wanted = prod(shape) * dtype.itemsize
    if tensor.data_location == _EXTERNAL:
        return _external(path, name, tensor, shape, dtype)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != wanted:
            reason = f"it has {len(tensor.raw_data)} bytes, {list(shape)} needs {wanted}"
            raise ImportFormatError(str(path), reason, f"tensor {name!r}")
        whole = np.frombuffer(tensor.raw_data, dtype).reshape(shape)
    else:
        whole = _typed(path, name, tensor, shape, dtype)
    return lambda first, after: whole[first:after] if shape else whole


def _typed(path: Path, name: str, tensor: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:  # noqa: ANN401
    """Numbers in the fields of their type; 16-bit ones are integers of 32 bits there."""
    values = getattr(tensor, _FIELDS.get(dtype.str, "int32_data"))
    if len(values) != prod(shape):
        reason = f"it has {len(values)} numbers, {list(shape)} needs {prod(shape)}"
        raise ImportFormatError(str(path), reason, f"tensor {name!r}")
    bits = np.dtype(np.uint16) if dtype == np.float16 else dtype
    try:
        return np.array(values, dtype=bits).view(dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise ImportFormatError(str(path), str(error), f"tensor {name!r}") from None


def _external(path: Path, name: str, tensor: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:  # noqa: ANN401
    said = {entry.key: entry.value for entry in tensor.external_data}
    file = _beside_model(path, name, said.get("location", ""))
    wanted = prod(shape) * dtype.itemsize
    size = file.stat().st_size
    offset, length = (_size(path, name, said, key, default) for key, default in (("offset", 0), ("length", wanted)))
    if length != wanted or offset + wanted > size:
        reason = f"{list(shape)} needs {wanted} bytes; {length} at {offset} of {file.name} ({size} bytes) are promised"
        raise ImportFormatError(str(path), reason, f"tensor {name!r}")
    width = (prod(shape[1:]) if shape else 1) * dtype.itemsize

    def rows(first: int, after: int) -> AnyArray:
        with file.open("rb") as opened:
            opened.seek(offset + first * width)
            data = opened.read((after - first) * width)
        if len(data) != (after - first) * width:
            raise ImportFormatError(str(path), f"{file.name} ends too early", f"tensor {name!r}")
        block = np.frombuffer(data, dtype)
        return block.reshape(after - first, *shape[1:]) if shape else block.reshape(())

    return rows


def _beside_model(path: Path, name: str, location: str) -> Path:
    """The file of external data, which must lie in the model's own folder or below it, links followed."""
    if not location or "\0" in location:
        raise ImportFormatError(str(path), "its external data has no location", f"tensor {name!r}")
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
        inside = file.is_relative_to(folder) and not Path(location).is_absolute()
        found = inside and file.is_file()
    except (OSError, RuntimeError):
        inside = found = False
    if not inside:
        raise ImportFormatError(str(path), f"{location!r} is outside the model's folder", f"tensor {name!r}")
    if not found:
        raise ImportFormatError(str(path), f"there is no file {location!r} beside the model", f"tensor {name!r}")
    return file


def _size(path: Path, name: str, said: Mapping[str, str], key: str, default: int) -> int:
    text = said.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ImportFormatError(str(path), f"the {key} of its external data is {text!r}", f"tensor {name!r}")
    return int(text)
