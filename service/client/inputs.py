"""What a caller gives, ids, tokens, masks and weights, as flat arrays with a layout. Types are checked here."""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Final, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from service.client.errors import InvalidRequest, WrongType
from service.layout import Layout
from service.types import IdArray, MaskArray, WeightArray

_INT64: Final = np.dtype(np.int64)
_NOTHING: Final[Mapping[int, int]] = MappingProxyType({})
_LOW, _HIGH = -(1 << 63), (1 << 63) - 1


class Batch(NamedTuple):
    """Ids or tokens, flat in the order of the caller, with what goes with each position.

    `values` are int64 of shape (n,), or n strings. An id beyond int64 stands there as -1, and in `exact` by its
    position.
    """

    values: IdArray | Sequence[str]
    layout: Layout
    exact: Mapping[int, int] = _NOTHING
    mask: MaskArray | None = None
    weights: WeightArray | None = None

    def rows(self, first: int, stop: int) -> "Batch":
        """Some of the elements of the first axis."""
        start, end = self.bound(first), self.bound(stop)
        return Batch(
            self.values[start:end],
            self._layout(first, stop),
            {position - start: number for position, number in self.exact.items() if start <= position < end},
            None if self.mask is None else self.mask[start:end],
            None if self.weights is None else self.weights[start:end],
        )

    def bound(self, row: int) -> int:
        """The first flat position of an element of the first axis."""
        lengths = self.layout.ragged_lengths
        return row * math.prod(self.layout.shape[1:]) if lengths is None else int(lengths[:row].sum())

    def _layout(self, first: int, stop: int) -> Layout:
        lengths = self.layout.ragged_lengths
        if lengths is None:
            return Layout((stop - first, *self.layout.shape[1:]))
        return Layout.ragged(lengths[first:stop])

    def integers(self) -> list[int]:
        """The ids, each as it was given."""
        assert isinstance(self.values, np.ndarray)  # noqa: S101  (not asked of tokens)
        numbers: list[int] = self.values.tolist()
        for position, number in self.exact.items():
            numbers[position] = number
        return numbers


def read_batch(ids: object, tokens: object, mask: object, weights: object) -> Batch:
    """Either `ids` or `tokens`, with what goes with them; raises InvalidRequest, WrongType that name the place."""
    if (ids is None) == (tokens is None):
        raise invalid("either ids or tokens must be given, and not both", "ids")
    batch = _tokens(tokens) if ids is None else _ids(ids)
    if mask is None and weights is None:
        return batch
    return batch._replace(
        mask=None if mask is None else _mask(mask, batch.layout),
        weights=None if weights is None else _weights(weights, batch.layout),
    )


def invalid(detail: str, field: str) -> InvalidRequest:
    """The error for what is wrong at `field`, before anything is sent."""
    return InvalidRequest(detail, None, {"field": field})


def whole(value: object, field: str) -> int:
    """An integer of any library as an int; raises WrongType for anything else, booleans too."""
    if isinstance(value, bool | np.bool) or not isinstance(value, SupportsIndex):
        raise _wrong(field, "an integer", type(value).__name__)
    return operator.index(value)


def nested(flat: list[Any], layout: Layout) -> list[Any]:
    """Flat elements as the nested lists that they came as."""
    if layout.ragged_lengths is not None:
        ends = np.cumsum(layout.ragged_lengths).tolist()
        return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return _nested(flat, layout.shape)


def _nested(flat: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) == 1:
        return flat
    size = math.prod(shape[1:])
    return [_nested(flat[row * size : (row + 1) * size], shape[1:]) for row in range(shape[0])]


# Ids and tokens


def _ids(ids: object) -> Batch:
    array = _array(ids)
    if array is not None:
        return _of_array(array)
    if isinstance(ids, list) and _all_flat_arrays(ids):
        layout = Layout.ragged([len(row) for row in ids])
        return Batch(np.concatenate(ids, dtype=np.int64), layout)
    flat, layout = _flatten(ids, "ids")
    _check_all(flat, layout, "ids", Integral, "an integer")
    numbers = flat if set(map(type, flat)) <= {int} else [int(number) for number in flat]
    try:
        return Batch(np.array(numbers, dtype=np.int64), layout)
    except OverflowError:
        exact = {position: number for position, number in enumerate(numbers) if not _LOW <= number <= _HIGH}
        values = [-1 if position in exact else number for position, number in enumerate(numbers)]
        return Batch(np.array(values, dtype=np.int64), layout, exact)


def _of_array(array: NDArray[Any]) -> Batch:
    if array.dtype != _INT64:
        if array.dtype.kind == "O":  # integers beyond 64 bits, or anything else
            return _ids(_at_least_one_axis(array, "ids").tolist())
        if array.dtype.kind not in "iu":
            raise _wrong("ids", "integers", array.dtype.name)
        if array.dtype == np.uint64 and array.size and int(array.max()) > _HIGH:
            return _ids(_at_least_one_axis(array, "ids").tolist())
        array = array.astype(np.int64)
    return Batch(_at_least_one_axis(array, "ids").reshape(-1), Layout(array.shape))


def _all_flat_arrays(rows: list[Any]) -> bool:
    return bool(rows) and all(
        isinstance(row, np.ndarray) and row.ndim == 1 and row.dtype.kind in "iu" and row.dtype != np.uint64
        for row in rows
    )


