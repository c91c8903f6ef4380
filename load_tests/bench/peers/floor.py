"""The floor: uvicorn with the least application there can be, and bodies as long as those of a lookup."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from load_tests.bench import loads, wire
from load_tests.bench.data import DIM, Data
from load_tests.bench.peers.common import Peer, Variant, never, packages, uvicorn
from load_tests.bench.processes import Server, free_port, started
from service.types import IdArray, RowArray

_NUMBER: Final = 4  # bytes


@contextmanager
def _start(data: Data, core: int) -> Iterator[Server]:
    port = free_port()
    with started(uvicorn("floor", port), port, core, data.folder / "floor.log") as server:
        yield server


def _rows(ids: IdArray) -> bytes:
    return _for(len(ids) * DIM * _NUMBER, ids)


def _row(ids: IdArray) -> bytes:
    return _for(DIM * _NUMBER, ids)


def _for(length: int, ids: IdArray) -> bytes:
    return wire.post(f"/{length}", "application/octet-stream", ids.astype("<i8").tobytes())


def _as_long_as_rows(body: bytes, rows: RowArray) -> bool:
    return len(body) == rows.nbytes


def _as_long_as_a_row(body: bytes, _: RowArray) -> bool:
    return len(body) == DIM * _NUMBER


FLOOR: Final = Peer(
    missing=never,
    versions=lambda: packages("uvicorn", "uvloop", "httptools"),
    start=_start,
    load=loads.HTTP,
    variants={
        "rows": Variant(_rows, _as_long_as_rows),
        "one row": Variant(_row, _as_long_as_a_row),
    },
)
