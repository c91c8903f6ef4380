"""Tensors of the protocol: datatypes, elements as bytes or as JSON, and what of them a lookup is made of."""

import math
import struct
from collections.abc import Callable, Iterator, Set
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from service.api.answer import Buffer
from service.api.json_body import check_weights, mask_of, read_ids, read_tokens, weights_of
from service.api.limits import Limits
from service.api.nested import MAX_AXES, flatten
from service.errors import InvalidRequest
from service.layout import Layout
from service.npyfile import AnyArray
from service.types import IdBatch, MaskArray, TokenBatch, WeightArray

BOOL, BYTES, FP16, FP32, INT64 = "BOOL", "BYTES", "FP16", "FP32", "INT64"
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    BOOL: np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    INT64: np.dtype("<i8"),
    FP16: np.dtype("<f2"),
    FP32: np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The numbers of the protocol; BYTES, strings of any length, are none."""
_INTEGERS: Final = frozenset(name for name, dtype in DTYPES.items() if dtype.kind in "iu")
_NUMBERS: Final = frozenset(name for name, dtype in DTYPES.items() if dtype.kind in "iuf")
_LENGTH: Final = struct.Struct("<I")


class Tensor(NamedTuple):
    """One input. `data` is its elements in row-major order as bytes, or as (nested) JSON.

    `exact` gives the JSON with every integer as it is written.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer | list[Any]
    exact: Callable[[], Any]

    @property
    def elements(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)


def read_shape(value: object, name: str) -> tuple[int, ...]:
    """The shape of an input; raises InvalidRequest."""
    if not isinstance(value, list) or not all(type(axis) is int and 0 <= axis < 1 << 40 for axis in value):
        raise InvalidRequest(f"the shape of input {name!r} must be a list of axes, which are not negative", field=name)
    if not 1 <= len(value) <= MAX_AXES:
        raise InvalidRequest(f"input {name!r} has {len(value)} axes, and needs 1 to {MAX_AXES}", field=name)
    if math.prod(axis or 1 for axis in value) >= _MOST:  # which numpy has no array for, be there elements or not
        raise InvalidRequest(f"the shape of input {name!r} is beyond all limits", field=name)
    return tuple(value)


_MOST: Final = 1 << 60


def ids_of(tensor: Tensor, limits: Limits) -> IdBatch | AnyArray:
    """Ids: as an array where they came as bytes, else as a batch; raises InvalidRequest, RequestTooLarge."""
    _check_datatype(tensor, _INTEGERS)
    if not isinstance(tensor.data, list):
        return array_of(tensor)
    batch = read_ids(tensor.data, tensor.exact, limits)
    return batch._replace(layout=_shaped(batch.layout, tensor))


def tokens_of(tensor: Tensor, limits: Limits) -> TokenBatch:
    """Tokens; raises InvalidRequest, RequestTooLarge."""
    _check_datatype(tensor, {BYTES})
    if isinstance(tensor.data, list):
        batch = read_tokens(tensor.data, limits)
        return TokenBatch(batch.values, _shaped(batch.layout, tensor))
    limits.check_count("tokens", tensor.elements)
    tokens = list(islice(strings(tensor.data, tensor.name), tensor.elements + 1))
    _check_count(tensor, len(tokens))
    return TokenBatch(tokens, Layout(tensor.shape))


def mask_in(tensor: Tensor, shape: tuple[int, ...], layout: Layout, limits: Limits) -> MaskArray:
    """A mask, flat, for ids that were sent in this shape and have this layout; raises InvalidRequest."""
    _check_datatype(tensor, {BOOL})
    _check_like_ids(tensor, shape)
    if isinstance(tensor.data, list):
        return mask_of(_flat(tensor, limits), layout)
    return array_of(tensor).ravel()


