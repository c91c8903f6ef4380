"""The answer to an inference request over HTTP: JSON, with those outputs behind it that are wanted as bytes."""

import asyncio
import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

import orjson

from service.api.answer import Answer, Buffer, Headers, Stream
from service.api.json_text import JsonText, array_text
from service.api.limits import Limits
from service.api.media import JSON, OCTETS
from service.api.options import DEFAULT_SCALARS
from service.api.sizes import check_size
from service.api.turns import Turns
from service.api.vectors import Vectors, find, find_in_turns, is_large
from service.dialects.v2.inference import VECTORS, Inference
from service.dialects.v2.tensors import BOOL, DTYPES, FP16, FP32
from service.table import EmbeddingTable
from service.types import MaskArray

JSON_HEADERS: Final[Headers] = ((b"content-type", JSON.encode()),)
HEADER_LENGTH: Final = b"inference-header-content-length"
_ENCODE: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"gzip": lambda body: gzip.compress(body, compresslevel=1, mtime=0),
    b"deflate": lambda body: zlib.compress(body, level=1),
}
"""Vectors hardly get smaller with more work: random float32 take 92 % at level 1 and at level 6."""
_AT_ONCE: Final = 1 << 15  # bytes that are compressed on the event loop


class Work(NamedTuple):
    """An inference in a table, and the size of its answer, which is within the limits."""

    table: EmbeddingTable
    inference: Inference
    large: bool
    limits: Limits

    @classmethod
    def of(cls, table: EmbeddingTable, inference: Inference, limits: Limits) -> "Work":
        """Raises RequestTooLarge."""
        text = any(not wanted.binary for wanted in inference.wanted)
        media = JSON if text else OCTETS
        numbers, _ = check_size(table, inference.request, media, DEFAULT_SCALARS, limits)
        return cls(table, inference, is_large(table, inference.request, numbers, text=text), limits)

    def at_once(self) -> Answer:
        """The answer, if it is not large; raises what `EmbeddingTable.lookup` raises, RequestTooLarge."""
        vectors = find(self.table, self.inference.request)
        text = JsonText(self.limits)
        text.write(self._json(vectors))
        return self._answer(text, list(self._behind(vectors)))

    async def in_turns(self) -> Answer:
        """The same for a large one, made while others have their turns."""
        await Turns().begin()
        vectors = await find_in_turns(self.table, self.inference.request)
        text = JsonText(self.limits)
        await text.write_in_turns(self._json(vectors))
        return self._answer(text, list(self._behind(vectors)))

    def _json(self, vectors: Vectors) -> Iterator[Buffer]:
        identity = self.table.identity
        yield start_of(identity.name, identity.version, self.inference.id)
        for place, wanted in enumerate(self.inference.wanted):
            yield b"," if place else b""
            is_vectors = wanted.name == VECTORS
            shape = vectors.shape if is_vectors else vectors.mask_shape
            datatype = (FP32 if vectors.dtype == "float32" else FP16) if is_vectors else BOOL
            if wanted.binary:
                yield entry_of(wanted.name, datatype, shape)
            else:
                yield said_of(wanted.name, datatype, shape)
                yield from vectors.flat_text() if is_vectors else array_text(_mask(vectors))
                yield b"}"
        yield b"]}"

    def _behind(self, vectors: Vectors) -> Iterator[Stream]:
        for wanted in self.inference.wanted:
            if wanted.binary and wanted.name == VECTORS:
                yield vectors.octets()
            elif wanted.binary:
                mask = _mask(vectors)
                yield Stream(len(mask), iter((mask.data.cast("B") if len(mask) else b"",)))

    def _answer(self, text: JsonText, behind: list[Stream]) -> Answer:
        length = text.size + sum(part.length for part in behind)
        self.limits.check_answer(length)
        pieces = chain(text.pieces, *(part.pieces for part in behind))
        body = Stream(length, pieces) if self.large else tuple(pieces)
        return Answer(200, headers_of(text.size) if behind else JSON_HEADERS, body)


def _mask(vectors: Vectors) -> MaskArray:
    mask = vectors.mask()
    assert mask is not None  # noqa: S101  (it is not asked for with pooling)
    return mask


@lru_cache(maxsize=512)
def start_of(table: str, version: int, identity: str | None) -> bytes:
    """The JSON of an answer up to its first output."""
    said = {"model_name": table, "model_version": str(version)}
    head = {"id": identity, **said} if identity is not None else said
    return orjson.dumps(head)[:-1] + b',"outputs":['


@lru_cache(maxsize=512)
def said_of(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """What the JSON says of an output up to its data."""
    return orjson.dumps({"name": name, "datatype": datatype, "shape": shape})[:-1] + b',"data":'


@lru_cache(maxsize=512)
def entry_of(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """What the JSON says of an output whose bytes follow behind it."""
    size = DTYPES[datatype].itemsize * math.prod(shape)
    said = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return orjson.dumps(said)


@lru_cache(maxsize=512)
def headers_of(json_length: int) -> Headers:
    """Those of an answer with bytes behind so much JSON."""
    return ((b"content-type", OCTETS.encode()), (HEADER_LENGTH, b"%d" % json_length))


async def compressed(answer: Answer, coding: bytes) -> Answer:
    """The answer in a content coding; its header length still counts the JSON as it was."""
    pieces = answer.body.pieces if isinstance(answer.body, Stream) else answer.body
    body = b"".join(pieces)
    encode = _ENCODE[coding]
    small = encode(body) if len(body) <= _AT_ONCE else await asyncio.to_thread(encode, body)
    return Answer(answer.status, (*answer.headers, (b"content-encoding", coding)), (small,))


def accepted_coding(accept: bytes | None) -> bytes | None:
    """The coding of an answer: what Accept-Encoding names alone, as a client does that means it.

    HTTP libraries offer a list of all they know with every request; compressing vectors would cost thirty times what
    the lookup does, and saves a twelfth.
    """
    named = [] if accept is None else [part.strip().lower() for part in accept.split(b",")]
    wanted = [name for name in named if name not in (b"identity", b"")]
    return wanted[0] if len(wanted) == 1 and wanted[0] in _ENCODE else None
