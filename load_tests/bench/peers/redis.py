"""Redis: every row is a string under its id, and `MGET` fetches many of them. Nothing is saved to disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from load_tests.bench import loads, redis_benchmark, wire
from load_tests.bench.data import Data
from load_tests.bench.peers.common import Peer, Variant, not_on_path, said_by
from load_tests.bench.processes import Server, free_port, started
from service.types import IdArray, RowArray

_BLOCK: Final = 1000  # rows in one MSET


@contextmanager
def _start(data: Data, core: int) -> Iterator[Server]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with started([*command, "--dir", str(data.folder)], port, core, data.folder / "redis.log") as server:
        _fill(port, data.vectors)
        yield server


def _fill(port: int, vectors: RowArray) -> None:
    for first in range(0, len(vectors), _BLOCK):
        rows = enumerate(vectors[first : first + _BLOCK], first)
        words = [word for row, vector in rows for word in (redis_benchmark.key(row), vector.tobytes())]
        wire.ask_resp(port, wire.command(b"MSET", *words))


def _version() -> dict[str, str]:
    words = said_by("redis-server", "--version").split()
    return {"redis-server": next(word for word in words if word.startswith("v=")).removeprefix("v=")}


def _mget(ids: IdArray) -> bytes:
    return wire.command(b"MGET", *map(redis_benchmark.key, ids.tolist()))


def _is_rows(body: bytes, rows: RowArray) -> bool:
    return body == rows.tobytes()


REDIS: Final = Peer(
    missing=lambda: not_on_path("redis-server"),
    versions=_version,
    start=_start,
    load=loads.RESP,
    variants={"MGET": Variant(_mget, _is_rows)},
)
