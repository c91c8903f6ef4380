"""What the nodes of an ONNX model look up rows in: the tables that can be read, and why the others cannot be."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Final, NamedTuple

from service.errors import ImportFormatError
from service.importers.onnx_graph import Graph
from service.importers.onnx_model import Message
from service.importers.onnx_operators import attribute, dequantized
from service.importers.onnx_tensors import Value, refusal

_FOLLOWED: Final = {"Gather": 0, "EmbedLayerNormalization": 2}
_NOT_FOLLOWED: Final = {"GatherBlockQuantized": 0, "GatherElements": 0, "GatherND": 0, "QEmbedLayerNormalization": 2}
_TABLE_INPUT: Final = {**_FOLLOWED, **_NOT_FOLLOWED}
"""The input of a node in which it looks up rows."""
_PASSING: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Sub", "Unsqueeze"})
"""Operators that may stand between a Gather and the product of what is gathered and its scale."""
_PRODUCTS: Final = frozenset({"DequantizeLinear", "Div", "Mul"})
_FARTHEST: Final = 8  # of them
_DEEPEST_CALL: Final = 8  # functions that call one another


class UnreadTable(NamedTuple):
    """A table that is looked up and cannot be read: the largest stored tensor it is made of, and why."""

    name: str
    error: ImportFormatError


@dataclass(frozen=True, slots=True)
class Lookup:
    """A node that looks up rows in the tensor `table` of its graph."""

    graph: Graph
    node: Message
    table: str

    @property
    def key(self) -> Hashable:
        """Equal for two lookups of the same rows."""
        after = self._dequantizer()
        return id(self.graph.home(self.table)), self.table, *(after.input[1:] if after else ())

    def value(self) -> Value | UnreadTable | None:
        """The table that is looked up; None where it is none: computed from inputs, a shape, integers, a scale."""
        origin = self.graph.origin(self.table)
        if origin is None or self._is_scale():
            return None
        try:
            return self._read()
        except ImportFormatError as error:
            return None if origin.table is None or self.is_fixed() else UnreadTable(origin.table, error)

    def _read(self) -> Value | None:
        self._check_node()
        value = self.graph.value(self.table)
        if value.dtype.kind == "V":
            raise self._refusal(f"it holds {value.stored_as}, which is not read")
        if len(value.shape) != 2:
            raise self._refusal(f"its shape is {list(value.shape)}, a table has two axes")
        if attribute(self.node, "axis", 0) not in (0, -2):
            raise self._refusal(f"the {self.node.op_type} is along its axis {attribute(self.node, 'axis', 0)}")
        return value if value.dtype.kind == "f" else self._dequantized(value)

    def _check_node(self) -> None:
        if self.node.op_type not in _FOLLOWED:
            raise self._refusal(f"it is looked up by {self.node.op_type}, which is not followed")
        scale = next((other.table for other in self._factors() if other.is_narrow()), None)
        if scale is not None and not self.is_narrow():
            raise self._refusal(f"what is gathered is scaled by what is gathered from {scale!r}, which is not followed")

    def _dequantized(self, value: Value) -> Value | None:
        """What a DequantizeLinear behind the Gather makes of integers; None for those that are no quantised rows."""
        after = self._dequantizer()
        if after is None and value.dtype.itemsize > 2:
            return None
        if after is None:
            raise self._refusal(f"what is gathered is {value.dtype.name}, and no DequantizeLinear follows")
        names = [side for side in after.input[1:3] if side]
        scale = [self.graph.value(side) for side in names if self.graph.origin(side) is not None]
        if len(scale) != len(names) or any(prod(one.shape) != 1 for one in scale) or not scale:
            raise self._refusal("what is gathered is dequantised with other scales than a single one")
        return dequantized(self.graph.path, after, value, *scale)

    def _dequantizer(self) -> Message | None:
        readers = ((output, node) for output in self.node.output for node in self.graph.readers.get(output, ()))
        return next((node for output, node in readers if _dequantizes(node, output)), None)

    def is_fixed(self) -> bool:
        """Whether the ids are not the model's input: then nobody looks up by them."""
        return all(self.graph.origin(name) is not None for name in self.node.input)

    def _is_scale(self) -> bool:
        """Whether what is gathered is one number that multiplies a row which is gathered elsewhere."""
        return self.is_narrow() and any(not other.is_narrow() for other in self._factors())

    def is_narrow(self) -> bool:
        """Whether the table has one number for each id."""
        tensor = self.graph.tensor(self.table)
        try:
            shape = self.graph.value(self.table).shape if tensor is None else tuple(tensor.dims)
        except ImportFormatError:
            return False
        return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)

    def _factors(self) -> Iterator["Lookup"]:
        """The lookups whose rows are multiplied with those of this one."""
        for name in self._onwards():
            products = [one for one in self.graph.readers.get(name, ()) if one.op_type in _PRODUCTS]
            others = (self._behind(side) for one in products for side in one.input if side != name)
            yield from (other for other in others if other is not None)

    def _onwards(self) -> list[str]:
        """The names of what is gathered, as it goes on."""
        names = list(self.node.output[:1])
        for name in names:
            passing = [one for one in self.graph.readers.get(name, ()) if one.op_type in _PASSING and one.output]
            if len(names) < _FARTHEST:
                names += [one.output[0] for one in passing if one.input[0] == name]
        return names

    def _behind(self, name: str) -> "Lookup | None":
        """The Gather that gives a tensor; None where there is none, it is this one, or it always gives the same."""
        node = self.graph.maker(name)
        for _ in range(_FARTHEST):
            if node is None or node.op_type not in _PASSING or not node.input:
                break
            node = self.graph.maker(node.input[0])
        if node is None or node.op_type != "Gather" or node.output == self.node.output or len(node.input) < 2:
            return None
        other = Lookup(self.graph, node, node.input[0])
        return None if self.graph.origin(other.table) is None or other.is_fixed() else other

    def _refusal(self, reason: str) -> ImportFormatError:
        return refusal(self.graph.path, self.table, reason)


