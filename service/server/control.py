"""What the processes of a service say to each other: small JSON messages over a socket pair that keeps them apart.

Every child (a worker, the steward) has a channel to the supervisor, which passes the steward's questions on to the
workers and their answers back.
"""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeAlias

MOST: Final = 64 << 10  # bytes of one message

Kind: TypeAlias = Literal["ready", "ask", "answer", "done", "prepare", "commit", "abandon", "follow", "states"]
"""
`ready`: a child accepts connections, and a worker has loaded every table or knows why it cannot.
`ask`: the steward to the supervisor; `content` is the question for every worker.
`prepare`, `commit`, `abandon`, `follow`, `states`: the supervisor to a worker, see `service.server.worker`.
`answer`: a worker to the supervisor, and on to the steward with the worker's number.
`done`: the supervisor to the steward: no more answers come; which workers owe one, and which have died.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `question` is the number of the question that it asks or belongs to."""

    kind: Kind
    question: int = 0
    content: Mapping[str, Any] = field(default_factory=dict)


class Channel:
    """One end of the pair. The other end's death is the end of the channel: `receive` gives None then."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """The supervisor's end and the child's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._end.fileno()

    def send(self, message: Message, *, wait: bool = True) -> None:
        """Says something; silence if nobody is there any more, which the next `receive` tells.

        Without `wait` it is also silence if the other end has left too much unread: who asks has a deadline.
        """
        data = json.dumps({"kind": message.kind, "question": message.question, "content": message.content}).encode()
        if len(data) > MOST:
            raise ValueError(f"a message of {len(data)} bytes, {MOST} are the most")
        try:
            self._end.send(data, 0 if wait else socket.MSG_DONTWAIT)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return

    def receive(self) -> Message | None:
        """The next message; None once the other end is gone. Waits, so ask a selector first."""
        try:
            data = self._end.recv(MOST)
        except ConnectionResetError:
            return None
        return Message(**json.loads(data)) if data else None

    def close(self) -> None:
        """Ends the channel."""
        self._end.close()
