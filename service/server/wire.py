"""Lookups answered where their last byte arrives: without an event, a scope or an ASGI message, most without a task.

That is what the framework costs beside the parser and the socket. Lookups of ordinary clients in active versions come
this way; all else goes the way of ASGI, and both through the same endpoint.

Clients send the same head again and again. What the parser has made of a head depends on nothing but its bytes, so it
is remembered, and the parser sees only heads that are new.
"""

import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.answer import Answer, Buffer, Headers, Stream
from service.api.front import Front, Lookups
from service.api.lookup import Address, Head, address_of, read_head
from service.api.media import header_fields
from service.api.prepared import Prepared
from service.api.question import Question
from service.api.turns import Turns
from service.errors import ServiceError
from service.server.protocol import ChildProtocol

_LONGEST_BODY: Final = 64 << 10
"""Bytes of a request that may be answered here: 8,192 raw ids."""
_LENGTHS: Final = {b"%d" % length: length for length in range(_LONGEST_BODY + 1)}
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

    _heads: ClassVar[dict[bytes, _Known]] = {}
    _defaults: ClassVar[list[tuple[bytes, bytes]]] = []
    _end: ClassVar[bytes] = b"\r\n"

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*arguments, **named)
        assert isinstance(self.app, Front)  # noqa: S101
        self._lookups: Lookups = self.app.lookups
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
        if known is not None and len(data) == known.length:
            self.packets += 1
            self._forget_unparsed()
            self._answer_or_stream(known, data, 0)
        else:
            super().data_received(self._forget_unparsed() + data)

    def _answer_or_stream(self, known: _Known, packet: bytes, start: int) -> None:
        question = self._answer(known, packet, start)
        if question is not None:
            self._begin(self._answer_in_turns(known.head.address, question))

    def _answer(self, known: _Known, packet: bytes, start: int) -> Question | None:
        """Answers a request whose body begins at `start` of a packet; a large question comes back."""
        prepared = known.prepared
        if prepared is not None:
            vectors = self._lookups.vectors_now(prepared, packet, start)
            if vectors is not None:
                head = _head(200, prepared.headers, prepared.length) + self._lines()
                self.transport.writelines((head + prepared.prefix, vectors))
                self.server_state.total_requests += 1
                return None
        found = self._lookups.answer_now(known.head, packet[start:])
        if isinstance(found, Question):
            return found
        answer, prepared = found
        if prepared is not None:
            known.prepared = prepared
        self._write(answer)
        return None

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._streams = True
        self._admission.in_flight += 1
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer_in_turns(self, address: Address, question: Question) -> None:
        try:
            await self._stream(await self._lookups.answer_in_turns(address, question))
        except Exception:  # noqa: BLE001  (the head is sent: all that is left is to break off)
            _log.exception("an answer broke off")
            self.transport.abort()
        finally:
            self._admission.leave()
            self._streams = False
        self._go_on()

    async def _stream(self, answer: Answer) -> None:
        if not isinstance(answer.body, Stream):
            self._write(answer)
            return
        self.transport.write(_head(answer.status, answer.headers, answer.length) + self._lines())
        turns = Turns()
        for piece in answer.body.pieces:
            if self.transport.is_closing():
                return
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

    def _forget_unparsed(self) -> bytes:
        head, self._unparsed, self._known = self._unparsed, b"", None
        self.arriving = 0
        self._admission.leave()
        return head

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
        self._leave()
        # Behind this request there may be another in the same packet: uvicorn makes it wait for a large answer.
        if self._answer(known, self._body, 0) is not None:
            self._make_scope()
            super().on_headers_complete()
            super().on_body(self._body)
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unparsed:
            self._forget_unparsed()
        elif self._known is not None:
            self._leave()
        super().connection_lost(exc)

    def answers(self) -> bool:
        return self._streams or super().answers()

    def shutdown(self) -> None:
        """Lets a request whose body or answer is on its way come to its end."""
        if self._streams:
            self._last = True
            return
        if self._unparsed:
            super().data_received(self._forget_unparsed())
        if self._known is not None:
            self._leave()
            body, self._body = self._body, b""
            self._make_scope()
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
        length = _LENGTHS.get(fields.content_length or b"")
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

    def _leave(self) -> None:
        self._known = None
        self._admission.leave()

    def _write(self, answer: Answer) -> None:
        status, headers = answer.status, answer.headers
        body = cast("tuple[Buffer, ...]", answer.body)  # a stream is no small answer
        length = sum(map(len, body))
        head = (_head(status, headers, length), self._lines())
        if length <= _JOINED:
            self.transport.write(b"".join(head + body))
        else:
            self.transport.writelines((b"".join(head), *body))
        self.server_state.total_requests += 1

    def _lines(self) -> bytes:
        """Uvicorn's own header fields, which it makes anew once a second, and the end of the head."""
        defaults = self.server_state.default_headers
        if defaults is not Wire._defaults:
            Wire._defaults = defaults
            Wire._end = b"".join(b"%b: %b\r\n" % header for header in defaults) + b"\r\n"
        return Wire._end


@lru_cache(maxsize=1024)
def _address(path: bytes) -> Address | None:
    """What a path names; None where it has to be read with more care."""
    if len(path) > 512 or b"%" in path or b"#" in path or not path.isascii():
        return None
    return address_of(path.decode())


@lru_cache(maxsize=1024)
def _head(status: int, headers: Headers, length: int) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % header for header in (*headers, (b"content-length", b"%d" % length)))
    return STATUS_LINE[status] + lines
