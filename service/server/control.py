"""What supervisor and worker say to each other: small JSON messages over a socket pair that keeps them apart."""

import json
import socket
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias, cast

_MOST: Final = 64 << 10  # bytes of one message

Kind: TypeAlias = Literal["ready"]
"""`ready`: the worker accepts connections, and has loaded every table or knows why it cannot."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `kind` says what it means."""

    kind: Kind


class Channel:
    """One end of the pair. The other end's death is the end of the channel: `receive` gives None then."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """The supervisor's end and the worker's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Says something; silence if nobody is there any more, which the next `receive` tells."""
        try:
            self._end.send(json.dumps({"kind": message.kind}).encode())
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> Message | None:
        """The next message; None once the other end is gone. Waits, so ask a selector first."""
        try:
            data = self._end.recv(_MOST)
        except ConnectionResetError:
            return None
        return Message(cast("Kind", json.loads(data)["kind"])) if data else None

    def close(self) -> None:
        """Ends the channel."""
        self._end.close()
