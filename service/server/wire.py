"""Lookups answered where their last byte arrives: without an event, a scope or an ASGI message, most without a task.

That is what the framework costs beside the parser and the socket. Lookups of ordinary clients in active versions come
this way; all else goes the way of ASGI, and both through the same endpoint.

Clients send the same head again and again. What the parser has made of a head depends on nothing but its bytes, so it
is remembered, and the parser sees only heads that are new.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.answer import Answer, Buffer, Flat, Headers, Stream, gathered, joined
from service.api.front import ADMITTED, Front, Lookups
from service.api.lookup import Address, Head, address_of, read_head
from service.api.media import header_fields
from service.api.prepared import Prepared
from service.api.question import Question
from service.api.turns import Turns
from service.errors import ServiceError
from service.scattered import Scattered, Writer
from service.server.protocol import ChildProtocol

_LONGEST_BODY: Final = 64 << 10
"""Bytes of a request that may be answered here: 8,192 raw ids."""
_JOINED: Final = 16 << 10
"""Bytes of an answer that are copied behind its head, which costs less than a second buffer."""
_END: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 2048
_MOST_HEADS: Final = 2048

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Known:
    """What a head says, how many bytes of body follow it, and what can be told of its answer before they come."""

    head: Head
    length: int
    prepared: Prepared | None = None


class Wire(ChildProtocol):
    """uvicorn's protocol for a `Front`, with a short way for its lookups."""

    _memos: ClassVar[WeakKeyDictionary[Front, dict[bytes, _Known]]] = WeakKeyDictionary()
    _defaults: ClassVar[list[tuple[bytes, bytes]]] = []
    _writer: ClassVar = Writer()
    _end: ClassVar[bytes] = b"\r\n"

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*arguments, **named)
        assert isinstance(self.app, Front)  # noqa: S101
        self._lookups: Lookups = self.app.lookups
        self._heads = Wire._memos.setdefault(self.app, {})
        self._admission = self._lookups.admission
        self._packet = b""
        self._unparsed = b""
        """A head that is known, while its body is on its way; the parser has not seen it."""
        self._known: _Known | None = None
        self._body = b""
        self._streams = False
        """Whether the answer to a large question is being made or sent; what comes meanwhile is `_held`."""
        self._held = b""
        self._last = False
        self._descriptor = -1

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._descriptor = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        if self._streams:
            self._held += data
            self.flow.pause_reading()
            return
        if self._unparsed:
            self._body_received(data)
            return
        if not self.arriving:
            end = data.find(_END) + 4
            known = self._heads.get(data[:end])
            if known is not None and self._is_free():
                body = len(data) - end
                if body == known.length:
                    self.packets += 1
                    if self.timeout_keep_alive_task is not None:
                        self._unset_keepalive_if_required()
                    self._answer_or_stream(known, data, end)
                    return
                if body == 0:
                    self._wait_for_body(data, known)
                    return
            self._packet = data
        super().data_received(data)

    def _wait_for_body(self, head: bytes, known: _Known) -> None:
        self.packets += 1
        self._unset_keepalive_if_required()
        self.url = b""
        self._unparsed, self._known = head, known
        self.arriving = self.packets
        self._admission.in_flight += 1

    def _body_received(self, data: bytes) -> None:
        known = self._known
        if known is None or len(data) != known.length:
            super().data_received(self._unparsed_again() + data)
            return
        self.packets += 1
        self._unparsed, self._known, self.arriving = b"", None, 0
        question = self._answer(known, data, 0)
        if question is None:
            self._admission.leave()
        else:
            self._begin(self._answer_in_turns(known.head.address, question))

    def _unparsed_again(self) -> bytes:
        """The head that the parser has not seen, for the parser; its place is taken once more as it tells of it."""
        head, self._unparsed, self._known = self._unparsed, b"", None
        self.arriving = 0
        self._admission.in_flight -= 1
        return head

    def _answer_or_stream(self, known: _Known, packet: bytes, start: int) -> None:
        question = self._answer(known, packet, start)
        if question is not None:
            self._admission.in_flight += 1
            self._begin(self._answer_in_turns(known.head.address, question))

    def _answer(self, known: _Known, packet: bytes, start: int) -> Question | None:
        """Answers a request whose body begins at `start` of a packet; a large question comes back."""
        prepared = known.prepared
        if prepared is not None:
            now = self._lookups.prepared_now(prepared, packet, start)
            if now is not None:
                self._write(200, *now)
                return None
        found = self._lookups.answer_now(known.head, packet[start:])
        if isinstance(found, Question):
            return found
        answer, prepared = found
        if prepared is not None:
            known.prepared = prepared
        self._write_answer(answer)
        return None

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        """Starts an answer in turns, for a request that has its place."""
        self._streams = True
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer_in_turns(self, address: Address, question: Question) -> None:
        try:
            await self._stream(await self._lookups.answer_in_turns(address, question))
        except BaseException as error:  # also a stop that does not wait any longer
            self.transport.abort()  # the head is sent: all that is left is to break off
            if not isinstance(error, Exception):
                raise
            _log.exception("an answer broke off")
        finally:
            self._admission.leave()
            self._streams = False
        self._go_on()

    async def _stream(self, answer: Answer) -> None:
        if not isinstance(answer.body, Stream):
            self._write_answer(answer)
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
            await turns.end()
        self.server_state.total_requests += 1

    def _go_on(self) -> None:
        """After an answer in turns: what came meanwhile, or the end."""
        if self.transport.is_closing():
            return
        if self._last:
            self.transport.close()
            return
        held, self._held = self._held, b""
        self.flow.resume_reading()
        if held:
            self.data_received(held)

    # Heads that are new, as the parser tells of them

    def on_message_begin(self) -> None:
        self.arriving = self.packets
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        known = self._short_way()
        if known is None:
            self._make_scope()
            super().on_headers_complete()
        else:
            self._remember(known)
            self._known = known
            self._body = b""
            self._admission.in_flight += 1
        self._packet = b""

    def on_body(self, body: bytes) -> None:
        if self._known is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        known = self._known
        if known is None:
            super().on_message_complete()
            return
        self.arriving = 0
        self._known = None
        if self._answer(known, self._body, 0) is None:
            self._admission.leave()
            return
        # Behind this request there may be another in the same packet: uvicorn makes it wait for a large answer.
        self._make_scope()
        self.scope[ADMITTED] = True  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        super().on_body(self._body)
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._known is not None:
            self._unparsed, self._known = b"", None
            self._admission.leave()
        super().connection_lost(exc)

    def answers(self) -> bool:
        return self._streams or super().answers()

    def shutdown(self) -> None:
        """Lets a request whose body or answer is on its way come to its end."""
        if self._streams:
            self._last = True
            return
        if self._unparsed:
            super().data_received(self._unparsed_again())
        if self._known is not None:
            self._known = None
            body, self._body = self._body, b""
            self._make_scope()
            self.scope[ADMITTED] = True  # type: ignore[typeddict-unknown-key]
            super().on_headers_complete()
            super().on_body(body)
        super().shutdown()

    def _is_free(self) -> bool:
        """Whether nothing else is under way on this connection, and not too much in this worker."""
        busy = self.answers() or self.flow.write_paused
        return not busy and self._admission.in_flight < self._admission.limit

    def _short_way(self) -> _Known | None:
        """What a head says that may be answered here: that of a whole small lookup, without special wishes."""
        if self.url[-7:] != b"/lookup" and b"/lookup?" not in self.url:
            return None
        path, _, query = self.url.partition(b"?")
        address = _address(path)
        parser, fields = self.parser, header_fields(self.headers)
        length = _length(fields.content_length)
        special = self.expect_100_continue or parser.should_upgrade() or not parser.should_keep_alive()
        if address is None or address.kind is not None or length is None or special or parser.get_method() != b"POST":
            return None
        if parser.get_http_version() != "1.1" or not self._is_free():
            return None
        try:
            return _Known(read_head(address, fields, query), length)
        except ServiceError:
            return None

    def _remember(self, known: _Known) -> None:
        """The head of the packet at hand, if it is there as a whole and of the plainest form."""
        head = self._packet[: self._packet.find(_END) + 4]
        if 4 < len(head) <= _LONGEST_HEAD and head.count(b"\n") == head.count(b"\r\n"):
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[head] = known

    def _make_scope(self) -> None:
        """What uvicorn does at the beginning of a request; most need no scope."""
        url, expects = self.url, self.expect_100_continue
        headers = self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers = self.scope["headers"] = headers

    def _write_answer(self, answer: Answer) -> None:
        body = cast("tuple[Buffer, ...]", answer.body)  # a stream is no small answer
        self._write(answer.status, answer.headers, sum(map(len, body)), body)

    def _write(self, status: int, headers: Headers, length: int, body: tuple[Buffer, ...]) -> None:
        head = _head(status, headers) + b"%d\r\n" % length + self._lines()
        if len(body) == 3 and isinstance(body[1], Scattered):
            self._write_scattered(body[1], head + bytes(body[0]), gathered(body[2]))
        elif length <= _JOINED:
            self.transport.write(b"".join((head, joined(body))))
        else:
            self.transport.writelines((head, *map(gathered, body)))
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
        if defaults is not Wire._defaults:
            Wire._defaults = defaults
            Wire._end = b"".join(b"%b: %b\r\n" % header for header in defaults) + b"\r\n"
        return Wire._end


def _length(announced: bytes | None) -> int | None:
    """The length of a body that may be answered here."""
    if announced is None or not announced.isdigit() or len(announced) > len(str(_LONGEST_BODY)):
        return None
    return int(announced) if int(announced) <= _LONGEST_BODY else None


@lru_cache(maxsize=1024)
def _address(path: bytes) -> Address | None:
    """What a path names; None where it has to be read with more care."""
    if len(path) > 512 or b"%" in path or b"#" in path or not path.isascii():
        return None
    return address_of(path.decode())


@lru_cache(maxsize=1024)
def _head(status: int, headers: Headers) -> bytes:
    """The status line and header fields, up to the length of the body."""
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"content-length: "
