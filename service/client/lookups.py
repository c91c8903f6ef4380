"""One lookup as a call, and its answer as arrays. Ids go as bare int64 wherever these can carry what was asked."""

import base64
import io
import json
from functools import lru_cache
from typing import Any, Final, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.answers import Lookup
from service.client.calling import JSON, NPZ, OCTETS, Call
from service.client.errors import digits_of, read_from, unreadable
from service.client.inputs import Batch, nested
from service.client.masks import mask_shape
from service.client.options import Options, query_of, target_of
from service.types import MaskArray, VectorArray

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class Question(NamedTuple):
    """What is asked of which version of which table."""

    table: str
    batch: Batch
    options: Options
    version: int | None = None
    label: str | None = None

    @property
    def is_pooled(self) -> bool:
        return self.options.get("pooling", "none") != "none"

    def pinned(self, version: int) -> "Question":
        """The same, of this version."""
        return self._replace(version=version, label=None)


def call_of(question: Question, *, with_mask: bool = False) -> Call:
    """The request; the answer is bare vectors, those of tokens JSON, and with the mask an npz."""
    batch, options = question.batch, question.options
    path = target_of(question.table, question.version, question.label)
    has_tokens = not isinstance(batch.values, np.ndarray)
    accept = NPZ if with_mask else JSON if has_tokens else OCTETS
    if has_tokens or batch.exact:
        encoding = {"encoding": "base64"} if has_tokens else {}
        body = json_text({**fields_of(batch), **options, **encoding}, batch)
        return Call("POST", path, "read", body, JSON, accept)
    ids: NDArray[np.int64] = batch.values  # type: ignore[assignment]  # no tokens, so these are
    if batch.layout.ragged_lengths is None and batch.mask is None and batch.weights is None:
        shape = batch.layout.shape
        query = query_of(options, None if len(shape) == 1 else shape)
        return Call("POST", path + query, "read", ids.astype("<i8", copy=False).tobytes(), OCTETS, accept)
    return Call("POST", path + query_of(options), "read", _npz(batch), NPZ, accept)


def fields_of(batch: Batch) -> dict[str, Any]:
    """A batch as the fields of a JSON body; ids beyond 64 bits are left to `json_text`."""
    if isinstance(batch.values, np.ndarray):
        found = {"ids": nested(batch.values.tolist(), batch.layout)}
    else:
        found = {"tokens": nested(list(batch.values), batch.layout)}
    if batch.mask is not None:
        found["mask"] = nested(batch.mask.tolist(), batch.layout)
    if batch.weights is not None:
        found["weights"] = nested(batch.weights.tolist(), batch.layout)
    return found


def json_text(fields: dict[str, Any], batch: Batch) -> bytes:
    """An object with the fields of a lookup as JSON, every id as it was given."""
    if not batch.exact:
        return json.dumps(fields, separators=(",", ":")).encode()
    ids = _written(nested(list(batch.integers()), batch.layout))
    rest = json.dumps({name: value for name, value in fields.items() if name != "ids"}, separators=(",", ":"))
    return f'{{"ids":{ids}{"" if rest == "{}" else ","}{rest[1:]}'.encode()


def _written(ids: list[Any] | int) -> str:
    if isinstance(ids, int):
        return digits_of(ids)
    return f"[{','.join(map(_written, ids))}]"


def _npz(batch: Batch) -> bytes:
    """Ids, and what goes with them, in the shape of the ids; those of a ragged batch are flat, with offsets."""
    layout = batch.layout
    shape = layout.shape if layout.ragged_lengths is None else (layout.total,)
    arrays: dict[str, NDArray[Any]] = {"ids": np.reshape(batch.values, shape)}
    if layout.ragged_lengths is not None:
        arrays["offsets"] = np.concatenate([[0], np.cumsum(layout.ragged_lengths)])
    if batch.mask is not None:
        arrays["mask"] = batch.mask.reshape(shape)
    if batch.weights is not None:
        arrays["weights"] = batch.weights.reshape(shape)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called `allow_pickle`
    return file.getvalue()


# Answers


class Vectors(NamedTuple):
    """An answer whose mask is not made yet."""

    vectors: VectorArray
    table: str
    version: int


def vectors_of(response: httpx.Response, question: Question) -> Vectors:
    """Bare vectors, with what the header says of them; raises UnexpectedAnswer."""
    headers = response.headers
    try:
        shape, dtype = _shape(headers["embedding-shape"]), _DTYPES[headers["embedding-dtype"]]
        vectors = _answering(question, np.frombuffer(response.content, dtype).reshape(shape))
        return Vectors(vectors, headers["embedding-table"], int(headers["embedding-version"]))
    except (KeyError, ValueError) as error:
        raise unreadable(response, f"{type(error).__name__} {error}") from error


@lru_cache(maxsize=1024)
def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(map(int, text.split(",")))
    if min(shape) < 0:
        raise ValueError(f"the shape is {text}")
    return shape


def _answering(question: Question, vectors: NDArray[Any]) -> NDArray[Any]:
    """`vectors`, which are as many as were asked for; raises ValueError."""
    axes = mask_shape(question.batch.layout, question.options)
    if question.is_pooled or question.options.get("flatten"):
        axes = axes[:-1]
    if vectors.shape[:-1] != axes:
        raise ValueError(f"the shape is {vectors.shape} for ids of {question.batch.layout.shape}")
    return vectors


def with_mask_of(response: httpx.Response, question: Question) -> Lookup:
    """Vectors and mask of an npz; raises UnexpectedAnswer."""
    headers = response.headers
    with read_from(response), np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        vectors, mask = _answering(question, arrays["vectors"]), arrays.get("mask")
        if mask is not None:
            mask = _frozen(mask.reshape(mask_shape(question.batch.layout, question.options)))
        return Lookup(_frozen(vectors), mask, headers["embedding-table"], int(headers["embedding-version"]))


def lookup_of(content: dict[str, Any], question: Question) -> Lookup:
    """One answer in JSON with base64; raises KeyError, TypeError, ValueError where it is none."""
    data = np.frombuffer(base64.b64decode(content["vectors"]), _DTYPES[content["dtype"]])
    mask: MaskArray | None = None
    if "mask" in content:
        shape = mask_shape(question.batch.layout, question.options)
        mask = _frozen(np.array(content["mask"], dtype=np.bool_).reshape(shape))
    vectors = _answering(question, data.reshape(content["shape"]))
    return Lookup(vectors, mask, content["table"], content["version"])


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
