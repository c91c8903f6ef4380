"""Lookups that arrive together, answered together: one check and one gather for the ids of all.

Behind a system call the processor has forgotten what it knew of the code that follows: gathering 64 rows takes 6 us
where it is repeated, and several times that once per packet. With 16 connections that ask for 64 rows at a time, an
answer takes 50 us of a processor instead of 70 as bytes, 72 instead of 104 as base64, 93 instead of 117 as JSON.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeGuard
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from service.api.answer import Buffer, Ready
from service.api.encodings import octets
from service.layout import Layout
from service.metrics import Answered, Counters
from service.registry import LoadedTable, TableRegistry
from service.rowtexts import BETWEEN
from service.table import EmbeddingTable
from service.types import IdArray, IdBatch, LookupRequest

_INT64: Final = np.dtype("<i8")
_MOST: Final = 1 << 17
"""Numbers that are gathered for one batch: 512 KB of float32."""

Finish: TypeAlias = Callable[[EmbeddingTable, Buffer], Ready | None]
"""The answer made of what its way gives for each part; None for the usual way."""

Part: TypeAlias = tuple["Way", Buffer, int, Finish]
"""One request of a batch: its way, its ids as bytes of int64, how many they are, and what makes the answer.

A plain tuple, as a named one costs each request 0.3 us.
"""


class Way(Protocol):
    """What requests of one kind in one version have in common: up to `most` ids of one way are answered together.

    Answers that are `large` are made while they are sent. `answered` is where they are counted.
    """

    most: int
    large: bool
    answered: Answered

    def answers(self, parts: Sequence[Part]) -> list[Ready | None]:
        """Their answers in their order; None where the usual way has to be gone. May raise if any of them fails."""


class Version:
    """A version of a table while it is in force, which it does not keep alive."""

    __slots__ = ("_loaded", "_name", "_registry", "answered", "dim")

    def __init__(self, loaded: LoadedTable, registry: TableRegistry, counters: Counters, endpoint: str) -> None:
        """`endpoint` is what its answers are counted under."""
        self._loaded = weakref.ref(loaded)
        self._name = loaded.table.identity.name
        self.dim = loaded.table.embedding_dim
        self._registry = registry
        self.answered = Answered(counters, endpoint, loaded.table.identity)

    def table(self) -> EmbeddingTable | None:
        """None once another version is in force."""
        entry, loaded = self._registry.entries.get(self._name), self._loaded()
        return loaded.table if entry is not None and loaded is not None and entry.loaded is loaded else None

    def counted(self, parts: Sequence[Part], found: list[Ready | None]) -> list[Ready | None]:
        """The answers, which are counted as such."""
        if all(found):
            self.answered.count([part[2] for part in parts])
        else:
            self.answered.count([part[2] for part, answer in zip(parts, found, strict=True) if answer is not None])
        return found


class _Checked:
    """A way whose ids have to be in the table, and for which others make no difference."""

    large = False

    def __init__(self, version: Version) -> None:
        self._version = version
        self.answered = version.answered
        self.most = _MOST // version.dim

    def answers(self, parts: Sequence[Part]) -> list[Ready | None]:
        table = self._version.table()
        if table is None:
            return [None] * len(parts)
        ids = _joined(parts)
        if table.has_all(ids):
            return self._version.counted(parts, self._made(table, parts, ids))
        if len(parts) == 1:
            return [None]
        return [self.answers([part])[0] for part in parts]

    def _made(self, table: EmbeddingTable, parts: Sequence[Part], ids: IdArray) -> list[Ready | None]:
        raise NotImplementedError


class Rows(_Checked):
    """Answers made of rows as they are stored, of which `finish` gets the bytes."""

    def _made(self, table: EmbeddingTable, parts: Sequence[Part], ids: IdArray) -> list[Ready | None]:
        rows, each, end = octets(table.backend.gather(ids)), 4 * table.embedding_dim, 0
        return [
            finish(table, rows[end : (end := end + length * each)])  # the end of one is the beginning of the next
            for _, _, length, finish in parts
        ]


class Texts(_Checked):
    """Answers made of the JSON text of rows: `finish` gets it with what stands `between` them."""

    def __init__(self, version: Version, between: bytes) -> None:
        super().__init__(version)
        self._between = between

    def _made(self, table: EmbeddingTable, parts: Sequence[Part], ids: IdArray) -> list[Ready | None]:
        if table.texts is None:
            return _rendered(table, parts, ids, is_flat=self._between != BETWEEN)
        texts, end = table.texts.listed(ids), 0
        if texts is None:
            return [None] if len(parts) == 1 else [self._made(table, [part], _joined([part]))[0] for part in parts]
        join = self._between.join
        return [finish(table, join(texts[end : (end := end + length)])) for _, _, length, finish in parts]


class Each(_Checked):
    """Answers made one by one, of the bytes of their ids, while they are sent."""

    large = True

    def _made(self, table: EmbeddingTable, parts: Sequence[Part], _ids: IdArray) -> list[Ready | None]:
        return [finish(table, ids) for _, ids, _, finish in parts]


class Stacked:
    """Lookups of one shape with the same options, stacked along a new first axis; `finish` gets the vectors' bytes."""

    large = False

    def __init__(self, version: Version, request: LookupRequest, numbers: int) -> None:
        """The first of the requests, and how many numbers its answer has."""
        self._version = version
        self.answered = version.answered
        self._options = request.options
        self._shape, count = request.batch.layout.shape, request.batch.layout.total
        self.most = _MOST * count // max(numbers, count * version.dim, 1)

    def answers(self, parts: Sequence[Part]) -> list[Ready | None]:
        table = self._version.table()
        if table is None:
            return [None] * len(parts)
        batch = IdBatch(_joined(parts), Layout((len(parts), *self._shape)))
        vectors = octets(table.lookup(LookupRequest(batch, options=self._options)).vectors)
        each = len(vectors) // len(parts)
        found = [finish(table, vectors[at * each : (at + 1) * each]) for at, (*_, finish) in enumerate(parts)]
        return self._version.counted(parts, found)


