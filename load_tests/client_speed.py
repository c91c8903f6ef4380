"""What the Python client costs beside a call of httpx written by hand: `python -m load_tests.client_speed`.

One server, 64 ids as int64 and their vectors as bare float32, one request at a time: by `httpx.Client.post` and
`np.frombuffer`, and by `Client.lookup`, which also gives the shape, the version and the mask. Both have their turns in
every round, blocking and in asyncio.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from load_tests.bench.machine import machine
from load_tests.running import running
from service.client import AsyncClient, Client
from service.store import TableStore
from tests.world import publish

ROWS, DIM, IDS = 100_000, 128, 64
TABLE: Final = "words"
AT_MOST: Final = 1.5
_HEADERS: Final = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}
_PATH: Final = f"/v1/tables/{TABLE}/lookup"

Ids = NDArray[np.int64]
Vectors = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds that a lookup takes in each round, written by hand and by the client."""

    name: str
    by_hand: Sequence[float]
    by_client: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.by_client, self.by_hand, strict=True))

    def __str__(self) -> str:
        hand, client = (statistics.median(times) * 1e6 for times in (self.by_hand, self.by_client))
        return f"{self.name:<10} {hand:>14.0f} {client:>14.0f} {self.ratio:>8.2f}"


def by_hand(http: httpx.Client, ids: Ids) -> Vectors:
    """What somebody would write without the client."""
    answer = http.post(_PATH, content=ids.tobytes(), headers=_HEADERS)
    return np.frombuffer(answer.content, "<f4").reshape(-1, DIM)


async def by_hand_async(http: httpx.AsyncClient, ids: Ids) -> Vectors:
    """The same in asyncio."""
    answer = await http.post(_PATH, content=ids.tobytes(), headers=_HEADERS)
    return np.frombuffer(answer.content, "<f4").reshape(-1, DIM)


def seconds(lookup: Callable[[Ids], object], batches: Sequence[Ids]) -> float:
    """How long one lookup takes."""
    started = time.perf_counter()
    for ids in batches:
        lookup(ids)
    return (time.perf_counter() - started) / len(batches)


async def seconds_async(lookup: Callable[[Ids], Awaitable[object]], batches: Sequence[Ids]) -> float:
    """The same in asyncio."""
    started = time.perf_counter()
    for ids in batches:
        await lookup(ids)
    return (time.perf_counter() - started) / len(batches)


def blocking(url: str, batches: Sequence[Ids], rounds: int) -> Row:
    """Rounds of both, one after the other."""
    with httpx.Client(base_url=url) as http, Client(url) as client:
        np.testing.assert_array_equal(by_hand(http, batches[0]), client.lookup(TABLE, batches[0]).vectors)
        found = [
            (
                seconds(lambda ids: by_hand(http, ids), batches),
                seconds(lambda ids: client.lookup(TABLE, ids).vectors, batches),
            )
            for _ in range(rounds)
        ]
    hand, ours = zip(*found, strict=True)
    return Row("blocking", hand, ours)


async def awaiting(url: str, batches: Sequence[Ids], rounds: int) -> Row:
    """The same in asyncio."""
    async with httpx.AsyncClient(base_url=url) as http, AsyncClient(url) as client:
        await by_hand_async(http, batches[0])
        await client.lookup(TABLE, batches[0])
        found = [
            (
                await seconds_async(lambda ids: by_hand_async(http, ids), batches),
                await seconds_async(lambda ids: client.lookup(TABLE, ids), batches),
            )
            for _ in range(rounds)
        ]
    hand, ours = zip(*found, strict=True)
    return Row("asyncio", hand, ours)


def measured(rounds: int, lookups: int) -> list[Row]:
    """Both, beside one server."""
    draw = np.random.default_rng(0)
    batches = list(draw.integers(0, ROWS, (lookups, IDS)))
    with tempfile.TemporaryDirectory() as folder:
        publish(TableStore(Path(folder)), TABLE, draw.standard_normal((ROWS, DIM), dtype=np.float32), padding_id=0)
        with running(Path(folder)) as server:
            return [blocking(server.url, batches, rounds), asyncio.run(awaiting(server.url, batches, rounds))]


def main() -> None:
    """Measures, prints, and ends with 1 where the client takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--lookups", type=int, default=200, help="of one round")
    given = parser.parse_args()
    rows = measured(given.rounds, given.lookups)
    print(f"{', '.join(machine().values())}; {given.rounds} rounds of {given.lookups} lookups, medians")
    print(f"{'':<10} {'by hand, us':>14} {'Client, us':>14} {'ratio':>8}   at most {AT_MOST}")
    print(*rows, sep="\n")
    raise SystemExit(0 if all(row.ratio <= AT_MOST for row in rows) else 1)


if __name__ == "__main__":
    main()
