"""What every run of this folder has: a table, our server on one core, the generator on the other, whole requests."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import orjson

from load_tests.bench import wire
from load_tests.bench.data import ROWS, TABLE, Ids, drawn, made
from load_tests.bench.openloop.cores import Cores, Generator, generating, pinned_server
from load_tests.bench.openloop.generator import Address, Load, Stream
from load_tests.bench.openloop.records import Record
from load_tests.bench.processes import Server
from load_tests.running import Running

Encoding: TypeAlias = Literal["raw", "JSON"]

PEAK_CONNECTIONS: Final = 16
"""That saturate one worker."""
WARM_UP: Final = 0.2
"""The share of a window's time that is not counted."""
_RAW: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: how many ids, in which encoding, drawn how."""

    ids: int
    encoding: Encoding
    drawn: Ids = "zipf"

    def __str__(self) -> str:
        return f"{self.ids:,} ids {self.encoding}"


@dataclass(frozen=True, slots=True)
class World:
    """A server over a table of so many rows, and the generator that asks it."""

    server: Running
    generator: Generator
    rows: int

    @property
    def address(self) -> Address:
        """Host and port of the server."""
        return address_of(self.server.url)

    def requests(self, kind: Kind) -> tuple[bytes, ...]:
        """Whole requests of a kind, the same ones in every run."""
        return requests_of(kind, self.rows)

    def run(self, seconds: float, *streams: Stream, drain: float = 5.0, seed: int = 0) -> list[Record]:
        """What became of the requests of these streams, which begin when the server has done with those before."""
        Server(self.address[1], self.server.process, self.server.log).quiet()
        return self.generator.run(Load(self.address, streams, seconds, drain, seed))

    def peak(self, kind: Kind, seconds: float, connections: int = PEAK_CONNECTIONS) -> float:
        """Answers with 200 a second when every connection asks again at once; raises RuntimeError for none."""
        (record,) = self.run(seconds, Stream(str(kind), self.requests(kind), connections))
        if not record.count(200):
            raise RuntimeError(f"no request of {kind} was answered with 200, but {set(record.status.tolist())}")
        # Of a window that is too short for any, all are counted, however long they took.
        return record.rate(warm_up=WARM_UP * seconds) or record.count(200) / float(
            record.done[record.status == 200].max()
        )


@contextmanager
def world(*, rows: int = ROWS, workers: int = 1, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[World]:
    """A table, our server over it, and a generator, each of the two on its core."""
    cores = Cores.of_this_machine()
    with tempfile.TemporaryDirectory() as folder, generating(cores.generator) as generator:
        store = made(Path(folder), rows).store
        with pinned_server(store, cores.server, "--workers", str(workers), settings=settings) as server:
            yield World(server, generator, rows)


def address_of(url: str) -> Address:
    """Host and port of a URL; raises ValueError for one without."""
    split = urlsplit(url)
    if split.hostname is None or split.port is None:
        raise ValueError(f"{url!r} has no host and port")
    return split.hostname, split.port


def requests_of(kind: Kind, rows: int) -> tuple[bytes, ...]:
    """Lookups in the table of all runs; the answer has the encoding of the question."""
    path = f"/v1/tables/{TABLE}/lookup"
    sequences = drawn(kind.drawn, kind.ids, rows)
    if kind.encoding == "raw":
        return tuple(wire.post(path, _RAW, ids.astype("<i8").tobytes(), Accept=_RAW) for ids in sequences)
    return tuple(wire.post(path, "application/json", orjson.dumps({"ids": ids.tolist()})) for ids in sequences)