def _tokens(tokens: object) -> Batch:
    if isinstance(tokens, str):
        raise _wrong("tokens", "a list of strings", "str")
    flat, layout = _flatten(tokens, "tokens")
    _check_all(flat, layout, "tokens", str, "a string")
    return Batch(flat, layout)


# What goes with every position


def _mask(mask: object, layout: Layout) -> MaskArray:
    array = _array(mask)
    if array is not None and array.dtype.kind == "b":
        return _like_ids(_at_least_one_axis(array, "mask").reshape(-1), Layout(array.shape), layout, "mask")
    flat, own = _flatten(mask, "mask")
    for position, value in enumerate(flat):
        if not isinstance(value, bool | np.bool | Integral):
            raise _wrong(place("mask", own.place(position)), "a boolean", type(value).__name__)
        if int(value) not in (0, 1):
            where = place("mask", own.place(position))
            raise invalid(f"{where} must be true, false, 1 or 0", where)
    return _like_ids(np.array(flat, dtype=np.bool_), own, layout, "mask")


def _weights(weights: object, layout: Layout) -> WeightArray:
    array = _array(weights)
    if array is not None and array.dtype.kind in "fiu":
        own = Layout(_at_least_one_axis(array, "weights").shape)
        values = array.astype(np.float64).reshape(-1)
    else:
        flat, own = _flatten(weights, "weights")
        _check_all(flat, own, "weights", Real, "a number")
        values = np.array([_float(weight) for weight in flat], dtype=np.float64)
    values = _like_ids(values, own, layout, "weights")
    right = np.isfinite(values) & (values >= 0)
    if not right.all():
        where = place("weights", layout.place(int(np.argmin(right))))
        raise invalid(f"{where} must be finite and not negative", where)
    return values


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _like_ids(flat: NDArray[Any], own: Layout, layout: Layout, name: str) -> NDArray[Any]:
    if own.shape != layout.shape or not np.array_equal(own.lengths(), layout.lengths()):
        raise invalid(f"{name} must have the shape of the ids, {_said(layout)}, and has {_said(own)}", name)
    return flat


def _said(layout: Layout) -> str:
    if layout.ragged_lengths is None:
        return str(list(layout.shape))
    return f"rows of the lengths {layout.ragged_lengths[:20].tolist()}"


# Nested sequences


def _array(value: object) -> NDArray[Any] | None:
    """`value` if it is an array or can be taken as one: of numpy, PyTorch, JAX, pandas. None for sequences."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Integral | Real | str) or not hasattr(value, "__array__"):
        return None
    return np.asarray(value)


def _at_least_one_axis(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.ndim == 0:
        raise _wrong(name, "a sequence or an array of at least one axis", "a bare value")
    return array


def _flatten(value: object, name: str) -> tuple[list[Any], Layout]:
    """The elements of nested sequences in order, and how they are arranged; the last axis of two may be ragged."""
    level = _elements(value)
    if level is None:
        raise _wrong(name, "a list or an array", type(value).__name__)
    shape: tuple[int, ...] = (len(level),)
    lengths: list[int] = []
    while inner := list(_opened(level, shape, lengths, name)):
        if len(shape) > 1:
            _check_equal(lengths, shape, name)
        lengths = [len(element) for element in inner]
        level = list(chain.from_iterable(inner))
        shape = (*shape, max(lengths))
    if len(shape) == 2:
        return level, Layout.ragged(lengths)
    if len(shape) > 2:
        _check_equal(lengths, shape, name)
    return level, Layout(shape)


def _elements(value: object) -> list[Any] | None:
    """The elements of what is a sequence; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple | range):
        return list(value)
    array = _array(value)
    return None if array is None or array.ndim == 0 else list(array.tolist())


def _opened(level: list[Any], shape: tuple[int, ...], lengths: list[int], name: str) -> Iterator[list[Any]]:
    """The elements of every element of a level; none where they are no sequences."""
    if set(map(type, level)) <= {int, str, bool, float}:
        return
    opened = [_elements(element) for element in level]
    if all(element is None for element in opened):
        return
    for position, element in enumerate(opened):
        if element is None:
            layout = Layout.ragged(lengths) if len(shape) == 2 else Layout(shape)
            where = place(name, layout.place(position))
            raise _wrong(where, "a sequence as its neighbours are", type(level[position]).__name__)
        yield element


def _check_equal(lengths: list[int], shape: tuple[int, ...], name: str) -> None:
    if len(set(lengths)) < 2:
        return
    position = next(i for i, length in enumerate(lengths) if length != lengths[0])
    where = place(name, Layout(shape[:-1]).place(position))
    raise invalid(
        f"{where} has {lengths[position]} elements where its neighbours have {lengths[0]}; "
        "only the last axis of a two-dimensional batch may be ragged",
        where,
    )


def _check_all(flat: list[Any], layout: Layout, name: str, kind: type, wanted: str) -> None:
    kinds = set(map(type, flat))
    if kinds <= {str if kind is str else int}:
        return
    for position, value in enumerate(flat):
        if isinstance(value, bool | np.bool) or not isinstance(value, kind):
            raise _wrong(place(name, layout.place(position)), wanted, type(value).__name__)


def place(name: str, index: Sequence[int]) -> str:
    """`ids` and [3, 2] as `ids[3][2]`."""
    return name + "".join(f"[{axis}]" for axis in index)


def _wrong(where: str, wanted: str, found: str) -> WrongType:
    return WrongType(f"{where} must be {wanted}, not {found}", None, {"field": where})