def tables(graph: Graph, functions: Sequence[Message] = ()) -> tuple[list[Value], list[UnreadTable]]:
    """The tables that are looked up in a graph and those within it, each once, under names that differ; and the rest.

    What cannot be read is not forgotten: it may be the table that is wanted.
    """
    found: dict[Hashable, tuple[Lookup, Value]] = {}
    unread: dict[Hashable, UnreadTable] = {}
    for lookup in _lookups(graph, functions):
        value = lookup.value()
        if isinstance(value, UnreadTable):
            unread.setdefault(lookup.key, value)
        elif value is not None:
            found.setdefault(lookup.key, (lookup, value))
    return _named(list(found.values())), [one for key, one in unread.items() if key not in found]


def _lookups(graph: Graph, functions: Sequence[Message]) -> Iterator[Lookup]:
    inputs = _table_inputs(functions)
    for inner in graph.all():
        for node in inner.nodes:
            places = inputs.get(node.op_type, ())
            yield from (Lookup(inner, node, node.input[at]) for at in places if at < len(node.input))


def _table_inputs(functions: Sequence[Message]) -> dict[str, set[int]]:
    """The inputs in which nodes look up rows by the kind of node, which may be a call of the model's own functions."""
    inputs = {kind: {at} for kind, at in _TABLE_INPUT.items()}
    for _ in range(_DEEPEST_CALL if functions else 0):
        for function in functions:
            places = ((node, at) for node in function.node for at in inputs.get(node.op_type, ()))
            names = {node.input[at] for node, at in places if at < len(node.input)}
            found = {at for at, name in enumerate(function.input) if name in names}
            inputs[function.name] = inputs.get(function.name, set()) | found
    return inputs


def _named(found: Sequence[tuple[Lookup, Value]]) -> list[Value]:
    """The tables; those made of the same stored tensor are told apart by what the node takes in, or gives."""
    ways: list[Callable[[int, Lookup, str], str]] = [
        lambda _at, _lookup, name: name,
        lambda _at, lookup, name: name if lookup.table == name else f"{name}:{lookup.table}",
        lambda _at, lookup, name: f"{name}:{lookup.node.output[0]}",
        lambda at, _lookup, name: f"{name}:{at}",
    ]
    labels = [[way(at, lookup, value.name) for at, (lookup, value) in enumerate(found)] for way in ways]
    chosen = (next(row[at] for row in labels if row.count(row[at]) == 1) for at in range(len(found)))
    return [replace(value, name=name) for name, (_, value) in zip(chosen, found, strict=True)]


def _dequantizes(node: Message, name: str) -> bool:
    return node.op_type == "DequantizeLinear" and len(node.input) > 1 and node.input[0] == name
