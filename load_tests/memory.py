"""How much memory several workers over one large table take together: it should be one table and a little.

    python load_tests/memory.py --table-mb 1000 --workers 4 --lookups 10000

Prints the proportional set size (PSS) of every process, their sum, and its ratio to the table; ends with 1 if
the ratio is above `--at-most`. PSS counts a page that four processes share as a quarter of a page for each.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from load_tests.running import Running, pss_bytes, running
from service.backends import BACKENDS
from service.imported import ImportedTable, RowBlock
from service.store import TableStore

_DIM = 128
_BLOCK = 1 << 16
_IDS = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """PSS in bytes, of the supervisor, the steward and each worker, over a table of `table` bytes."""

    table: int
    supervisor: int
    steward: int
    workers: list[int]

    @property
    def ratio(self) -> float:
        """All processes together against the table."""
        return self.total / self.table

    @property
    def total(self) -> int:
        """All processes together, in bytes."""
        return self.supervisor + self.steward + sum(self.workers)


def measure(folder: Path, table_mb: int, workers: int, lookups: int, backend: str = "numpy") -> Figures:
    """Publishes a table, serves it, sends lookups over many connections, and looks at the idle processes."""
    rows = table_mb * 1_000_000 // (_DIM * 4)
    TableStore(folder).publish("large", ImportedTable(rows, _DIM, _blocks(rows)), activate=True)
    with running(folder, "--workers", str(workers), "--backend", backend) as server:
        _look_up(server, rows, lookups)
        sizes = [pss_bytes(pid) for pid in server.workers()]
        return Figures(rows * _DIM * 4, pss_bytes(server.process.pid), pss_bytes(server.steward()), sizes)


def _blocks(rows: int) -> Iterator[RowBlock]:
    generator = np.random.default_rng(0)
    for first in range(0, rows, _BLOCK):
        yield RowBlock(generator.random((min(_BLOCK, rows - first), _DIM), dtype=np.float32))


def _look_up(server: Running, rows: int, lookups: int) -> None:
    generator = np.random.default_rng(1)
    headers = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
    clients = [httpx.Client(base_url=server.url, headers=headers) for _ in range(16)]
    for number in range(lookups):
        ids = generator.integers(0, rows, _IDS, dtype=np.int64)
        answer = clients[number % len(clients)].post("/v1/tables/large/lookup", content=ids.tobytes())
        answer.raise_for_status()
    for client in clients:
        client.close()


def main() -> int:
    """Prints the figures; 1 if there is more than one copy of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table-mb", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--lookups", type=int, default=10_000)
    parser.add_argument("--at-most", type=float, default=1.15)
    parser.add_argument("--backend", choices=BACKENDS, default="numpy")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), asked.table_mb, asked.workers, asked.lookups, asked.backend)
    print(f"table       {figures.table / 1e6:9.1f} MB")
    print(f"supervisor  {figures.supervisor / 1e6:9.1f} MB PSS")
    print(f"steward     {figures.steward / 1e6:9.1f} MB PSS")
    for number, size in enumerate(figures.workers):
        print(f"worker {number}    {size / 1e6:9.1f} MB PSS")
    print(f"all         {figures.ratio:9.3f} times the table (at most {asked.at_most})")
    return 0 if figures.ratio <= asked.at_most else 1


if __name__ == "__main__":
    sys.exit(main())
