"""Lookup results as bytes: one function per media type, joined through `ENCODERS`."""

import io
import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import pybase64

from service import npyfile
from service.api.json_text import JsonText
from service.api.limits import Limits
from service.api.media import JSON, NPY, NPZ, OCTETS
from service.api.options import Encoding, Scalars
from service.table import EmbeddingTable
from service.types import LookupRequest, LookupResult, TableVersion, VectorArray

Body: TypeAlias = bytes | memoryview
Encoder: TypeAlias = Callable[[LookupResult, TableVersion, Encoding, Limits], Body]


def check_answer_size(
    table: EmbeddingTable, request: LookupRequest, media: str, scalars: Scalars, limits: Limits, taken: int = 0
) -> int:
    """How many bytes the answer has at least, with `taken` before it; raises RequestTooLarge before any is made.

    A JSON number has at least four ("0.0,"). An axis of zero counts as one: padding a batch of no rows to a
    length must not cost more than the limit either. What passes is checked again as it is written.
    """
    options = request.options
    number = 2.0 if options.dtype == "float16" else 4.0
    if media == JSON:
        number = 4.0 if scalars.encoding == "float" else number * 4 / 3
    numbers = math.prod(max(1, axis) for axis in table.result_shape(request))
    positions = 0 if options.pooling != "none" else numbers // table.embedding_dim
    found = taken + math.ceil(numbers * number)
    limits.check_answer(found)
    limits.check_positions(positions)
    return found


def octets(vectors: VectorArray) -> Body:
    """The vectors as row-major little-endian bytes, without a copy where there is something to show."""
    return vectors.reshape(-1).data.cast("B") if vectors.size else b""


def write_json(text: JsonText, result: LookupResult, table: TableVersion, encoding: Encoding) -> None:
    """Writes the answer as a JSON object."""
    vectors = result.vectors
    head = {"table": table.name, "version": table.version, "shape": vectors.shape, "dtype": vectors.dtype.name}
    text.write_object_head(head)
    text.write(b',"vectors":')
    if encoding == "float":
        text.write_array(vectors)
    else:
        text.write(b'"' + pybase64.b64encode(octets(vectors)) + b'"')
    if result.mask is not None:
        text.write(b',"mask":')
        text.write_array(result.mask)
    text.write(b"}")


def _json(result: LookupResult, table: TableVersion, encoding: Encoding, limits: Limits) -> Body:
    text = JsonText(limits)
    write_json(text, result, table, encoding)
    return text.joined()


def _octets(result: LookupResult, _table: TableVersion, _encoding: Encoding, _limits: Limits) -> Body:
    return octets(result.vectors)


def _npy(result: LookupResult, _table: TableVersion, _encoding: Encoding, limits: Limits) -> Body:
    body = npyfile.dump(result.vectors)
    limits.check_answer(len(body))
    return body


def _npz(result: LookupResult, _table: TableVersion, _encoding: Encoding, limits: Limits) -> Body:
    arrays = {"vectors": result.vectors} if result.mask is None else {"vectors": result.vectors, "mask": result.mask}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)  # stored: compressing floats costs time and gains little
    body = file.getbuffer()
    limits.check_answer(len(body))
    return body


ENCODERS: Final[dict[str, Encoder]] = {JSON: _json, OCTETS: _octets, NPY: _npy, NPZ: _npz}
