"""Answers written to a connection, past ASGI: heads with what is behind them, bodies from where they lie."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

from service.api.answer import Buffer, Stream
from service.api.turns import TURN, Queue, queue_of
from service.server.protocol import ChildProtocol

_JOINED: Final = 132 << 10
"""Bytes of an answer that are copied behind its head: all those that are gathered together with others. That costs no
more than a second buffer, and whoever does not read holds back no more than its own answer."""

_log = logging.getLogger(__name__)


class WritingProtocol(ChildProtocol):
    """uvicorn's protocol with a way of its own for answers that are values.

    A large one is written by `_step`, a turn at a time: whenever the client has read so much that there is room, and
    it is this connection's turn among all that have long work.
    """

    _defaults: ClassVar[list[tuple[bytes, bytes]]] = []
    _whole_heads: ClassVar[dict[tuple[bytes, int], bytes]] = {}

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*arguments, **named)
        self._turns: Queue = queue_of(self.loop)
        self._head = b""
        """That of the answer that is being streamed, until its first piece is written."""
        self._pieces: Iterator[Buffer] | None = None
        self._left = 0
        """Bytes of its body that are not written yet."""
        self._done: Callable[[], None] | None = None
        self._has_no_room = False
        self._name = b""
        """The id of the request that is answered next, where its answer has to have it."""

    def write(self, head: bytes, length: int, body: tuple[Buffer, ...]) -> None:
        """Writes the pieces of a body of so many bytes behind their head."""
        head = self._whole_head(head, length)
        if length <= _JOINED:
            self.transport.write(b"".join((head, *body)))
        else:
            self.transport.writelines((head, *body))
        self.server_state.total_requests += 1

    def stream(self, head: bytes, body: Stream, done: Callable[[], None]) -> None:
        """Writes a body piece by piece as the client reads it, while others have their turns; then calls `done`.

        That is called also where it cannot be written to its end, and the connection is at its own.
        """
        self._head = self._whole_head(head, body.length)
        self._pieces, self._left, self._done = body.pieces, body.length, done
        self._turns.call(self._step)

    def _step(self) -> None:
        pieces = self._pieces
        if pieces is None or self.transport.is_closing():
            self._end_stream()
            return
        since = time.perf_counter()
        try:
            for piece in pieces:
                self._write_piece(piece)
                if self.flow.write_paused:
                    self._has_no_room = True
                    return
                if not self._left:
                    break  # or the client's next request would wait for another turn, in which nothing is done
                if time.perf_counter() - since > TURN:
                    self._turns.call(self._step)
                    return
        except Exception:  # noqa: BLE001  (the client must not wait for ever)
            _log.exception("an answer broke off")
            self.transport.abort()  # the head is sent: all that is left is to break off
            self._end_stream()
            return
        self.server_state.total_requests += 1
        self._end_stream()

    def _end_stream(self) -> None:
        done, self._done, self._pieces = self._done, None, None
        if done is not None:
            done()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._has_no_room:
            self._has_no_room = False
            self._turns.call(self._step)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._has_no_room = False
        self._end_stream()

    def _write_piece(self, piece: Buffer) -> None:
        head, self._head = self._head, b""
        self._left -= len(piece)
        if head:
            self.transport.writelines((head, piece))
        else:
            self.transport.write(piece)

    def _whole_head(self, head: bytes, length: int) -> bytes:
        """A head with the length of its body, and uvicorn's own fields, which it makes anew once a second."""
        defaults = self.server_state.default_headers
        if defaults is not WritingProtocol._defaults:
            WritingProtocol._defaults = defaults
            WritingProtocol._whole_heads.clear()
        found = WritingProtocol._whole_heads.get((head, length))
        if found is None:
            lines = b"".join(b"%b: %b\r\n" % header for header in defaults)
            found = WritingProtocol._whole_heads[head, length] = b"%b%d\r\n%b\r\n" % (head, length, lines)
        if self._name:
            name, self._name = self._name, b""
            return b"%bx-request-id: %b\r\n\r\n" % (found[:-2], name)
        return found