class Form(NamedTuple):
    """What stands around the vectors of so many ids in JSON; no `end` where the mask depends on the ids."""

    head: bytes
    start: bytes
    end: bytes


class Ways(NamedTuple):
    """Those of one version, but for those with options, and the `forms` of its answers by length and whether as text.

    All heads share them: with forms of its own each could take 5 MB.
    """

    version: Version
    rows: Rows
    texts: Texts
    each: Each
    forms: dict[tuple[int, bool], Form]

    @classmethod
    def of(cls, version: Version, between: bytes) -> "Ways":
        """All of a version."""
        return cls(version, Rows(version), Texts(version, between), Each(version), {})


class VersionWays:
    """Those of every version in force, for one endpoint, in whose answers this stands `between` the texts of rows."""

    __slots__ = ("_between", "_counters", "_endpoint", "_of", "_registry")

    def __init__(self, registry: TableRegistry, counters: Counters, endpoint: str, between: bytes = BETWEEN) -> None:
        self._between = between
        self._registry = registry
        self._counters = counters
        self._endpoint = endpoint
        self._of: WeakKeyDictionary[LoadedTable, Ways] = WeakKeyDictionary()

    def of(self, loaded: LoadedTable) -> Ways:
        """They are the same for all heads, so that lookups with different heads are answered together."""
        ways = self._of.get(loaded)
        if ways is None:
            version = Version(loaded, self._registry, self._counters, self._endpoint)
            ways = self._of[loaded] = Ways.of(version, self._between)
        return ways


def answers(parts: Sequence[Part | None], since: Sequence[float]) -> list[Ready | None]:
    """The answers to all, in their order; None where the usual way has to be gone. Raises nothing.

    `since` is when each of them was there, for the metrics.
    """
    if _is_one_batch(parts):
        found = _answers(parts)
        _took(parts[0][0], found, since)
        return found
    return _of_batches(parts, since)


def _of_batches(parts: Sequence[Part | None], since: Sequence[float]) -> list[Ready | None]:
    found: list[Ready | None] = [None] * len(parts)
    for places, batch in _batches(parts):
        some = _answers(batch)
        _took(batch[0][0], some, [since[place] for place in places])
        for place, answer in zip(places, some, strict=True):
            found[place] = answer
    return found


def _took(way: Way, found: Sequence[Ready | None], since: Sequence[float]) -> None:
    """Notes how long it took since requests of one way were there, of those that were answered together."""
    now = perf_counter()
    if all(found):
        way.answered.took([now - begun for begun in since])
        return
    for answer, begun in zip(found, since, strict=True):
        if answer is not None:
            way.answered.took((now - begun,))


def _answers(parts: Sequence[Part]) -> list[Ready | None]:
    try:
        return parts[0][0].answers(parts)
    except Exception:  # noqa: BLE001  (it happens again, and is answered, on the usual way)
        return [None] if len(parts) == 1 else [_answers([part])[0] for part in parts]


def _is_one_batch(parts: Sequence[Part | None]) -> TypeGuard[Sequence[Part]]:
    """Whether all of them are answered together, as nearly always."""
    first = parts[0] if parts else None
    if first is None or len(parts) == 1:
        return first is not None
    way, room = first[0], first[0].most
    for part in parts:
        if part is None or part[0] is not way:
            return False
        room -= part[2]
    return room >= 0


def _batches(parts: Sequence[Part | None]) -> Iterator[tuple[list[int], list[Part]]]:
    """Those that are answered together, with their places."""
    batches: dict[Way, tuple[list[int], list[Part]]] = {}
    room: dict[Way, int] = {}
    for place, part in enumerate(parts):
        if part is None:
            continue
        way, _, length, _ = part
        if length > room.get(way, -1):
            if way in batches:
                yield batches[way]
            batches[way], room[way] = ([], []), way.most
        places, batch = batches[way]
        places.append(place)
        batch.append(part)
        room[way] -= length
    yield from batches.values()


def _joined(parts: Sequence[Part]) -> IdArray:
    return np.frombuffer(parts[0][1] if len(parts) == 1 else b"".join([ids for _, ids, _, _ in parts]), _INT64)


def _rendered(table: EmbeddingTable, parts: Sequence[Part], ids: IdArray, *, is_flat: bool) -> list[Ready | None]:
    """Answers made of texts of which none are kept."""
    rows, end = table.backend.gather(ids), 0
    found: list[Ready | None] = []
    for _, _, length, finish in parts:
        some = rows[end : end + length]
        text = orjson.dumps(some.reshape(-1) if is_flat else some, option=orjson.OPT_SERIALIZE_NUMPY)
        found.append(finish(table, memoryview(text)[1:-1] if is_flat else memoryview(text)[2:-2]))
        end += length
    return found
