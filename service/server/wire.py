"""Lookups answered where their last byte arrives: without an event, a scope or an ASGI message, most without a task.

That is what the framework costs beside the parser and the socket. Lookups of ordinary clients in active versions come
this way; all else goes the way of ASGI, and both through the same endpoint.
"""

import logging
from time import perf_counter
from typing import Any, Final, TypeAlias

from service.api.admission import ADMITTED
from service.api.answer import Answer, Ready, Stream, ready
from service.api.batching import Part
from service.api.front import Front
from service.api.observed import HEADER
from service.api.short import Large
from service.errors import Overloaded
from service.requestid import REQUEST_ID, given_or_new, new
from service.server.heads import END, Heads, Known, may_be_short, numbered, read_known
from service.server.protocol import is_open
from service.server.rounds import round_of
from service.server.writing import WritingProtocol

_log = logging.getLogger(__name__)

_MOST_IN_PACKET: Final = 8
"""Requests of one packet that are answered at once; those behind them wait for the turns of other connections."""

Asked: TypeAlias = tuple[Known, bytes, int]
"""A request that is there as a whole: what its head says, and the packet in which its body begins at a place."""


class Wire(WritingProtocol):
    """uvicorn's protocol for a `Front`, with a short way for its lookups.

    A request whose head is known is `_unparsed` while its body is on its way. Once that is there it is `_asked`, and
    answered with those of other connections at the end of the loop's round; where too many are in flight it
    `_is_waiting` for its place first, and a large one is answered in turns. Meanwhile the connection is `_busy`, and
    what comes is `_held`. A request whose head is new comes from the parser, and what is there of it is in `_known`
    and `_body`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*arguments, **named)
        assert isinstance(self.app, Front)  # noqa: S101
        self._front: Front = self.app
        self._heads = Heads.of(self.app)
        self._admission = self.app.lookups.admission
        self._round = round_of(self.loop)
        self._packet = b""
        self._unparsed = b""
        self._known: Known | None = None
        self._body = b""
        self._asked: Asked | None = None
        self._has_place = False
        self._is_waiting = False
        self._busy = False
        self._held = b""
        self._last = False
        self._in_packet = 0
        self.since = 0.0
        self._given = b""
        """The id that the client has given to the request that the parser tells of."""

    def data_received(self, data: bytes) -> None:
        if self._busy:
            self._held += data
            self.flow.pause_reading()
            return
        if self._unparsed:
            self._body_received(data)
            return
        if not self.arriving:
            end = data.find(END) + 4
            known, given = self._heads.get(data[:end]), b""
            if known is None and end > 3:
                head, given = numbered(data[:end], traces=self._front.traces)
                known = self._heads.get(head) if len(head) < end else None
            if known is not None and not (is_open(self.cycle) or self.flow.write_paused):
                body = len(data) - end
                if body == known.length:
                    self.packets += 1
                    if self.timeout_keep_alive_task is not None:
                        self._unset_keepalive_if_required()
                    self._given = given
                    self._ask((known, data, end))
                    return
                if body == 0 and self._admission.in_flight < self._admission.limit:
                    self._given = given
                    self._wait_for_body(data, known)
                    return
            self._packet = data
        self._in_packet = 0
        super().data_received(data)

    # Heads that are known, with their bodies in the same packet or in the next

    def _wait_for_body(self, head: bytes, known: Known) -> None:
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
        self._busy, self._asked, self._has_place = True, (known, data, 0), True
        self.since = perf_counter()
        self._round.add(self, self.loop)

    def _unparsed_again(self) -> bytes:
        """The head that the parser has not seen, for the parser; its place is taken once more as it tells of it."""
        head, self._unparsed, self._known = self._unparsed, b"", None
        self.arriving = 0
        self._admission.in_flight -= 1
        return head

    # Requests that are there as a whole, and their answers

    def _ask(self, asked: Asked) -> None:
        """Has a request answered with those of others, at once if there is room for another one in flight."""
        self._busy, self._asked = True, asked
        self.since = perf_counter()
        if self._admission.in_flight < self._admission.limit:
            self._round.add(self, self.loop)
        else:
            self._wait_for_place()

    def _wait_for_place(self) -> None:
        self._is_waiting = True
        try:
            self._admission.wait(self)
        except Overloaded:
            self.refused()

    def admitted(self) -> None:
        self._is_waiting, self._has_place = False, True
        self._round.add(self, self.loop)

    def refused(self) -> None:
        asked, self._asked, self._is_waiting = self._asked, None, False
        assert asked is not None  # noqa: S101
        try:
            self._is_written(self._named(asked[0].asked.refuse()))
        except Exception:  # noqa: BLE001  (others are refused behind it)
            _log.exception("a lookup could not be refused")
            self.transport.abort()
        self._go_on()

    def part(self) -> Part | None:
        asked = self._asked
        assert asked is not None  # noqa: S101
        known, packet, start = asked
        try:
            part = None if known.prepared is None else known.prepared(packet, start)
        except Exception:  # noqa: BLE001  (it happens again, and is answered, on the usual way)
            return None
        return None if part is not None and part[0].large and not self._takes_place() else part

    def answer(self, found: Ready | None) -> None:
        if self.transport.is_closing():
            self._leave()
            return
        if found is None and not self._takes_place():
            self._wait_for_place()  # before any work is done: those before it in this round have taken the last places
            return
        asked, self._asked = self._asked, None
        assert asked is not None  # noqa: S101
        try:
            self._name = self._given  # of an answer that was found with others
            answer = self._found(asked) if found is None else found
            if not self._is_written(answer):
                self._answer_large(answer)
                return
        except Exception:  # noqa: BLE001  (those answered together with it must not suffer)
            _log.exception("a lookup could not be answered")
            self.transport.abort()
        self._leave()
        self._busy = False
        if self._held or self._last:
            self._go_on()

    def _takes_place(self) -> bool:
        """Counts a request among those in flight, as which one that is answered in the same round need not be."""
        if not self._has_place and self._admission.in_flight < self._admission.limit:
            self._admission.in_flight += 1
            self._has_place = True
        return self._has_place

    def _leave(self) -> None:
        if self._has_place:
            self._has_place = False
            self._admission.leave()

    def _found(self, asked: Asked) -> Ready | Large:
        """The answer to a request by itself."""
        known, packet, start = asked
        # Set in any case: whoever gave this request its place was answering another, with an id of its own.
        context = REQUEST_ID.set(self._given.decode())
        try:
            found, prepared = known.asked.answer_now(packet[start:], self.since)
        finally:
            REQUEST_ID.reset(context)
        if prepared is not None:
            known.prepared = prepared
        return self._named(found) if isinstance(found, Answer) else found

    def _named(self, answer: Answer) -> Ready:
        """An answer as it is sent: with the id that the client has given, and an error with one in any case."""
        self._name = self._given
        if answer.status != 200:
            has_one = any(name == HEADER for name, _ in answer.headers)
            self._name = b"" if has_one else self._given or new().encode()
        return ready(answer)

    def _is_written(self, found: Ready | Large) -> bool:
        """Writes an answer that is not large; False for the others."""
        if not isinstance(found, Ready) or isinstance(found.body, Stream):
            return False
        self.write(found.head, found.length, found.body)
        return True

    def _answer_large(self, found: Ready | Large) -> None:
        """Begins an answer in turns, for a request that has its place."""
        if isinstance(found, Ready):
            self._send(found)
        else:
            task = self.loop.create_task(self._answer_in_turns(found))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer_in_turns(self, asked: Large) -> None:
        try:
            self._send(self._named(await asked.in_turns()))
        except BaseException:  # a stop that does not wait any longer, or no memory
            self._leave()
            self.transport.abort()
            raise

    def _send(self, answer: Ready) -> None:
        if isinstance(answer.body, Stream):
            self.stream(answer.head, answer.body, self._is_sent)
        else:
            if not self.transport.is_closing():  # the client may have gone while the answer was made
                self.write(answer.head, answer.length, answer.body)
            self._is_sent()

    def _is_sent(self) -> None:
        self._leave()
        self._go_on()

    def _go_on(self) -> None:
        """After an answer that others had to wait for: what came meanwhile, or the end."""
        self._busy = False
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
        self._given = b""
        if known is not None:
            self._given = self._given_id()
            packet = self._packet
            self._heads.remember(numbered(packet[: packet.find(END) + 4], traces=self._front.traces).head, known)
        if known is None or self._admission.in_flight >= self._admission.limit:
            self._make_scope()
            super().on_headers_complete()
        else:
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
        self._in_packet += 1
        self.since = perf_counter()
        try:
            is_written = self._is_written(self._found((known, self._body, 0)))
        except BaseException:  # cleaned up after, and raised on
            self._admission.leave()
            raise
        if is_written:
            self._body = self._given = b""
            self._admission.leave()
            return
        self._given = self._name = b""
        # Behind this request there may be another in the same packet: uvicorn makes it wait for a large answer.
        self._leave_to_asgi()
        super().on_message_complete()

    def _short_way(self) -> Known | None:
        """What a head says that may be answered here: that of a whole small lookup, without special wishes."""
        parser = self.parser
        if not may_be_short(self.url) or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return None
        special = self.expect_100_continue or parser.should_upgrade() or not parser.should_keep_alive()
        if special or self.answers() or self.flow.write_paused or self._in_packet >= _MOST_IN_PACKET:
            return None
        return read_known(self._front, self.url, self.headers)

    def _given_id(self) -> bytes:
        """The id that a client has given its request, or a better one; nothing where it has given none."""
        for name, value in self.headers:
            if name == HEADER:
                return given_or_new(value).encode()
        return b""

    def _make_scope(self) -> None:
        """What uvicorn does at the beginning of a request; most need no scope."""
        url, expects = self.url, self.expect_100_continue
        headers = self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers = self.scope["headers"] = headers

    def _leave_to_asgi(self) -> None:
        """A request that has its place, as far as it is there, goes the way of ASGI after all."""
        self._make_scope()
        self.scope[ADMITTED] = True  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        super().on_body(self._body)
        self._body = b""

    # The connection's end

    def connection_lost(self, exc: Exception | None) -> None:
        if self._known is not None:
            self._unparsed, self._known = b"", None
            self._admission.leave()
        if self._is_waiting:
            self._is_waiting = False
            self._admission.forget(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent all it wants gets the answer that is being made; who only waits for a place goes."""
        stays = self._busy and not self._is_waiting
        self._last = self._last or stays
        return stays

    def answers(self) -> bool:
        return self._busy or super().answers()

    def shutdown(self) -> None:
        """Lets a request whose body or answer is on its way come to its end."""
        if self._busy:
            self._last = True
            return
        if self._unparsed:
            super().data_received(self._unparsed_again())
        if self._known is not None:
            self._known = None
            self._leave_to_asgi()
        super().shutdown()