def weights_in(tensor: Tensor, shape: tuple[int, ...], layout: Layout, limits: Limits) -> WeightArray:
    """The same for weights; raises InvalidRequest also where one is negative or not finite."""
    _check_datatype(tensor, _NUMBERS)
    _check_like_ids(tensor, shape)
    if isinstance(tensor.data, list):
        return weights_of(_flat(tensor, limits), layout)
    wide = array_of(tensor).ravel().astype(np.float64)
    check_weights(wide, layout)
    return wide


def offsets_in(tensor: Tensor, limits: Limits) -> AnyArray:
    """The offsets of a ragged batch; raises InvalidRequest."""
    _check_datatype(tensor, _INTEGERS)
    if not isinstance(tensor.data, list):
        return array_of(tensor)
    batch = read_ids(tensor.data, tensor.exact, limits, tensor.name)
    if batch.exact:
        raise InvalidRequest(f"input {tensor.name!r} holds an integer beyond 64 bits", field=tensor.name)
    return batch.values.reshape(_shaped(batch.layout, tensor).shape)


def _check_like_ids(tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise InvalidRequest(
            f"input {tensor.name!r} must have the shape of the ids, {list(shape)}, and has {list(tensor.shape)}",
            field=tensor.name,
        )


def _flat(tensor: Tensor, limits: Limits) -> list[Any]:
    flat, layout, _ = flatten(tensor.data, tensor.name, limits)
    _shaped(layout, tensor)
    return flat


def array_of(tensor: Tensor) -> AnyArray:
    """The numbers of a tensor in its shape; raises InvalidRequest."""
    dtype = DTYPES[tensor.datatype]
    data = tensor.data
    assert not isinstance(data, list)  # noqa: S101  (JSON is read by the kind of the input)
    if len(data) != tensor.elements * dtype.itemsize:
        raise InvalidRequest(
            f"input {tensor.name!r} has {len(data)} bytes, and its shape {list(tensor.shape)} of {tensor.datatype} "
            f"needs {tensor.elements * dtype.itemsize}",
            field=tensor.name,
        )
    if dtype.kind == "b":
        return np.asarray(np.frombuffer(data, np.uint8).reshape(tensor.shape) != 0)
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def strings(data: Buffer, name: str) -> Iterator[str]:
    """The elements of BYTES: each is its length, four bytes, little-endian, and as many bytes of UTF-8."""
    at, index = 0, 0
    while at < len(data):
        if at + 4 > len(data):
            raise InvalidRequest(f"element {index} of input {name!r} breaks off in its length", field=name)
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise InvalidRequest(
                f"element {index} of input {name!r} should have {length} bytes, {len(data) - at} are left", field=name
            )
        yield text_of(data[at : at + length], name, index)
        at += length
        index += 1


def text_of(data: Buffer, name: str, index: int) -> str:
    """One element of BYTES as text; raises InvalidRequest."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"element {index} of input {name!r} is not UTF-8", field=name) from None


def _shaped(layout: Layout, tensor: Tensor) -> Layout:
    """The layout that a tensor says of elements that came flat, or nested as it says."""
    if layout.ragged_lengths is None and (layout.shape == tensor.shape or len(layout.shape) == 1):
        _check_count(tensor, layout.total)
        return Layout(tensor.shape)
    raise InvalidRequest(
        f"the data of input {tensor.name!r} is neither flat nor of its shape {list(tensor.shape)}; ragged batches "
        "are flat, with the input 'offsets'",
        field=tensor.name,
    )


def _check_count(tensor: Tensor, found: int) -> None:
    if found != tensor.elements:
        raise InvalidRequest(
            f"input {tensor.name!r} has {found} elements, and its shape {list(tensor.shape)} needs {tensor.elements}",
            field=tensor.name,
        )


def _check_datatype(tensor: Tensor, allowed: Set[str]) -> None:
    if tensor.datatype not in allowed:
        raise InvalidRequest(
            f"input {tensor.name!r} is {tensor.datatype!r}, and must be {' or '.join(sorted(allowed))}",
            field=tensor.name,
        )
