"""Just enough of HTTP/1.1 answers to know when one is whole: its head once, its body only counted."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview

HEAD_END: Final = b"\r\n\r\n"
_NO_BODY: Final = frozenset({204, 304})
_LONGEST_LINE: Final = 4096  # bytes that are looked at for the end of a line


@dataclass(frozen=True, slots=True)
class Head:
    """Of an answer: `length` is None for a chunked body, `retry_after` (seconds) without one."""

    status: int
    length: int | None
    retry_after: float | None
    closes: bool


@lru_cache(maxsize=4096)  # but for their date, the heads of a run are few
def parse_head(text: bytes) -> Head:
    """From the status line to before the blank line; raises ValueError for a body without length or chunks."""
    first, *lines = text.split(b"\r\n")
    split = (line.partition(b":") for line in lines)
    fields = {name.strip().lower(): value.strip().lower() for name, _, value in split}
    status = int(first.split(b" ", 2)[1])
    retry_after = fields.get(b"retry-after", b"")
    return Head(
        status=status,
        length=_length(status, fields),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
        closes=fields.get(b"connection") == b"close",
    )


def _length(status: int, fields: dict[bytes, bytes]) -> int | None:
    if fields.get(b"transfer-encoding") == b"chunked":
        return None
    if b"content-length" in fields:
        return int(fields[b"content-length"])
    if status in _NO_BODY:
        return 0
    raise ValueError(f"an answer {status} has neither a length nor chunks")


@dataclass(slots=True)
class Chunks:
    """A chunked body, fed as it comes (RFC 9112, section 7.1); trailers are passed over."""

    size: int = 0  # bytes of data so far
    _left: int = 0  # bytes of the chunk that is being read, with the line end behind it
    _line: bytes = b""  # the part that has come of a line
    _last: bool = False  # the chunk of size 0 has come
    _whole: bool = False  # and the blank line behind the trailers

    def feed(self, data: Bytes) -> bool:
        """Whether the body is whole now; raises ValueError for what is no chunk, or comes behind the last."""
        at = 0
        while at < len(data):
            if self._whole:
                raise ValueError("bytes came behind the last chunk")
            at += self._skip(len(data) - at) if self._left else self._read_line(data, at)
        return self._whole

    def _skip(self, available: int) -> int:
        step = min(self._left, available)
        self._left -= step
        return step

    def _read_line(self, data: Bytes, start: int) -> int:
        rest = bytes(data[start : start + _LONGEST_LINE])
        text, end, _ = rest.partition(b"\n")
        self._line += text
        if end:
            self._on_line(self._line.strip())
            self._line = b""
        return len(text) + len(end)

    def _on_line(self, line: bytes) -> None:
        if self._last:
            self._whole = not line
            return
        size = int(line.partition(b";")[0], 16)
        self.size += size
        self._last = size == 0
        self._left = size + len(b"\r\n") if size else 0
