"""Binary bodies into lookup requests: raw integers, `.npy`, `.npz`. Every length is checked against what is there."""

import io
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

import numpy as np

from service import npyfile
from service.api.json_body import check_weights
from service.api.limits import Limits
from service.api.media import NPY, NPZ, OCTETS
from service.api.nested import MAX_AXES
from service.api.options import DEFAULT_SCALARS, SCALAR_FIELDS, Scalars, from_query_text, read_scalars
from service.errors import InvalidRequest, RequestTooLarge, ServiceError
from service.layout import Layout
from service.npyfile import AnyArray
from service.types import IdBatch, LookupRequest, MaskArray, WeightArray

_INT64: Final = np.dtype("<i8")
_RAW_DTYPES: Final[dict[str, np.dtype[Any]]] = {"int64": _INT64, "int32": np.dtype("<i4")}
_SHAPE: Final = re.compile(r"[0-9]{1,18}(,[0-9]{1,18})*")
_LONGEST_QUERY: Final = 4096  # bytes; what is longer is neither parsed nor kept in a cache
_MOST_ENTRIES: Final = 64
_ENTRY: Final = b"PK\x01\x02"
_MEMBERS: Final = frozenset({"ids", "mask", "weights", "offsets"})


class Query(NamedTuple):
    """The query parameters of a binary request; `unweighted` are its scalar fields where it brings no weights."""

    given: Mapping[str, object]
    raw_dtype: np.dtype[Any] = _RAW_DTYPES["int64"]
    shape: tuple[int, ...] | None = None
    unweighted: Scalars = DEFAULT_SCALARS

    def is_int64(self) -> bool:
        """Whether raw ids lie in the body as the table takes them."""
        return self.raw_dtype is _INT64


Decoded: TypeAlias = tuple[LookupRequest, Scalars]
Decoder: TypeAlias = Callable[[bytes, Query, Limits], Decoded]


def reject_query(query_string: bytes, why: str) -> None:
    """Raises InvalidRequest that names the first query parameter, if there is one."""
    if query_string:
        _check_query_length(query_string)
        for name, _ in _pairs(query_string):
            raise InvalidRequest(f"query parameter {name!r} {why}", field=name)


def read_query(query_string: bytes, media: str) -> Query:
    """The query parameters of a request with a body of this type; raises InvalidRequest that names a wrong one."""
    _check_query_length(query_string)
    return _read_query(query_string, media)


def _check_query_length(query_string: bytes) -> None:
    if len(query_string) > _LONGEST_QUERY:
        name = query_string.partition(b"=")[0][:64].decode("latin-1")
        raise InvalidRequest(f"the query has more than {_LONGEST_QUERY} bytes", field=name)


@lru_cache(maxsize=256)
def _read_query(query_string: bytes, media: str) -> Query:
    allowed = SCALAR_FIELDS | ({"ids_dtype", "shape"} if media == OCTETS else frozenset())
    texts: dict[str, str] = {}
    for name, text in _pairs(query_string):
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            raise InvalidRequest(f"unknown query parameter {name!r}; with {media} there are {known}", field=name)
        if name in texts:
            raise InvalidRequest(f"query parameter {name!r} is given twice", field=name)
        texts[name] = text
    raw_dtype = texts.pop("ids_dtype", "int64")
    if raw_dtype not in _RAW_DTYPES:
        raise InvalidRequest("ids_dtype must be int64 or int32", field="ids_dtype")
    shape = texts.pop("shape", None)
    given = {name: from_query_text(name, text) for name, text in texts.items()}
    chosen = None if shape is None else _read_shape(shape)
    # An npz may bring weights, with which its scalar fields are read once more.
    scalars = DEFAULT_SCALARS if media == NPZ else read_scalars(given, weighted=False)
    return Query(given, _RAW_DTYPES[raw_dtype], chosen, scalars)


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=64)
    except ValueError:
        raise InvalidRequest("there are more than 64 query parameters") from None


def _read_shape(text: str) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text):
        raise InvalidRequest("shape must be integers with commas between them, like 32,64", field="shape")
    shape = tuple(int(axis) for axis in text.split(","))
    if len(shape) > MAX_AXES:
        raise InvalidRequest(f"shape has more than {MAX_AXES} axes", field="shape")
    return shape


def _raw(body: bytes, query: Query, limits: Limits) -> Decoded:
    dtype = query.raw_dtype
    if len(body) % dtype.itemsize:
        raise InvalidRequest(f"{len(body)} bytes are not a whole number of little-endian {dtype.name} ids", field="ids")
    ids = np.frombuffer(body, dtype)
    if dtype is not _INT64:
        ids = ids.astype(np.int64)
    if query.shape is None and len(ids) <= limits.max_ids:
        layout = Layout((len(ids),))
    else:
        layout = _raw_layout(len(ids), query.shape)
        limits.check_ids(layout)
    return LookupRequest(IdBatch(ids, layout), options=query.unweighted.options), query.unweighted


def _raw_layout(found: int, shape: tuple[int, ...] | None) -> Layout:
    if shape is None:
        return Layout((found,))
    if math.prod(shape) != found:
        raise InvalidRequest(f"shape {list(shape)} does not hold the {found} ids of the body", field="shape")
    return Layout(shape)


def _npy(body: bytes, query: Query, limits: Limits) -> Decoded:
    ids = _parse("the body", body, "ids")
    return LookupRequest(batch_of(ids, None, limits), options=query.unweighted.options), query.unweighted


