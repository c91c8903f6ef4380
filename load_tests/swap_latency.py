"""What lookups on one table feel while large versions of another are swapped: `python -m load_tests.swap_latency`.

Quiet windows and windows full of swaps take turns in one run; lookups arrive at a fixed rate, 30 % of what the server
was found to answer. Prints the p99 of every window, the longest stall of a worker's event loop, and the swaps' times.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from load_tests import stalls
from load_tests.running import Running, running
from service.imported import ImportedTable, RowBlock
from service.store import TableStore

_TOKEN: Final = "secret"
_IDS: Final = 64
_ROWS, _DIM = 100_000, 128
_BIG_DIM: Final = 128
_BLOCK: Final = 65_536  # rows
_PROMISED: Final = 1.5
_OVERSLEPT: Final = 0.005  # seconds


@dataclass
class Window:
    """One stretch of time: how long every lookup took, and every swap, in seconds."""

    kind: str
    lookups: list[float] = field(default_factory=list)
    swaps: list[float] = field(default_factory=list)
    stall: float = 0.0

    @property
    def p99(self) -> float:
        """Of the lookups, in seconds."""
        return float(np.percentile(self.lookups, 99))


class Connection:
    """One keep-alive connection that asks for 64 rows at a time, in the raw encoding."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        ids = np.random.default_rng(random.randrange(1 << 32)).integers(0, _ROWS, _IDS)
        body = ids.astype("<i8").tobytes()
        head = (
            "POST /v1/tables/small/lookup HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
            f"Accept: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def close(self) -> None:
        """Ends it."""
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self) -> None:
        """One lookup; raises RuntimeError for an answer that is not 200."""
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))


@asynccontextmanager
async def _connected(url: str, count: int) -> AsyncIterator[list[Connection]]:
    address = httpx.URL(url)
    connections = [Connection(*await asyncio.open_connection(address.host, address.port)) for _ in range(count)]
    yield connections
    for connection in connections:
        await connection.close()


async def capacity(url: str, connections: int, seconds: float) -> float:
    """Lookups a second that the server answers when every connection asks again at once."""
    done = 0
    deadline = time.perf_counter() + seconds

    async def ask(connection: Connection) -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            await connection.ask()
            done += 1

    async with _connected(url, connections) as clients:
        await asyncio.gather(*(ask(client) for client in clients))
    return done / seconds


async def paced(url: str, connections: int, rate: float, window: Window, stop: threading.Event) -> None:
    """Lookups that arrive at `rate` a second, whatever the answers take; each is timed from when it was due."""

    async def ask(connection: Connection) -> None:
        due = time.perf_counter() + random.random() * connections / rate
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            begun = time.perf_counter()
            await connection.ask()
            # A lookup that waits for the one before it on its connection has waited since it was due; what the
            # generator itself overslept is not the server's.
            window.lookups.append(time.perf_counter() - (due if begun - due > _OVERSLEPT else begun))
            due += connections / rate

    async with _connected(url, connections) as clients:
        await asyncio.gather(*(ask(client) for client in clients))


def publish(store: TableStore, table: str, rows: int, dim: int, value: float, *, activate: bool) -> None:
    """A version of equal numbers."""
    block = np.full((min(rows, _BLOCK), dim), value, dtype=np.float32)
    blocks = (RowBlock(block[: min(_BLOCK, rows - first)]) for first in range(0, rows, _BLOCK))
    store.publish(table, ImportedTable(rows, dim, blocks), activate=activate)


@contextmanager
def swapping(server: Running, window: Window) -> Iterator[None]:
    """Swaps one version for the other and back again, all the time."""
    stop = threading.Event()

    def swap() -> None:
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=None) as client:
            while not stop.is_set():
                answer = client.post("/v1/admin/tables/large/rollback").raise_for_status().json()
                window.swaps.append(answer["seconds"])

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(server: Running, clocks: Path, kind: str, seconds: float, rate: float, connections: int) -> Window:
    """One window; one of swaps is as long as its last swap takes."""
    window = Window(kind)
    stop = threading.Event()
    lookups = threading.Thread(target=lambda: asyncio.run(paced(server.url, connections, rate, window, stop)))
    for pid in server.workers():
        stalls.forget(clocks, pid)
    lookups.start()
    if kind == "swaps":
        with swapping(server, window):
            time.sleep(seconds)
    else:
        time.sleep(seconds)
    stop.set()
    lookups.join()
    window.stall = max(stalls.longest(clocks, pid) for pid in server.workers())
    return window


def run(megabytes: int, workers: int, windows: int, seconds: float, connections: int) -> list[Window]:
    """All windows, quiet ones and those of swaps in turn."""
    with tempfile.TemporaryDirectory() as folder:
        clocks, root = Path(folder) / "clocks", Path(folder) / "store"
        clocks.mkdir()
        store = TableStore(root)
        publish(store, "small", _ROWS, _DIM, 1.0, activate=True)
        rows = (megabytes << 20) // (4 * _BIG_DIM)
        for value in (1.0, 2.0):
            publish(store, "large", rows, _BIG_DIM, value, activate=True)
        module = ("load_tests.stalls", str(clocks))
        with running(root, "--workers", str(workers), settings={"ADMIN_TOKEN": _TOKEN}, module=module) as server:
            most = asyncio.run(capacity(server.url, connections, seconds))
            rate = 0.3 * most
            print(f"{workers} worker(s) answer {most:,.0f} lookups of {_IDS} ids a second; now {rate:,.0f} arrive")
            kinds = ["quiet", "swaps"] * (windows // 2)
            return [measure(server, clocks, kind, seconds, rate, connections) for kind in kinds]


def report(windows: list[Window]) -> bool:
    """Prints all figures; whether they are as promised."""
    print(f"{'window':8}{'lookups':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'stall ms':>10}  swaps s")
    for window in windows:
        p50, largest = statistics.median(window.lookups), max(window.lookups)
        swaps = " ".join(f"{seconds:.2f}" for seconds in window.swaps)
        print(
            f"{window.kind:8}{len(window.lookups):9,}{p50 * 1e3:9.2f}{window.p99 * 1e3:9.2f}{largest * 1e3:9.1f}"
            f"{window.stall * 1e3:10.1f}  {swaps}"
        )
    medians = {kind: statistics.median(w.p99 for w in windows if w.kind == kind) for kind in ("quiet", "swaps")}
    ratio = medians["swaps"] / medians["quiet"]
    stall = {kind: max(w.stall for w in windows if w.kind == kind) for kind in ("quiet", "swaps")}
    times = [seconds for window in windows for seconds in window.swaps]
    print(
        f"median p99: quiet {medians['quiet'] * 1e3:.2f} ms, swaps {medians['swaps'] * 1e3:.2f} ms: {ratio:.2f} times"
    )
    felt = f"quiet {stall['quiet'] * 1e3:.1f} ms, swaps {stall['swaps'] * 1e3:.1f} ms"
    print(f"longest stall of a worker's event loop: {felt}")
    print(f"swaps: {len(times)}, median {statistics.median(times):.2f} s, longest {max(times):.2f} s")
    return ratio <= _PROMISED


def main() -> None:
    """Runs it; ends with 1 if swaps are felt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--windows", type=int, default=20, help="quiet ones and those of swaps together")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args()
    windows = run(given.megabytes, given.workers, given.windows, given.seconds, given.connections)
    sys.exit(0 if report(windows) else 1)


if __name__ == "__main__":
    main()
