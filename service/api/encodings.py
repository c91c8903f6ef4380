"""Lookup results as bytes: one function per media type, joined through `ENCODERS`."""

import io
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import orjson
import pybase64

from service import npyfile
from service.api.media import JSON, NPY, NPZ, OCTETS
from service.api.options import Encoding
from service.types import LookupResult, TableVersion, VectorArray

Body: TypeAlias = bytes | memoryview
Encoder: TypeAlias = Callable[[LookupResult, TableVersion, Encoding], Body]


def octets(vectors: VectorArray) -> Body:
    """The vectors as row-major little-endian bytes, without a copy where there is something to show."""
    return vectors.reshape(-1).data.cast("B") if vectors.size else b""


def json_object(result: LookupResult, table: TableVersion, encoding: Encoding) -> dict[str, object]:
    """The answer as the object that JSON carries; `orjson` writes a float32 as its shortest text."""
    vectors = result.vectors
    content: dict[str, object] = {
        "table": table.name,
        "version": table.version,
        "shape": vectors.shape,
        "dtype": vectors.dtype.name,
        "vectors": vectors if encoding == "float" else pybase64.b64encode_as_string(octets(vectors)),
    }
    if result.mask is not None:
        content["mask"] = result.mask
    return content


def dump_json(content: object) -> bytes:
    """`content`, with the arrays in it, as JSON."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _json(result: LookupResult, table: TableVersion, encoding: Encoding) -> Body:
    return dump_json(json_object(result, table, encoding))


def _octets(result: LookupResult, _table: TableVersion, _encoding: Encoding) -> Body:
    return octets(result.vectors)


def _npy(result: LookupResult, _table: TableVersion, _encoding: Encoding) -> Body:
    return npyfile.dump(result.vectors)


def _npz(result: LookupResult, _table: TableVersion, _encoding: Encoding) -> Body:
    arrays = {"vectors": result.vectors} if result.mask is None else {"vectors": result.vectors, "mask": result.mask}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)  # stored: compressing floats costs time and gains little
    return file.getbuffer()


ENCODERS: Final[dict[str, Encoder]] = {JSON: _json, OCTETS: _octets, NPY: _npy, NPZ: _npz}
