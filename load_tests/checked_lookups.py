"""Clients that look up without a pause while tables are swapped, and check every answer against what it must be.

They run in processes of their own, so that checks take no turn from what is measured. Every number of a version
tells the table, the version, the row and the column that it belongs to.
"""

import asyncio
import multiprocessing
import os
import random
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ctypes import c_int
from dataclasses import dataclass, field, fields
from functools import cache
from multiprocessing.queues import Queue
from typing import Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import numpy as np
import orjson
import uvloop

from load_tests.running import until
from service.imported import ImportedTable, RowBlock
from service.types import IdArray, RowArray

SHAPES: Final[Mapping[str, Sequence[tuple[int, int]]]] = {
    "words": [(1000, 16), (700, 24), (1500, 8), (900, 32), (1200, 12), (1100, 16)],
    "user": [(600, 16), (900, 8), (400, 24), (750, 12)],
    "item": [(500, 8), (300, 32), (800, 16), (650, 24)],
}
"""Rows and dimensions of version 1, 2, ... of every table; `user` and `item` are swapped together."""
PAIR: Final = ("user", "item")

_OFFSETS: Final = {"words": 0, "user": 100_000, "item": 200_000}
_SHAPE: Final = (4, 8)  # of the ids of one lookup
_BINARY: Final = "application/octet-stream"
_JSON: Final = "application/json"
_PATIENCE: Final = 20.0  # seconds until a request counts as lost
_PAUSE: Final = 0.03  # seconds, at most
_NICENESS: Final = 5  # where all cores are busy, the server goes first: a load that nobody serves tests nothing
_EXAMPLES: Final = 5  # of what went wrong, kept by each process
_SPAWN: Final = multiprocessing.get_context("spawn")

_T = TypeVar("_T")
Group: TypeAlias = Literal["words", "pair"]
CALM, BUSY, REST, STOP = range(4)
"""What connections do: look up with short pauses, so that little waits for the processor; without; not at all; end."""


@cache
def rows_of(table: str, version: int) -> RowArray:
    """The rows of a version, of its shape (rows, dim): every number below 2**19 and a multiple of 1/32, so exact."""
    rows, dim = SHAPES[table][version - 1]
    whole = _OFFSETS[table] + version * 10_000 + np.arange(rows)
    vectors = (whole[:, None] + np.arange(dim) / 32).astype(np.float32)
    vectors.setflags(write=False)
    return vectors


def table_of(table: str, version: int) -> ImportedTable:
    """The same, on its way into a store."""
    vectors = rows_of(table, version)
    return ImportedTable(vectors.shape[0], vectors.shape[1], [RowBlock(vectors)])


def group_of(table: str) -> Group:
    """What is swapped together with this table."""
    return "pair" if table in PAIR else "words"


class Activations:
    """All activations of a group so far, in shared memory: one process writes them, the others read."""

    def __init__(self, most: int, first: int) -> None:
        self._versions = _SPAWN.RawArray(c_int, most)
        self._begun = _SPAWN.RawValue(c_int, 0)
        self._returned = _SPAWN.RawValue(c_int, 0)
        self._versions[0] = first

    def begin(self, version: int) -> None:
        """To be called before the activation is asked for: from now on, answers may be of this version."""
        self._versions[self._begun.value + 1] = version
        self._begun.value += 1

    def returned(self) -> None:
        """To be called when its answer has come, and before anything else is sent."""
        self._returned.value = self._begun.value

    def now(self) -> int:
        """The number of the last activation that has returned."""
        return int(self._returned.value)

    def since(self, first: int) -> set[int]:
        """The versions that this activation and all later ones have put in force."""
        return set(self._versions[first : self._begun.value + 1])


class Shared:
    """What the processes tell each other: the activations, what the connections are to do, and which of them rest."""

    def __init__(self, connections: int, most: int, first: Mapping[Group, int]) -> None:
        self.activations: dict[Group, Activations] = {group: Activations(most, first[group]) for group in first}
        self.signal = _SPAWN.RawValue(c_int, BUSY)
        self.resting = _SPAWN.RawArray(c_int, connections)


@dataclass
class Tally:
    """What came of the requests. `failed`, `mixed` and `old` must be zero; `examples` says what they were."""

    requests: int = 0
    binary: int = 0
    together: int = 0
    out_of_vocabulary: int = 0
    failed: int = 0
    mixed: int = 0
    old: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Adds the counts of another process."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def note(self, kind: Literal["failed", "mixed", "old"], what: str) -> None:
        """Counts one of the answers that must not be."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{kind}: {what}")


# Questions


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and the ids in it by table, in the order of the lookups."""

    head: bytes
    body: bytes
    ids: Mapping[str, IdArray]
    accept: str