def _npz(body: bytes, query: Query, limits: Limits) -> Decoded:
    members = _read_members(body, limits)
    if "ids" not in members:
        raise InvalidRequest("the npz body has no member 'ids'", field="ids")
    scalars = read_scalars(query.given, weighted="weights" in members)
    batch = batch_of(members["ids"], members.get("offsets"), limits)
    mask = _mask(members["mask"], members["ids"]) if "mask" in members else None
    weights = _weights(members["weights"], members["ids"], batch.layout) if "weights" in members else None
    return LookupRequest(batch, mask, weights, scalars.options), scalars


DECODERS: Final[dict[str, Decoder]] = {OCTETS: _raw, NPY: _npy, NPZ: _npz}


def _parse(what: str, data: bytes, field: str) -> AnyArray:
    try:
        return npyfile.parse(data)
    except ValueError as error:
        raise InvalidRequest(f"{what} is not an npy array: {error}", field=field) from None


def _read_members(body: bytes, limits: Limits) -> dict[str, AnyArray]:
    if body.count(_ENTRY) > _MOST_ENTRIES:  # zipfile would read them all before it could be asked how many
        raise InvalidRequest(f"the npz archive has more than {_MOST_ENTRIES} members")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = _inflate(archive, limits.max_body_bytes)
    except ServiceError:
        raise
    except npyfile.ARCHIVE_ERRORS as error:
        raise InvalidRequest(f"the body is not a readable npz archive: {error}") from None
    return {name: _parse(f"the member {name!r}", data, name) for name, data in members}


def _inflate(archive: zipfile.ZipFile, limit: int) -> list[tuple[str, bytes]]:
    """Name and content of every member; what they inflate to is bounded together, whatever they claim."""
    found: dict[str, bytes] = {}
    left = limit
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name not in _MEMBERS or name in found:
            known = ", ".join(sorted(_MEMBERS))
            raise InvalidRequest(
                f"the npz member {info.filename!r} is unknown or occurs twice; there are {known}", field=name
            )
        with archive.open(info) as member:
            data = member.read(left + 1)
        if len(data) > left:
            raise RequestTooLarge("the inflated npz body in bytes", "EMBEDDING_MAX_BODY_BYTES", limit)
        left -= len(data)
        found[name] = data
    return list(found.items())


def batch_of(ids: AnyArray, offsets: AnyArray | None, limits: Limits) -> IdBatch:
    """An array of integers as ids, a flat one with `offsets` as a ragged batch; raises InvalidRequest."""
    if ids.dtype.kind not in "iu":
        raise InvalidRequest(f"ids must be integers, not {ids.dtype.name}", field="ids")
    if ids.ndim == 0:
        raise InvalidRequest("ids must be an array of at least one axis, not a bare number", field="ids")
    if ids.ndim > MAX_AXES:
        raise InvalidRequest(f"ids have more than {MAX_AXES} axes", field="ids")
    layout = Layout(ids.shape) if offsets is None else ragged_layout(ids.shape, offsets)
    limits.check_ids(layout)
    return _int64(ids, layout)


def _int64(ids: AnyArray, layout: Layout) -> IdBatch:
    flat = np.ascontiguousarray(ids).ravel()
    if flat.dtype.kind == "u" and flat.dtype.itemsize == 8:
        wide = flat > np.iinfo(np.int64).max
        exact = {position: int(flat[position]) for position in np.flatnonzero(wide).tolist()}
        return IdBatch(np.where(wide, 0, flat).astype(np.int64) - wide, layout, exact)
    return IdBatch(flat.astype(np.int64, copy=False), layout)


def ragged_layout(shape: tuple[int, ...], offsets: AnyArray) -> Layout:
    """The layout of flat ids, of this shape, whose rows begin at `offsets`; raises InvalidRequest."""
    if len(shape) != 1:
        raise InvalidRequest(f"with offsets the ids must be flat, not of shape {list(shape)}", field="ids")
    (size,) = shape
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.size == 0:
        raise InvalidRequest("offsets must be a flat array of batch + 1 integers", field="offsets")
    bounds = offsets.astype(object) if offsets.dtype.itemsize == 8 else offsets.astype(np.int64)
    if bounds[0] != 0 or bounds[-1] != size:
        raise InvalidRequest(
            f"offsets must begin with 0 and end with the {size} ids, not {bounds[0]} and {bounds[-1]}",
            field="offsets",
        )
    lengths = np.diff(bounds)
    if (lengths < 0).any():
        first = int(np.argmax(lengths < 0))
        raise InvalidRequest(
            f"offsets must ascend; offsets[{first + 1}] is less than the one before", field=f"offsets[{first + 1}]"
        )
    return Layout.ragged(lengths.astype(np.int64))


def _mask(mask: AnyArray, ids: AnyArray) -> MaskArray:
    flat = _like_ids(mask, ids, "mask")
    if flat.dtype.kind not in "biu" or (flat.dtype.kind != "b" and not np.isin(flat, (0, 1)).all()):
        raise InvalidRequest("mask must hold booleans, or integers that are 0 or 1", field="mask")
    return flat.astype(np.bool_)


def _weights(weights: AnyArray, ids: AnyArray, layout: Layout) -> WeightArray:
    flat = _like_ids(weights, ids, "weights")
    if flat.dtype.kind not in "fiu":
        raise InvalidRequest(f"weights must be numbers, not {flat.dtype.name}", field="weights")
    with np.errstate(over="ignore"):
        wide = flat.astype(np.float64)
    check_weights(wide, layout)
    return wide


def _like_ids(array: AnyArray, ids: AnyArray, name: str) -> AnyArray:
    if array.shape != ids.shape:
        raise InvalidRequest(
            f"{name} must have the shape of the ids, {list(ids.shape)}, and has {list(array.shape)}", field=name
        )
    return np.ascontiguousarray(array).ravel()
