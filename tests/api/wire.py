"""Lookups as they go over the wire: every form of a request, every form of an answer. No expectations."""

import base64
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import httpx
import numpy as np
from numpy.typing import NDArray

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
NPY: Final = "application/x-npy"
NPZ: Final = "application/x-npz"
PROBLEM: Final = "application/problem+json"

AnyArray: TypeAlias = NDArray[Any]
Options: TypeAlias = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Ask:
    """A lookup by ids before it has a form."""

    ids: list[Any]
    options: Options = field(default_factory=dict)
    mask: list[Any] | None = None
    weights: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's body with its media type and query parameters."""

    content: bytes
    media: str | None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Got:
    """What an answer holds: `mask` is None where the form has no place for one or it was left out."""

    vectors: AnyArray
    mask: AnyArray | None
    says_mask: bool


# Containers


def npy(array: AnyArray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


def npy_of(header: str, data: bytes = b"") -> bytes:
    """An npy file with this text as its header."""
    text = header.encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def npy_header(shape: str, descr: str = "'<i8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npz(**arrays: AnyArray) -> bytes:
    return zipped({f"{name}.npy": npy(array) for name, array in arrays.items()})


# Requests


def query(options: Options) -> dict[str, str]:
    """Options as query parameters."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items()}


def is_ragged(ids: list[Any]) -> bool:
    return bool(ids) and isinstance(ids[0], list) and len({len(row) for row in ids}) > 1


def _rectangle(ask: Ask) -> AnyArray | None:
    if is_ragged(ask.ids) or ask.mask is not None or ask.weights is not None:
        return None
    return np.array(ask.ids, dtype=np.int64)


def as_json(ask: Ask) -> Sent | None:
    fields: dict[str, object] = {"ids": ask.ids, **ask.options}
    fields |= {name: value for name, value in (("mask", ask.mask), ("weights", ask.weights)) if value is not None}
    return Sent(json.dumps(fields).encode(), JSON)


def _as_raw(ask: Ask, dtype: str) -> Sent | None:
    ids = _rectangle(ask)
    if ids is None:
        return None
    params = query(ask.options)
    if ids.ndim != 1:
        params["shape"] = ",".join(map(str, ids.shape))
    if dtype == "<i4":
        params["ids_dtype"] = "int32"
    return Sent(ids.astype(dtype).tobytes(), OCTETS, params)


def as_int64(ask: Ask) -> Sent | None:
    return _as_raw(ask, "<i8")


def as_int32(ask: Ask) -> Sent | None:
    return _as_raw(ask, "<i4")


def as_npy(ask: Ask) -> Sent | None:
    ids = _rectangle(ask)
    return None if ids is None else Sent(npy(ids), NPY, query(ask.options))


def as_npz(ask: Ask) -> Sent | None:
    ragged = is_ragged(ask.ids)
    given = (("ids", ask.ids, np.int64), ("mask", ask.mask, np.bool_), ("weights", ask.weights, np.float64))
    arrays: dict[str, AnyArray] = {
        name: np.array([cell for row in value for cell in row] if ragged else value, dtype=dtype)
        for name, value, dtype in given
        if value is not None
    }
    if ragged:
        arrays["offsets"] = np.cumsum([0, *map(len, ask.ids)])
    return Sent(npz(**arrays), NPZ, query(ask.options))


REQUESTS: Final[dict[str, Callable[[Ask], Sent | None]]] = {
    "json": as_json,
    "int64": as_int64,
    "int32": as_int32,
    "npy": as_npy,
    "npz": as_npz,
}
"""Each gives None for a lookup that its form cannot say."""


def post(client: httpx.Client, path: str, sent: Sent, accept: str | None = None) -> httpx.Response:
    headers = {} if sent.media is None else {"content-type": sent.media}
    if accept is not None:
        headers["accept"] = accept
    return client.post(path, content=sent.content, params=dict(sent.params), headers=headers)


# Answers


def _shape(answer: httpx.Response) -> tuple[int, ...]:
    return tuple(int(axis) for axis in answer.headers["embedding-shape"].split(","))


def read_json(answer: httpx.Response) -> Got:
    content = answer.json()
    shape, dtype = tuple(content["shape"]), np.dtype(content["dtype"])
    if isinstance(content["vectors"], str):
        raw = base64.b64decode(content["vectors"], validate=True)
        vectors: AnyArray = np.frombuffer(raw, dtype=dtype.newbyteorder("<")).reshape(shape)
    else:
        vectors = np.array(content["vectors"], dtype=np.float64).astype(dtype).reshape(shape)
        if vectors.size == 0:
            assert content["vectors"] == vectors.tolist()
    mask = None if "mask" not in content else np.array(content["mask"], dtype=np.bool_)
    return Got(vectors, mask, says_mask=True)


def read_octets(answer: httpx.Response) -> Got:
    dtype = np.dtype(answer.headers["embedding-dtype"]).newbyteorder("<")
    return Got(np.frombuffer(answer.content, dtype=dtype).reshape(_shape(answer)), None, says_mask=False)


def read_npy(answer: httpx.Response) -> Got:
    return Got(np.load(io.BytesIO(answer.content), allow_pickle=False), None, says_mask=False)


def read_npz(answer: httpx.Response) -> Got:
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as members:
        assert set(members) <= {"vectors", "mask"}
        return Got(members["vectors"], members.get("mask"), says_mask=True)


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """A media type to ask for, the option that goes with it, and how to read what comes."""

    accept: str
    read: Callable[[httpx.Response], Got]
    options: Options = field(default_factory=dict)


ANSWERS: Final = {
    "json": AnswerForm(JSON, read_json),
    "base64": AnswerForm(JSON, read_json, {"encoding": "base64"}),
    "octets": AnswerForm(OCTETS, read_octets),
    "npy": AnswerForm(NPY, read_npy),
    "npz": AnswerForm(NPZ, read_npz),
}