def single(table: str, draw: random.Random) -> Question:
    """A lookup in one table; request and answer are binary or JSON, each for itself."""
    ids = _some_ids(table, draw)
    accept = draw.choice((_BINARY, _JSON))
    path = f"/v1/tables/{table}/lookup"
    if draw.random() < 0.5:
        head = _head(f"{path}?shape={_SHAPE[0]},{_SHAPE[1]}", _BINARY, accept)
        return Question(head, ids.tobytes(), {table: ids}, accept)
    return Question(_head(path, _JSON, accept), orjson.dumps({"ids": ids.tolist()}), {table: ids}, accept)


def together(draw: random.Random) -> Question:
    """One request for rows of both tables of the pair."""
    ids = {table: _some_ids(table, draw) for table in PAIR}
    encoding = draw.choice(("float", "base64"))
    lookups = [{"table": table, "ids": some.tolist(), "encoding": encoding} for table, some in ids.items()]
    return Question(_head("/v1/lookup", _JSON, _JSON), orjson.dumps({"lookups": lookups}), ids, _JSON)


def _head(path: str, media: str, accept: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: swap\r\nContent-Type: {media}\r\nAccept: {accept}\r\n".encode()


def _some_ids(table: str, draw: random.Random) -> IdArray:
    """Ids that are valid in every version of the table, or some that are valid in some."""
    rows = [rows for rows, _ in SHAPES[table]]
    below = min(rows) if draw.random() < 0.6 else max(rows)
    ids = np.array([draw.randrange(below) for _ in range(_SHAPE[0] * _SHAPE[1])], dtype=np.int64)
    return ids.reshape(_SHAPE)


# Answers


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class WrongAnswer(Exception):
    """Not what was promised; `kind` is what it counts as."""

    def __init__(self, kind: Literal["failed", "mixed", "old"], what: str) -> None:
        super().__init__(what)
        self.kind: Literal["failed", "mixed", "old"] = kind


def check(question: Question, answer: Answer) -> int:
    """The version of an answer of which everything is true; raises WrongAnswer."""
    if answer.status == 422:
        return _check_out_of_vocabulary(question, orjson.loads(answer.body))
    if answer.status != 200:
        raise WrongAnswer("failed", f"status {answer.status}: {answer.body[:300]!r}")
    if len(question.ids) > 1:
        return _check_results(question, orjson.loads(answer.body)["results"])
    ((table, ids),) = question.ids.items()
    version = int(answer.headers["embedding-version"])
    _check_header(table, ids, version, answer.headers)
    if question.accept == _BINARY:
        _check_rows(table, version, ids, np.frombuffer(answer.body, "<f4"))
    else:
        _check_result(table, ids, version, orjson.loads(answer.body))
    return version


def _check_header(table: str, ids: IdArray, version: int, headers: Mapping[str, str]) -> None:
    dim = rows_of(table, version).shape[1]
    shape = ",".join(map(str, (*ids.shape, dim)))
    if (headers["embedding-table"], headers["embedding-shape"]) != (table, shape):
        raise WrongAnswer("mixed", f"version {version} of {table} with the headers {headers}")


def _check_results(question: Question, results: list[Any]) -> int:
    versions = {result["version"] for result in results}
    if len(versions) != 1 or len(results) != len(question.ids):
        raise WrongAnswer("mixed", f"{len(results)} results of versions {versions}")
    (version,) = versions
    for (table, ids), result in zip(question.ids.items(), results, strict=True):
        _check_result(table, ids, version, result)
    return int(version)


def _check_result(table: str, ids: IdArray, version: int, result: Mapping[str, Any]) -> None:
    said = (result["table"], result["version"], result["shape"])
    if said != (table, version, [*ids.shape, rows_of(table, version).shape[1]]):
        raise WrongAnswer("mixed", f"version {version} of {table} with a body of {said}")
    given = result["vectors"]
    vectors = np.frombuffer(b64decode(given), "<f4") if isinstance(given, str) else np.array(given, np.float32)
    _check_rows(table, version, ids, vectors)


def _check_rows(table: str, version: int, ids: IdArray, vectors: RowArray) -> None:
    known = rows_of(table, version)
    if ids.max() >= len(known):
        raise WrongAnswer("mixed", f"id {ids.max()} got a vector of version {version} of {table}, of {len(known)} rows")
    if known[ids].tobytes() != vectors.tobytes():
        raise WrongAnswer("mixed", f"version {version} of {table} with the rows {vectors.ravel()[:4]}...")


def _check_out_of_vocabulary(question: Question, said: Mapping[str, Any]) -> int:
    if said["code"] != "out_of_vocabulary":
        raise WrongAnswer("failed", f"{said}")
    table, version, tables = said["table"], said["version"], list(question.ids)
    place = tables.index(table)
    if len(tables) > 1 and said["lookup"] != place:
        raise WrongAnswer("mixed", f"lookup {said['lookup']} is of {table}")
    for before in tables[:place]:
        if question.ids[before].max() >= len(rows_of(before, version)):
            raise WrongAnswer("mixed", f"{before} was found to be of another version than {version}")
    ids, rows = question.ids[table], len(rows_of(table, version))
    beyond = [{"index": index, "id": int(ids[tuple(index)])} for index in np.argwhere(ids >= rows).tolist()]
    if not beyond or (said["num_embeddings"], said["total"], said["errors"]) != (rows, len(beyond), beyond):
        raise WrongAnswer("mixed", f"version {version} of {table} has {rows} rows, and the answer is {said}")
    return int(version)


# Connections


class Connection:
    """A minimal HTTP/1.1 client; raises OSError, EOFError, ValueError and TimeoutError for what is not an answer."""

    def __init__(self, url: str, *, keep: bool) -> None:
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._keep = keep
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, question: Question) -> Answer:
        """Sends a request and reads its answer."""
        async with asyncio.timeout(_PATIENCE):
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            close = b"" if self._keep else b"Connection: close\r\n"
            writer.write(b"%s%sContent-Length: %d\r\n\r\n" % (question.head, close, len(question.body)) + question.body)
            answer = await _read(reader)
        if not self._keep:
            await self.close()
        return answer

    async def close(self) -> None:
        """Ends the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            with suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(first.split()[1]), headers, body)


async def _look_up(connection: Connection, question: Question, shared: Shared, tally: Tally) -> None:
    activations = shared.activations[group_of(next(iter(question.ids)))]
    before = activations.now()
    tally.requests += 1
    tally.together += len(question.ids) > 1
    tally.binary += question.accept == _BINARY
    try:
        answer = await connection.ask(question)
        version = check(question, answer)
        tally.out_of_vocabulary += answer.status == 422
        if version not in (in_force := activations.since(before)):
            tally.note("old", f"version {version} of {[*question.ids]}, in force were {in_force}")
    except WrongAnswer as error:
        tally.note(error.kind, str(error))
    except (OSError, EOFError, LookupError, ValueError) as error:
        tally.note("failed", repr(error))
        await connection.close()


def _ask(draw: random.Random) -> Question:
    table = draw.choice(("words", "words", "words", "user", "item", "together", "together"))
    return together(draw) if table == "together" else single(table, draw)


async def _run(number: int, url: str, shared: Shared, tally: Tally) -> None:
    """One connection; every fourth is a fresh one for every request."""
    draw = random.Random(number)
    connection = Connection(url, keep=number % 4 != 3)
    while shared.signal.value != STOP:
        if shared.signal.value == REST:
            await connection.close()
            shared.resting[number] = 1
            await asyncio.sleep(0.005)
        else:
            shared.resting[number] = 0
            await _look_up(connection, _ask(draw), shared, tally)
            if shared.signal.value == CALM:
                await asyncio.sleep(draw.uniform(0, _PAUSE))
    await connection.close()


async def _run_all(numbers: Sequence[int], url: str, shared: Shared) -> Tally:
    tally = Tally()
    await asyncio.gather(*(_run(number, url, shared, tally) for number in numbers))
    return tally


def _process(numbers: Sequence[int], url: str, shared: Shared, results: "Queue[Tally]") -> None:
    os.nice(_NICENESS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results.put(runner.run(_run_all(numbers, url, shared)))


class Load:
    """All connections, in processes of their own."""

    def __init__(self, url: str, shared: Shared, processes: int) -> None:
        self._shared = shared
        self._results: Queue[Tally] = _SPAWN.Queue()
        connections = range(len(shared.resting))
        shares = [list(connections[first::processes]) for first in range(processes)]
        self._processes = [
            _SPAWN.Process(target=_process, args=(share, url, shared, self._results), daemon=True) for share in shares
        ]

    def start(self) -> None:
        """Returns when every connection is about to ask."""
        self._shared.resting[:] = [1] * len(self._shared.resting)
        for process in self._processes:
            process.start()
        self._all_rest(0)

    def at_rest(self, look: Callable[[], _T]) -> _T:
        """The result of `look` while no connection is open; afterwards all of them go on."""
        self._shared.signal.value = REST
        self._all_rest(1)
        seen = look()
        self.be(BUSY)
        self._all_rest(0)
        return seen

    def be(self, signal: int) -> None:
        """CALM or BUSY from now on."""
        self._shared.signal.value = signal

    def stop(self) -> Tally:
        """Ends all processes; gives what came of their requests."""
        self._shared.signal.value = STOP
        tally = Tally()
        for _ in self._processes:
            tally.add(self._results.get(timeout=2 * _PATIENCE))
        for process in self._processes:
            process.join(_PATIENCE)
        return tally

    def kill(self) -> None:
        """Ends what is left, whatever it does."""
        for process in self._processes:
            if process.is_alive():
                process.kill()

    def _all_rest(self, resting: int) -> None:
        everyone = [resting] * len(self._shared.resting)
        until(lambda: self._shared.resting[:] == everyone, 2 * _PATIENCE)


@contextmanager
def load(url: str, shared: Shared, processes: int) -> Iterator[Load]:
    """Connections that look up until they are stopped, and are gone afterwards."""
    clients = Load(url, shared, processes)
    clients.start()
    try:
        yield clients
    finally:
        clients.kill()
