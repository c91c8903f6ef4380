"""numpy against ONNX Runtime, each with one thread and with two: `python -m load_tests.bench.backends`.

The time of a lookup's rows alone, in one process that is set up as a worker is, for tables that fit the processor's
caches and for one that does not, and for rows in fewer bits; all ways in turn, round after round. Writes `backends.md`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from load_tests.bench.machine import machine
from service.backends import BACKENDS, Fetching, RowFiles, open_rows
from service.imported import ImportedTable, RowBlock
from service.layout import Layout
from service.server.allocator import keep_freed_memory
from service.store import TableStore
from service.table import EmbeddingTable
from service.types import IdArray, IdBatch, LookupOptions, LookupRequest, Pooling, RowDtype, TableVersion

DIM: Final = 128
SIZES: Final = (64, 2048, 65536)
"""Ids of one lookup."""
POOLED: Final = 64
"""Ids of one sequence of a pooled lookup."""
_IDS: Final = 40_000
"""Ids that are looked up in one measurement."""
_BLOCK: Final = 1 << 16
_WAYS: Final = {
    f"{backend}, {threads} thread{'s' * (threads > 1)}": Fetching(backend, threads)
    for backend in BACKENDS
    for threads in (1, 2)
}

Work = Callable[[EmbeddingTable, IdArray], object]


def pooled(pooling: Pooling) -> Work:
    """Lookups of sequences that are pooled."""
    options = LookupOptions(pooling=pooling)

    def work(table: EmbeddingTable, ids: IdArray) -> object:
        batch = IdBatch(ids, Layout((len(ids) // POOLED, POOLED)))
        return table.lookup(LookupRequest(batch, options=options))

    return work


KINDS: Final[dict[str, Work]] = {
    "rows": lambda table, ids: table.backend.gather(ids),
    f"mean of each {POOLED}": pooled("mean"),
    f"max of each {POOLED}": pooled("max"),
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is looked up in, and for which kinds of lookups."""

    what: str
    megabytes: int
    dtype: RowDtype
    kinds: Sequence[str]


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds of a lookup by how many ids it has, medians over the rounds."""

    table: Table
    kind: str
    way: str
    times: dict[int, float]


def publish(store: TableStore, table: Table) -> RowFiles:
    """A version with rows at random, as backends open it."""
    rows = table.megabytes * 1_000_000 // (4 * DIM)

    def blocks() -> Iterator[RowBlock]:
        generator = np.random.default_rng(0)
        for first in range(0, rows, _BLOCK):
            yield RowBlock(generator.standard_normal((min(_BLOCK, rows - first), DIM), dtype=np.float32))

    version = store.publish("table", ImportedTable(rows, DIM, blocks(), dtype=table.dtype))
    return store.version(version).row_files()


def measure(folder: Path, table: Table, rounds: int) -> list[Measured]:
    """All ways on one table, in turn."""
    files = publish(TableStore(folder), table)
    identity = TableVersion("table", 1)
    opened = {
        way: EmbeddingTable(identity, open_rows(files, fetching, gently=False)) for way, fetching in _WAYS.items()
    }
    found: dict[tuple[str, str, int], list[float]] = {}
    generator = np.random.default_rng(1)
    rows = next(iter(opened.values())).num_embeddings
    for at in range(rounds):
        for kind, size in product(table.kinds, SIZES):
            for way in islice(cycle(opened), at, at + len(opened)):  # or one would always come after another size
                lookups = [generator.integers(0, rows, size) for _ in range(max(2, _IDS // size))]
                found.setdefault((kind, way, size), []).append(_microseconds(KINDS[kind], opened[way], lookups))
    return [
        Measured(table, kind, way, {size: median(found[kind, way, size]) for size in SIZES})
        for kind in table.kinds
        for way in _WAYS
    ]


def _microseconds(work: Work, table: EmbeddingTable, lookups: Sequence[IdArray]) -> float:
    work(table, lookups[0])
    begun = time.perf_counter()
    for ids in lookups:
        work(table, ids)
    return (time.perf_counter() - begun) / len(lookups) * 1e6


def lines(measured: Sequence[Measured]) -> Iterator[str]:
    """A Markdown table; of each kind of lookup in a table the quickest ways are bold, as are those within a tenth."""
    yield f"| {'microseconds of one lookup, ids':60} |" + "".join(f" {size:>10,} |" for size in SIZES)
    yield f"| {'-' * 60} |" + f" {'-' * 9}: |" * len(SIZES)
    for one in measured:
        alike = [other for other in measured if (other.table, other.kind) == (one.table, one.kind)]
        best = {size: min(other.times[size] for other in alike) for size in SIZES}
        cells = (_cell(one.times[size], is_best=one.times[size] <= 1.1 * best[size]) for size in SIZES)
        yield f"| {f'{one.table.what}, {one.kind}: {one.way}':60} |" + "".join(f" {cell:>10} |" for cell in cells)


def _cell(microseconds: float, *, is_best: bool) -> str:
    text = f"{microseconds:,.1f}" if microseconds < 100 else f"{microseconds:,.0f}"
    return f"**{text}**" if is_best else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes the same into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-mb", type=int, default=3000, help="of the table that fits no cache")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="where tables are written; a temporary folder if not given")
    parser.add_argument("--output", type=Path, default=Path("out/bench/backends.md"))
    given = parser.parse_args(arguments)
    keep_freed_memory()
    everything = tuple(KINDS)
    tables = [
        Table("5 MB", 5, "float32", everything),
        Table(f"{given.large_mb:,} MB", given.large_mb, "float32", everything),
        Table("5 MB as float16", 5, "float16", ("rows",)),
        Table("5 MB as int8", 5, "int8", ("rows",)),
    ]
    measured: list[Measured] = []
    for table in tables:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            measured += measure(Path(folder), table, given.rounds)
    text = "\n".join([f"Measured on {', '.join(machine().values())}; rows of {DIM} numbers.", "", *lines(measured), ""])
    print(text)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(text)


if __name__ == "__main__":
    main()
