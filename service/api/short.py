"""The short way of a request that is there as a whole: answered where its last byte arrives, past ASGI."""

from typing import Protocol

from service.api.answer import Answer
from service.api.prepared import Prepared


class Large(Protocol):
    """What a body asks for, where it takes so long that others should have their turns meanwhile."""

    async def in_turns(self) -> Answer:
        """The answer. Does not raise."""


class Asked(Protocol):
    """What a head says, in whatever protocol. Neither of these raises."""

    def answer_now(self, body: bytes, since: float) -> tuple[Answer | Large, Prepared | None]:
        """The answer to a request with this head, if it is not large; `since` is when its body was there.

        With it comes what can be told of the next request with the same head.
        """

    def refuse(self) -> Answer:
        """The answer where too many are in flight."""
