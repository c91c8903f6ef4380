"""Answers written to a connection, past ASGI: the head in one piece, the body from where it lies."""

from functools import lru_cache
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.answer import Answer, Buffer, Flat, Headers, Stream, gathered, joined
from service.api.turns import Turns
from service.scattered import Scattered, Writer
from service.server.protocol import ChildProtocol

_JOINED: Final = 16 << 10
"""Bytes of an answer that are copied behind its head, which costs less than a second buffer."""


class WritingProtocol(ChildProtocol):
    """uvicorn's protocol with a way of its own for answers that are values."""

    _defaults: ClassVar[list[tuple[bytes, bytes]]] = []
    _writer: ClassVar = Writer()
    _end: ClassVar[bytes] = b"\r\n"

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*arguments, **named)
        self._descriptor = -1

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().connection_made(transport)
        self._descriptor = transport.get_extra_info("socket").fileno()

    def write_answer(self, answer: Answer) -> None:
        """Writes an answer that is no stream, as a whole."""
        body = cast("tuple[Buffer, ...]", answer.body)
        self.write(answer.status, answer.headers, sum(map(len, body)), body)

    def write(self, status: int, headers: Headers, length: int, body: tuple[Buffer, ...]) -> None:
        """Writes the pieces of a body, which have a `length` in all, behind their head."""
        head = _head(status, headers) + b"%d\r\n" % length + self._lines()
        if len(body) == 3 and isinstance(body[1], Scattered):
            self._write_scattered(body[1], head + bytes(body[0]), gathered(body[2]))
        elif length <= _JOINED:
            self.transport.write(b"".join((head, joined(body))))
        else:
            self.transport.writelines((head, *map(gathered, body)))
        self.server_state.total_requests += 1

    async def stream(self, answer: Answer) -> None:
        """Writes an answer, a large one piece by piece as the client reads it, while others have their turns."""
        if not isinstance(answer.body, Stream):
            self.write_answer(answer)
            return
        head = _head(answer.status, answer.headers) + b"%d\r\n" % answer.length + self._lines()
        self.transport.write(head)
        turns = Turns()
        for piece in answer.body.pieces:
            if self.transport.is_closing():
                return
            if isinstance(piece, Scattered):
                self._write_scattered(piece)
            else:
                self.transport.write(piece)
            if self.flow.write_paused:
                await self.flow.drain()
                await turns.begin()
            else:
                await turns.end()
        self.server_state.total_requests += 1

    def _write_scattered(self, pieces: Scattered, head: Flat = b"", tail: Flat = b"") -> None:
        """Hands bytes to the system from where they lie, as far as it takes them now."""
        writer, transport = self._writer, self.transport
        if transport.get_write_buffer_size() or transport.is_closing() or not writer.takes(head, pieces, tail):
            transport.writelines((head, bytes(pieces), tail))
            return
        written = writer.write(self._descriptor, head, pieces, tail)
        if written < len(head) + len(pieces) + len(tail):
            transport.write(b"".join((head, bytes(pieces), tail))[written:])

    def _lines(self) -> bytes:
        """Uvicorn's own header fields, which it makes anew once a second, and the end of the head."""
        defaults = self.server_state.default_headers
        if defaults is not WritingProtocol._defaults:
            WritingProtocol._defaults = defaults
            WritingProtocol._end = b"".join(b"%b: %b\r\n" % header for header in defaults) + b"\r\n"
        return WritingProtocol._end


@lru_cache(maxsize=1024)
def _head(status: int, headers: Headers) -> bytes:
    """The status line and header fields, up to the length of the body."""
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"content-length: "
