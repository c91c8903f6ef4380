"""The lookup as an ONNX graph over the files of a version: a model as bytes, which refers to the rows and has none.

Written out field by field, by the numbers of `onnx/onnx.proto3`, which never change: the `onnx` package, of 30 MB and
0.15 s to import, would be asked for seven nodes. The tests read what is written here with that package, and check it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from service.protobuf import delimited, number
from service.types import Combination, RowDtype

IDS: Final = "ids"
"""The input: token ids, int64 of shape (positions,); of a pooling graph (sequences, positions)."""
VECTORS: Final = "vectors"
"""The output of a lookup: float32 of shape (positions, dimension)."""
POOLED: Final = "pooled"
"""The output of a pooling graph: float64 of shape (sequences, dimension)."""
ROWS: Final = "rows"
SCALES: Final = "scales"
"""The initializers: rows as they are stored, and for int8 their scales, float32 of shape (rows, 1)."""
OPSET: Final = 17
"""Of 2022; whatever runs ONNX today knows it."""

_IR_VERSION: Final = 8  # which came with that opset
_FLOAT, _INT64, _DOUBLE = 1, 7, 11
_DATA_TYPES: Final[dict[RowDtype, int]] = {"float32": _FLOAT, "float16": 10, "int8": 3}
_ITEM_BYTES: Final[dict[RowDtype, int]] = {"float32": 4, "float16": 2, "int8": 1}
_EXTERNAL: Final = 1  # TensorProto.DataLocation
_ATTRIBUTE_INT, _ATTRIBUTE_INTS = 2, 7  # AttributeProto.AttributeType
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_PRODUCER: Final = "embedding-table-service"


@dataclass(frozen=True, slots=True)
class Part:
    """A file beside the model, and the `offset` in bytes at which an array begins in it."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class StoredTable:
    """What a graph looks up in: the rows of a version as they are stored, and their scales where they are int8."""

    num_embeddings: int
    embedding_dim: int
    dtype: RowDtype
    rows: Part
    scales: Part | None = None


def lookup_model(table: StoredTable, said: Mapping[str, str] = _NOTHING) -> bytes:
    """Ids -> vectors, bit for bit what a lookup of the service gives. Ids must be checked before: negative ones wrap.

    What is `said` of the table goes into the model's metadata.

    float32: `Gather`. float16: `Gather` and `Cast`. int8: `Gather` and `Cast` of the numbers, `Gather` of the scales,
    `Mul`.
    """
    nodes = _gathered(table, VECTORS)
    vectors = _value(VECTORS, _FLOAT, ["positions", table.embedding_dim])
    model = _model(table, nodes, _value(IDS, _INT64, ["positions"]), vectors)
    return model + b"".join(delimited(14, _pair(key, value)) for key, value in said.items())


def pooling_model(table: StoredTable, combination: Combination) -> bytes:
    """Ids of shape (s, n) -> the sums, added up in float64, or the largest numbers of each n rows: (s, dimension)."""
    if combination == "sum":
        nodes = [
            *_gathered(table, "gathered"),
            _node("Cast", ["gathered"], "wide", _int("to", _DOUBLE)),
            _node("ReduceSum", ["wide", "axis"], POOLED, _int("keepdims", 0)),
        ]
    else:
        nodes = [
            *_gathered(table, "gathered"),
            _node("ReduceMax", ["gathered"], "largest", _ints("axes", [1]), _int("keepdims", 0)),
            _node("Cast", ["largest"], POOLED, _int("to", _DOUBLE)),
        ]
    axis = delimited(5, _tensor("axis", _INT64, [1]) + delimited(9, (1).to_bytes(8, "little")))
    ids = _value(IDS, _INT64, ["sequences", "positions"])
    pooled = _value(POOLED, _DOUBLE, ["sequences", table.embedding_dim])
    return _model(table, nodes, ids, pooled, axis if combination == "sum" else b"")


