"""Lookup results as bytes: one function per media type, joined through `ENCODERS`."""

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
import pybase64

from service import npyfile
from service.api.answer import Buffer
from service.api.json_text import array_text
from service.api.media import JSON, NPY, NPZ, OCTETS
from service.api.options import Encoding
from service.types import LookupResult, Selection, TableVersion, VectorArray

Encoder: TypeAlias = Callable[[LookupResult, TableVersion, Encoding], Iterator[Buffer]]
"""The pieces of a body, made one after the other."""

_REPEATED: Final = 4096
"""Positions of a mask whose text is kept where all of them count: at most 20 KB each."""


def octets(vectors: VectorArray) -> Buffer:
    """The vectors as row-major little-endian bytes, without a copy where there is something to show."""
    return vectors.data.cast("B") if vectors.size else b""


@lru_cache(maxsize=512)
def object_head(table: str, version: int, shape: tuple[int, ...], dtype: str) -> bytes:
    """The JSON object of an answer up to its vectors."""
    head = {"table": table, "version": version, "shape": shape, "dtype": dtype}
    return orjson.dumps(head)[:-1] + b',"vectors":'


def mask_and_end(selection: Selection) -> bytes:
    """The JSON object of an answer from behind its vectors on."""
    if selection.mask is None and selection.padding_id is None and len(selection.ids) <= _REPEATED:
        return _all_count(selection.shape)
    mask = selection.counting().reshape(selection.shape)
    return b',"mask":' + orjson.dumps(mask, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"


@lru_cache(maxsize=256)
def _all_count(shape: tuple[int, ...]) -> bytes:
    return b',"mask":' + orjson.dumps(np.ones(shape, dtype=np.bool_), option=orjson.OPT_SERIALIZE_NUMPY) + b"}"


def json_pieces(result: LookupResult, table: TableVersion, encoding: Encoding) -> Iterator[Buffer]:
    """The answer as a JSON object."""
    vectors = result.vectors
    yield object_head(table.name, table.version, vectors.shape, result.dtype)
    if encoding == "float":
        yield from array_text(vectors)
    else:
        yield b'"' + pybase64.b64encode(octets(vectors)) + b'"'
    if result.mask is not None:
        yield b',"mask":'
        yield from array_text(result.mask)
    yield b"}"


def _octets(result: LookupResult, _table: TableVersion, _encoding: Encoding) -> Iterator[Buffer]:
    yield octets(result.vectors)


def _npy(result: LookupResult, _table: TableVersion, _encoding: Encoding) -> Iterator[Buffer]:
    yield npyfile.header_bytes(result.vectors.shape, result.dtype)
    yield octets(result.vectors)


def _npz(result: LookupResult, _table: TableVersion, _encoding: Encoding) -> Iterator[Buffer]:
    arrays: dict[str, np.ndarray[Any, Any]] = {"vectors": result.vectors}
    if result.mask is not None:
        arrays["mask"] = result.mask
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # stored: compressing floats costs time and gains little
    yield file.getbuffer()


ENCODERS: Final[dict[str, Encoder]] = {JSON: json_pieces, OCTETS: _octets, NPY: _npy, NPZ: _npz}
