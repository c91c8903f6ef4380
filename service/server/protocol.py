"""uvicorn's HTTP protocol as children run it: it ignores offers of an upgrade, and its patience with clients ends.

Java's and curl's clients offer HTTP/2 with every request. The parser takes an offer for an agreement and stops there,
so that the body would be lost. A server may ignore the field (RFC 9110 section 7.8): it is renamed before the parser
sees it, which costs one search per packet (0.1 us).
"""

import fcntl
import re
import termios
from socket import IPPROTO_TCP, TCP_INFO
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_OFFER: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_IGNORED: Final = b"\r\nx-offer:"
_ACKED_AT: Final = 120
_ACKED_END: Final = 128
"""Where `tcpi_bytes_acked` is in the system's `struct tcp_info` (linux/tcp.h, since Linux 4.1)."""
_LONG: Final = b"/v1/admin/"
"""Uploads may take as long as they need while bytes come; every other request has to arrive in time as a whole."""


class ChildProtocol(HttpToolsProtocol):
    """HTTP/1.1 and nothing else, whatever is offered.

    `look` is called once a second for every connection; a clock for each request would cost more (2 us).
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*arguments, **named)
        self.packets = 0
        self.arriving = 0
        """The packet that a request began with whose end has not come yet; 0 for none."""
        self._last_look: tuple[object, ...] = ()
        self._looks = 0

    def data_received(self, data: bytes) -> None:
        self.packets += 1
        if not self.arriving and (b"pgrade:" in data or b"PGRADE:" in data):
            head, blank, body = data.partition(b"\r\n\r\n")
            data = _OFFER.sub(_IGNORED, head) + blank + body
        super().data_received(data)

    def on_message_begin(self) -> None:
        self.arriving = self.packets
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self.arriving = 0
        super().on_message_complete()

    def answers(self) -> bool:
        """Whether the application is at work on a request of this connection, or sends its answer."""
        return is_open(self.cycle)

    def look(self, client_seconds: float) -> None:
        """Ends the connection of a client that neither sends nor reads for so long, or sends nothing more."""
        state, patience = self._waits_for(client_seconds)
        if not state or state != self._last_look:
            self._last_look, self._looks = state, 0
            return
        self._looks += 1
        if self._looks < patience:
            return
        if state[0] == "idle":
            self.transport.close()
        else:
            self.transport.abort()

    def _waits_for(self, client_seconds: float) -> tuple[tuple[object, ...], float]:
        """What the client has to do, the same as long as it does not, and how many seconds it gets; () for nothing."""
        if self.flow.read_paused and not self.flow.write_paused:
            return (), 0.0  # it is we who do not read
        if self.arriving and not self.flow.write_paused:
            sent = self.packets if self.url.startswith(_LONG) else None
            return ("arriving", self.arriving, sent), client_seconds
        if self.flow.write_paused:
            return ("reading", self.transport.get_write_buffer_size(), self._taken()), client_seconds
        if not self.answers():
            return ("idle", self.packets), self.timeout_keep_alive if self.packets else client_seconds
        return (), 0.0

    def has_unread(self) -> bool:
        """Whether something has come that was not read yet: to close over it resets the connection."""
        socket = None if self.transport.is_closing() else self.transport.get_extra_info("socket")
        return socket is not None and any(fcntl.ioctl(socket.fileno(), termios.FIONREAD, bytes(4)))

    def _taken(self) -> bytes:
        """How many bytes the client's system has ever taken, as the system knows it: this grows as a slow client reads.

        Buffers alone may look the same after a client has read: they are filled again. Of a Unix socket there is only
        how much has not been taken.
        """
        socket = self.transport.get_extra_info("socket")
        if socket is None:
            return b""
        try:
            known: bytes = socket.getsockopt(IPPROTO_TCP, TCP_INFO, _ACKED_END)
            return known[_ACKED_AT:]
        except OSError:
            return fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))


def is_open(cycle: RequestResponseCycle | None) -> bool:
    """Whether there is an answer by ASGI that has not come to its end."""
    return cycle is not None and not cycle.response_complete