def probe_model() -> bytes:
    """A lookup whose rows are an input: for trying out what can run one."""
    graph = delimited(1, _node("Gather", [ROWS, IDS], VECTORS)) + delimited(2, b"probe")
    graph += delimited(11, _value(ROWS, _FLOAT, ["rows", "dimension"])) + delimited(
        11, _value(IDS, _INT64, ["positions"])
    )
    return _with_head(graph + delimited(12, _value(VECTORS, _FLOAT, ["positions", "dimension"])))


def _gathered(table: StoredTable, output: str) -> list[bytes]:
    """The nodes that give the rows of `ids` as float32."""
    if table.dtype == "float32":
        return [_node("Gather", [ROWS, IDS], output)]
    stored = _node("Gather", [ROWS, IDS], "stored")
    if table.dtype == "float16":
        return [stored, _node("Cast", ["stored"], output, _int("to", _FLOAT))]
    return [
        stored,
        _node("Cast", ["stored"], "numbers", _int("to", _FLOAT)),
        _node("Gather", [SCALES, IDS], "scale"),
        _node("Mul", ["numbers", "scale"], output),
    ]


# Messages, by the names and numbers of onnx.proto3


def _model(table: StoredTable, nodes: list[bytes], ids: bytes, output: bytes, constants: bytes = b"") -> bytes:
    """ModelProto over the files of a table."""
    graph = b"".join(delimited(1, node) for node in nodes)
    graph += delimited(2, b"embedding table") + _initializers(table) + constants
    return _with_head(graph + delimited(11, ids) + delimited(12, output))


def _with_head(graph: bytes) -> bytes:
    """ModelProto of a GraphProto."""
    opset = number(2, OPSET)
    return number(1, _IR_VERSION) + delimited(2, _PRODUCER.encode()) + delimited(7, graph) + delimited(8, opset)


def _initializers(table: StoredTable) -> bytes:
    """GraphProto.initializer, of external data."""
    shape = [table.num_embeddings, table.embedding_dim]
    length = table.num_embeddings * table.embedding_dim * _ITEM_BYTES[table.dtype]
    rows = _tensor(ROWS, _DATA_TYPES[table.dtype], shape) + _external(table.rows, length)
    if table.scales is None:
        return delimited(5, rows)
    scales = _tensor(SCALES, _FLOAT, [table.num_embeddings, 1]) + _external(table.scales, 4 * table.num_embeddings)
    return delimited(5, rows) + delimited(5, scales)


def _tensor(name: str, data_type: int, shape: list[int]) -> bytes:
    """TensorProto without its data."""
    return b"".join(number(1, axis) for axis in shape) + number(2, data_type) + delimited(8, name.encode())


def _external(part: Part, length: int) -> bytes:
    """TensorProto.external_data and .data_location."""
    entries = {"location": part.file, "offset": part.offset, "length": length}
    pairs = (_pair(key, str(value)) for key, value in entries.items())
    return b"".join(delimited(13, pair) for pair in pairs) + number(14, _EXTERNAL)


def _pair(key: str, value: str) -> bytes:
    """StringStringEntryProto."""
    return delimited(1, key.encode()) + delimited(2, value.encode())


def _node(operator: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    """NodeProto; a node has the name of its output."""
    named = b"".join(delimited(1, name.encode()) for name in inputs) + delimited(2, output.encode())
    return (
        named
        + delimited(3, output.encode())
        + delimited(4, operator.encode())
        + b"".join(delimited(5, attribute) for attribute in attributes)
    )


def _int(name: str, value: int) -> bytes:
    """AttributeProto."""
    return delimited(1, name.encode()) + number(3, value) + number(20, _ATTRIBUTE_INT)


def _ints(name: str, values: list[int]) -> bytes:
    """AttributeProto."""
    return delimited(1, name.encode()) + b"".join(number(8, value) for value in values) + number(20, _ATTRIBUTE_INTS)


def _value(name: str, data_type: int, shape: list[str | int]) -> bytes:
    """ValueInfoProto of a tensor; what is named of its shape may be any number."""
    axes = [number(1, axis) if isinstance(axis, int) else delimited(2, axis.encode()) for axis in shape]
    tensor = number(1, data_type) + delimited(2, b"".join(delimited(1, axis) for axis in axes))
    return delimited(1, name.encode()) + delimited(2, delimited(1, tensor))
