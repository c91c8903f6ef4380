"""Random rows of a table far larger than any cache: `python -m load_tests.bench.large`.

The same rows in two files, written in whole blocks as the store does, which Linux can keep in huge pages, and in small
pieces as a copying program does. Compared with numpy's `take` and with how fast the machine copies memory.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

import numpy as np

from load_tests.bench.machine import machine
from service import npyfile
from service.backends import RowFiles
from service.backends.memory import MappedRows, open_rows
from service.durable import HashedFile
from service.types import IdArray, RowArray

DIM: Final = 128
SIZES: Final = (64, 2048, 65536)
"""Rows of one lookup."""
_LOOKUPS: Final = 20_000
"""Rows that are looked up in one measurement, in lookups of one size."""
_SMALL: Final = 64 << 10  # bytes
_BLOCK: Final = 1 << 14  # rows

Gather: TypeAlias = Callable[[IdArray], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """Nanoseconds a row by the size of the lookup, medians over the rounds."""

    what: str
    times: dict[int, float]


def write(folder: Path, rows: int) -> tuple[Path, Path]:
    """The same table in whole blocks and in small pieces."""
    blocks, pieces = folder / "blocks.npy", folder / "pieces.npy"
    generator = np.random.default_rng(0)
    with HashedFile(blocks) as file:
        file.write(npyfile.header_bytes((rows, DIM)))
        for first in range(0, rows, _BLOCK):
            part = generator.standard_normal((min(_BLOCK, rows - first), DIM), dtype=np.float32)
            file.write(part.data.cast("B"))
    with blocks.open("rb") as source, pieces.open("wb", buffering=0) as target:
        while piece := source.read(_SMALL):
            target.write(piece)
        os.fsync(target.fileno())
    return blocks, pieces


def measure(ways: dict[str, Gather], rows: int, rounds: int) -> list[Measured]:
    """All ways in turn, round after round, with fresh ids each time."""
    found: dict[tuple[str, int], list[float]] = {}
    generator = np.random.default_rng(1)
    for _ in range(rounds):
        for size in SIZES:
            for what, gather in ways.items():
                lookups = [generator.integers(0, rows, size) for _ in range(max(2, _LOOKUPS // size))]
                begun = time.perf_counter()
                for ids in lookups:
                    gather(ids)
                taken = (time.perf_counter() - begun) / len(lookups) / size
                found.setdefault((what, size), []).append(taken * 1e9)
    return [Measured(what, {size: median(found[what, size]) for size in SIZES}) for what in ways]


def copying(rounds: int) -> float:
    """Nanoseconds that the machine takes to copy as many bytes as a row has, of 256 MB in a row."""
    source = np.ones((1 << 19, DIM), dtype=np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        np.copyto(target, source)
        times.append((time.perf_counter() - begun) / len(source))
    return min(times) * 1e9


def huge_share(table: MappedRows) -> float:
    """Which part of a table's mapping is in huge pages."""
    (mapping,) = table.mappings
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next((line for line in lines if line.startswith(f"{address:x}-")), None)
    mapped = next((int(line.split()[1]) for line in lines if line.startswith("FilePmdMapped:")), 0)
    return mapped * 1024 / len(mapping)


def opened(path: Path) -> MappedRows:
    """The table as the service opens it."""
    backend = open_rows(RowFiles(path), gently=False)
    assert isinstance(backend, MappedRows)
    return backend


def into_one_buffer(rows: RowArray) -> Gather:
    """`take` into memory that is used again and again."""
    buffers = {size: np.empty((size, DIM), dtype=np.float32) for size in SIZES}
    return lambda ids: rows.take(ids, 0, buffers[len(ids)], "clip")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of nanoseconds a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=3000, help="of the table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are written; a temporary folder if not given")
    given = parser.parse_args(arguments)
    rows = given.mb * 1_000_000 // (4 * DIM)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        blocks, pieces = map(opened, write(Path(folder), rows))
        ways: dict[str, Gather] = {
            "the service's lookup": blocks.gather,
            "numpy's take": lambda ids: blocks.rows.take(ids, axis=0),
            "numpy's take, one buffer": into_one_buffer(blocks.rows),
            "written in small pieces: the service's lookup": pieces.gather,
            "written in small pieces: numpy's take": lambda ids: pieces.rows.take(ids, axis=0),
        }
        measured = measure(ways, rows, given.rounds)
        print(f"{', '.join(machine().values())}; {rows:,} x {DIM} float32, ns a row of {4 * DIM} bytes")
        print(f"in huge pages: {huge_share(blocks):.0%} written in blocks, {huge_share(pieces):.0%} in small pieces")
        print(f"{'rows of a lookup':48}" + "".join(f"{size:>9,}" for size in SIZES))
        for one in measured:
            print(f"{one.what:48}" + "".join(f"{one.times[size]:9.0f}" for size in SIZES))
        print(f"{'the machine copies as much, in a row':48}{copying(given.rounds):9.0f}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
