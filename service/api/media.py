"""Media types: what a body is, and what a client accepts (RFC 9110 sections 8.3 and 12.5.1)."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from service.api.answer import Scope
from service.errors import NotAcceptable, UnsupportedMediaType

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
NPY: Final = "application/x-npy"
NPZ: Final = "application/x-npz"
OFFERED: Final = (JSON, OCTETS, NPY, NPZ)
"""What lookups take and give; the first is given where the client has no preference."""

_LONGEST_HEADER: Final = 4096  # bytes; what is longer is neither parsed nor kept in a cache
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_IDENTITY: Final = frozenset({b"", b"identity"})


class Fields(NamedTuple):
    """The header fields that lookups read; None for one that was not sent."""

    content_type: bytes | None = None
    content_length: bytes | None = None
    content_encoding: bytes | None = None
    accept: bytes | None = None


_READ: Final = {b"content-type": 0, b"content-length": 1, b"content-encoding": 2, b"accept": 3}


def header_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """All of them in one pass: the first of each name; several Accept headers are one list."""
    found: list[bytes | None] = [None, None, None, None]
    for name, value in headers:
        index = _READ.get(name)
        if index is not None:
            before = found[index]
            if before is None:
                found[index] = value
            elif index == 3:
                found[index] = before + b"," + value
    return Fields(*found)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), None)


def body_type(fields: Fields) -> str:
    """The media type of the body: JSON where none is said; raises UnsupportedMediaType."""
    coding, content_type = fields.content_encoding, fields.content_type
    if coding is not None and coding.strip().lower() not in _IDENTITY:
        raise UnsupportedMediaType(f"Content-Encoding {coding.decode('latin-1')!r} is not supported")
    if content_type is None:
        return JSON
    if len(content_type) > _LONGEST_HEADER:
        raise UnsupportedMediaType(f"Content-Type has more than {_LONGEST_HEADER} bytes")
    return _body_type(content_type)


@lru_cache(maxsize=128)
def _body_type(content_type: bytes) -> str:
    text = content_type.decode("latin-1")
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    if media not in OFFERED:
        raise UnsupportedMediaType(f"Content-Type {text!r} is not one of {', '.join(OFFERED)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _UTF8:
            raise UnsupportedMediaType(f"charset {value.strip()!r} is not supported; use utf-8")
    return media


def answer_type(accept: bytes | None, offered: tuple[str, ...] = OFFERED) -> str:
    """The media type to answer in; raises NotAcceptable if `accept` leaves none of `offered`."""
    if accept is None:
        return offered[0]
    if len(accept) > _LONGEST_HEADER:
        raise NotAcceptable(f"Accept has more than {_LONGEST_HEADER} bytes")
    return _negotiate(accept, offered)


@lru_cache(maxsize=256)
def _negotiate(accept: bytes, offered: tuple[str, ...]) -> str:
    """Highest q first; of equals the one named most precisely, then the one named first, then ours."""
    text = accept.decode("latin-1")
    ranges = [_range(position, part) for position, part in enumerate(text.split(",")) if part.strip()]
    if not ranges:
        return offered[0]
    ranked = []
    for ours, media in enumerate(offered):
        matching = [found for found in ranges if _matches(found[0], media)]
        if matching:
            # For one media type the most specific range decides, whatever its q (RFC 9110).
            pattern, q, position = max(matching, key=lambda found: (_precision(found[0]), found[1]))
            ranked.append((-q, -_precision(pattern), position, ours, media))
    if not ranked or min(ranked)[0] == 0:
        raise NotAcceptable(f"Accept {text!r} allows none of {', '.join(offered)}")
    return min(ranked)[-1]


def _range(position: int, part: str) -> tuple[str, float, int]:
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    q = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            q = _quality(value.strip())
    return pattern, q, position


def _quality(text: str) -> float:
    try:
        q = float(text)
    except ValueError:
        return 0.0
    return q if 0.0 <= q <= 1.0 else 0.0  # also what NaN becomes


def _matches(pattern: str, media: str) -> bool:
    return pattern in (media, "*/*", f"{media.partition('/')[0]}/*")


def _precision(pattern: str) -> int:
    return 0 if pattern == "*/*" else 1 if pattern.endswith("/*") else 2
