"""A table that is larger than the memory its server may have: `python -m load_tests.beyond_memory`.

The table is sparse on disk, some rows of it apart. Each backend serves it in processes that may have a fraction of its
size for themselves (RLIMIT_DATA), since rows are answered from the map of the file. Prints what is in memory; ends with
1 if a worker has as much for itself as a tenth of the table.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from load_tests.running import resident_bytes, running, until
from service import npyfile
from service.backends import BACKENDS
from service.manifest import FileRecord, Manifest
from service.types import IdArray, RowArray

DIM: Final = 128
_ROW_BYTES: Final = 4 * DIM
_READY_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Bytes of the table, the limit, and of a worker after lookups: what it has for itself, and what of files."""

    backend: str
    table: int
    limit: int
    own: int
    of_files: int

    def __str__(self) -> str:
        sizes = [f"{size / 1e6:,.1f} MB" for size in (self.table, self.limit, self.own, self.of_files)]
        return "{}: table {}, each process at most {} for itself: RssAnon {}, RssFile {}".format(self.backend, *sizes)


def write_sparse(store: Path, megabytes: int) -> IdArray:
    """A version whose rows are zeros but for some, from the first to the last, which hold their id; gives those ids."""
    rows = megabytes * 1_000_000 // _ROW_BYTES
    ids = np.linspace(0, rows - 1, 9).astype(np.int64)
    folder = store / "sparse" / "1"
    folder.mkdir(parents=True)
    with (folder / "vectors.npy").open("wb") as file:
        offset = file.write(npyfile.header_bytes((rows, DIM)))
        for number in ids.tolist():
            file.seek(offset + number * _ROW_BYTES)
            file.write(row_of(number).tobytes())
        size = file.tell()
    # Nobody checks the sum of a version that is in force already, and to make it would take longer than the rest.
    record = FileRecord(bytes=size, sha256="0" * 64)
    manifest = Manifest(
        num_embeddings=rows, embedding_dim=DIM, files={"vectors.npy": record}, created=datetime.now(UTC)
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    (store / "sparse" / "CURRENT").write_text("1\n")
    return ids


def row_of(number: int) -> RowArray:
    """The row of one of the ids that `write_sparse` gives."""
    return np.full(DIM, number, dtype=np.float32)


def measure(store: Path, ids: IdArray, backend: str, limit: int) -> Figures:
    """Serves the table with this backend; raises AssertionError for a wrong answer."""
    with running(store, "--backend", backend, most_data=limit) as server:
        # With little of a processor the pages take longer than a worker waits before it answers "not ready".
        until(lambda: httpx.get(f"{server.url}/health/ready", timeout=60).is_success, _READY_SECONDS)
        expected = np.stack([row_of(number) for number in ids.tolist()])
        for options, wanted in (("", expected), ("?pooling=max", expected.max(axis=0))):
            answer = httpx.post(
                f"{server.url}/v1/tables/sparse/lookup{options}",
                content=ids.tobytes(),
                headers={"content-type": "application/octet-stream", "accept": "application/octet-stream"},
            )
            answer.raise_for_status()
            assert answer.content == wanted.tobytes(), f"{backend} gives other rows"
        (worker,) = server.workers()
        resident = resident_bytes(worker)
        table = (store / "sparse" / "1" / "vectors.npy").stat().st_size
        return Figures(backend, table, limit, resident["RssAnon"], resident["RssFile"])


def main() -> int:
    """Prints a line for each backend; 1 if a worker has a table of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table-mb", type=int, default=3000)
    parser.add_argument("--limit-mb", type=int, default=400)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ids = write_sparse(Path(folder), asked.table_mb)
        found = [measure(Path(folder), ids, backend, asked.limit_mb * 1_000_000) for backend in BACKENDS]
    for one in found:
        print(one)
    return 0 if all(one.own < one.table / 10 for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
