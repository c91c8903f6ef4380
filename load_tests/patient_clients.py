"""Threads that look up without a pause and send a request again where its connection ended before a byte of the answer.

That is what HTTP lets a client do (RFC 9110, section 9.2.2, where a lookup is safe), and what those in use do. All
else that is not the right answer is a failure.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import httpx
import numpy as np
import orjson

from service.types import IdArray, RowArray

Form = Literal["raw", "json"]

_SHAPE: Final = (4, 16)
_PATIENCE: Final = 10.0  # seconds that a request is tried for
_PAUSE: Final = 0.01  # seconds before a connection is opened again
_EXAMPLES: Final = 5
_OCTETS: Final = "application/octet-stream"


@dataclass
class Tally:
    """What came of the requests. `failed` must be 0; `retried` counts connections that ended without an answer.

    `announced` are answers whose head said that the connection ends with them; `longest` is in seconds, all tries of
    a request together.
    """

    answered: int = 0
    on_new_connections: int = 0
    failed: int = 0
    announced: int = 0
    longest: float = 0.0
    retried: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Adds what another thread has counted."""
        self.answered += other.answered
        self.on_new_connections += other.on_new_connections
        self.failed += other.failed
        self.announced += other.announced
        self.longest = max(self.longest, other.longest)
        self.retried.update(other.retried)
        self.examples = [*self.examples, *other.examples][:_EXAMPLES]

    def fail(self, what: str) -> None:
        """Counts a request that was not answered as it should be."""
        self.failed += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)


class _Unanswered(Exception):
    """The connection ended before a byte of the answer; the text says how."""


class _Wrong(Exception):
    """An answer that is not the right one."""


@dataclass(frozen=True, slots=True)
class Client:
    """One thread's: how it asks, and whether it opens a connection for every request."""

    form: Form
    keeps: bool
    url: str
    table: str
    rows: RowArray
    number: int

    def run(self, ended: threading.Event, tally: Tally) -> None:
        """Asks until the event is set."""
        draw = np.random.default_rng(self.number)
        client = self._opened()
        while not ended.is_set():
            ids = draw.integers(0, len(self.rows), _SHAPE)
            started = time.monotonic()
            try:
                self._ask(client, ids, started, tally)
            except (_Wrong, _Unanswered) as error:
                tally.fail(f"{self.form}: {error}")
            tally.longest = max(tally.longest, time.monotonic() - started)
        client.close()

    def _opened(self) -> httpx.Client:
        limits = httpx.Limits(max_keepalive_connections=1 if self.keeps else 0)
        return httpx.Client(base_url=self.url, timeout=_PATIENCE, trust_env=False, limits=limits)

    def _ask(self, client: httpx.Client, ids: IdArray, started: float, tally: Tally) -> None:
        """One request until it is answered; raises _Unanswered after some seconds, _Wrong for a wrong answer."""
        while True:
            try:
                self._check(self._sent(client, ids), ids, tally)
            except _Unanswered as error:
                if time.monotonic() - started > _PATIENCE:
                    raise
                tally.retried[str(error)] += 1
                time.sleep(_PAUSE * random.random())
            else:
                return

    def _sent(self, client: httpx.Client, ids: IdArray) -> httpx.Response:
        path = f"/v1/tables/{self.table}/lookup"
        if self.form == "raw":
            query = {"shape": ",".join(map(str, ids.shape))}
            headers = {"Content-Type": _OCTETS, "Accept": _OCTETS}
            request = client.build_request("POST", path, params=query, headers=headers, content=ids.tobytes())
        else:
            request = client.build_request("POST", path, json={"ids": ids.tolist()})
        try:
            response = client.send(request, stream=True)
        except httpx.TransportError as error:
            raise _Unanswered(_kind(error)) from error
        try:
            response.read()
        except httpx.TransportError as error:
            raise _Wrong(f"an answer broke off: {error!r}") from error
        return response

    def _check(self, answer: httpx.Response, ids: IdArray, tally: Tally) -> None:
        if answer.status_code != 200:
            raise _Wrong(f"{answer.status_code} {answer.text[:200]}")
        if self.form == "raw":
            vectors = np.frombuffer(answer.content, "<f4").reshape(*_SHAPE, -1)
        else:
            vectors = np.array(orjson.loads(answer.content)["vectors"], np.float32)
        if vectors.tobytes() != self.rows[ids].tobytes():
            raise _Wrong("other rows than those of the ids")
        tally.answered += 1
        tally.on_new_connections += not self.keeps
        tally.announced += answer.headers.get("connection", "").lower() == "close"


def _kind(error: httpx.TransportError) -> str:
    """In words: how a connection ended before an answer came."""
    kinds = {
        httpx.ConnectError: "refused",
        httpx.RemoteProtocolError: "closed before a byte of the answer",
        httpx.ReadError: "reset before a byte of the answer",
        httpx.WriteError: "ended while the request was sent",
    }
    return kinds.get(type(error), repr(error))


class Clients:
    """All threads; they ask from the beginning. `tallies` are what each has counted so far."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._ended = threading.Event()
        self.tallies = [Tally() for _ in clients]
        self._threads = [
            threading.Thread(target=client.run, args=(self._ended, tally))
            for client, tally in zip(clients, self.tallies, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> Tally:
        """Waits for the answers that are under way; what came of all requests."""
        self._ended.set()
        whole = Tally()
        for thread, tally in zip(self._threads, self.tallies, strict=True):
            thread.join()
            whole.add(tally)
        return whole


@contextmanager
def asking(url: str, table: str, rows: RowArray, keeping: int, new: int) -> Iterator[Callable[[], Clients]]:
    """So many clients that keep their connections and so many that do not, half of them raw; ended afterwards."""
    started: list[Clients] = []

    def start() -> Clients:
        forms: tuple[Form, Form] = ("raw", "json")
        clients = [
            Client(forms[number % 2], number < keeping, url, table, rows, number) for number in range(keeping + new)
        ]
        started.append(Clients(clients))
        return started[-1]

    try:
        yield start
    finally:
        for clients in started:
            clients.end()
