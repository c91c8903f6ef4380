"""Both clients through one face, so that every test asks both; and what they are made with in tests."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from service.client import AsyncClient, Client, Retries

Kind = Literal["blocking", "awaiting"]
KINDS: Final[tuple[Kind, ...]] = ("blocking", "awaiting")
QUICK: Final = Retries(deadline=5.0, first_pause=0.005, longest_pause=0.02)


class Asked:
    """A client whose verbs give their result, whichever it is."""

    def __init__(self, client: Client | AsyncClient, finished: Callable[[Any], Any]) -> None:
        self.client = client
        self._finished = finished

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        found = getattr(self.client, verb)
        return lambda *args, **kwargs: self._finished(found(*args, **kwargs))


@contextmanager
def opened(kind: Kind, url: str | list[str], **arguments: Any) -> Iterator[Asked]:  # noqa: ANN401
    """A client of this kind, closed at the end."""
    arguments.setdefault("retries", QUICK)
    if kind == "blocking":
        with Client(url, **arguments) as client:
            yield Asked(client, lambda found: found)
        return
    with asyncio.Runner() as runner:
        waiting = AsyncClient(url, **arguments)
        try:
            yield Asked(waiting, runner.run)
        finally:
            runner.run(waiting.aclose())
