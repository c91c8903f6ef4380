"""FastAPI as people usually write such a service; the application says how."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import orjson

from load_tests.bench import loads, wire
from load_tests.bench.data import Data
from load_tests.bench.peers.common import Peer, Variant, never, packages, uvicorn
from load_tests.bench.processes import Server, free_port, started
from service.types import IdArray, RowArray


@contextmanager
def _start(data: Data, core: int) -> Iterator[Server]:
    port = free_port()
    table = {"BENCH_TABLE": str(data.npy)}
    with started(uvicorn("usual_fastapi", port), port, core, data.folder / "fastapi.log", table) as server:
        yield server


def _lists(ids: IdArray) -> bytes:
    return wire.post("/lookup", "application/json", orjson.dumps({"ids": ids.tolist()}))


def _is_lists(body: bytes, rows: RowArray) -> bool:
    return bool(np.array_equal(np.array(orjson.loads(body)["vectors"], np.float32), rows))


USUAL_FASTAPI: Final = Peer(
    missing=never,
    versions=lambda: packages("fastapi", "pydantic", "starlette", "uvicorn", "uvloop", "httptools"),
    start=_start,
    load=loads.HTTP,
    variants={"JSON": Variant(_lists, _is_lists)},
)
