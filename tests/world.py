"""Small real worlds for tests: a store with a table in it, and a server over it on a loopback port."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import uvicorn
from numpy.typing import ArrayLike
from starlette.types import ASGIApp

from service.api.app import Service, create_service
from service.api.authorization import Tokens
from service.api.guard import Guard
from service.barrier import OneProcess
from service.dialects import dialects_of
from service.imported import ImportedTable, RowBlock
from service.metrics import Counters, SharedCounters
from service.registry import TableRegistry
from service.server.wire import Wire
from service.settings import Settings
from service.steward import Steward
from service.store import TableStore
from service.types import OovRule, RowArray, TableVersion
from service.watcher import StoreWatcher

Path_ = Literal["wire", "front", "behind", "onnx"]
"""The way of a lookup: answered by the protocol, by the application, or behind its router; or by the protocol, with
rows that come through ONNX Runtime."""

# The 7 x 2 table of the Keras literature, with the words of "Hope to see you soon" / "Nice to see you again".
KERAS_ROWS: RowArray = np.array(
    [[1.2, 3.1], [0.1, 4.2], [1.0, 3.1], [0.3, 2.1], [2.2, 1.4], [0.7, 1.7], [4.1, 2.0]], dtype=np.float32
)
KERAS_TOKENS = ("hope", "to", "see", "you", "soon", "nice", "again")


def imported(
    rows: ArrayLike,
    tokens: Sequence[str] | None = None,
    *,
    padding_id: int | None = None,
    unk_id: int | None = None,
    on_oov: OovRule = "error",
) -> ImportedTable:
    """A table on its way into a store, in one block."""
    vectors = np.asarray(rows, dtype=np.float32)
    return ImportedTable(vectors.shape[0], vectors.shape[1], [RowBlock(vectors, tokens)], padding_id, unk_id, on_oov)


def publish(
    store: TableStore,
    name: str,
    rows: ArrayLike,
    tokens: Sequence[str] | None = None,
    *,
    padding_id: int | None = None,
    unk_id: int | None = None,
    on_oov: OovRule = "error",
    activate: bool = True,
) -> TableVersion:
    """Publishes rows as a new version, active unless told otherwise."""
    table = imported(rows, tokens, padding_id=padding_id, unk_id=unk_id, on_oov=on_oov)
    return store.publish(name, table, activate=activate)


def service_over(root: Path, **settings: object) -> tuple[Service, StoreWatcher]:
    """The application over a store, with everything loaded that is active."""
    chosen = Settings.model_validate({"store": root, **settings})
    registry = TableRegistry()
    watcher = StoreWatcher(
        TableStore(root),
        registry,
        fetching=chosen.fetching(),
        keep_loaded=chosen.keep_loaded,
        text_bytes=chosen.json_cache_bytes,
    )
    watcher.refresh()
    steward = Steward(watcher.store, OneProcess(watcher, os.getpid()))
    counters = Counters(SharedCounters(1), 0)
    admin = lambda behind: Guard(behind, steward, Tokens.of(chosen))  # noqa: E731
    return create_service(chosen, registry, watcher, counters, admin, dialects_of(chosen)), watcher


def backend_of(path: Path_) -> str:
    """How rows are fetched on the way of a lookup."""
    return "onnx" if path == "onnx" else "numpy"


@contextmanager
def serving(root: Path, path: Path_ = "wire", **settings: object) -> Iterator[httpx.Client]:
    """A real uvicorn (uvloop, httptools) over a store, and a client of it.

    `wire` is what the service runs; `front` is the same over uvicorn's own protocol, `behind` FastAPI alone, without
    the lookups in front of its router, `onnx` is `wire` with the other backend.
    """
    service, _ = service_over(root, backend=backend_of(path), **settings)
    with reachable(service, path) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def reachable(service: Service, path: Path_) -> AbstractContextManager[str]:
    """Runs a service on a free loopback port; gives its address."""
    if path in ("wire", "onnx"):
        return listening(service.front, Wire)
    return listening(service.front if path == "front" else service.behind)


@contextmanager
def listening(app: ASGIApp, http: type[asyncio.Protocol] | Literal["httptools"] = "httptools") -> Iterator[str]:
    """Runs an application on a free loopback port; gives its address."""
    config = uvicorn.Config(app, port=0, loop="uvloop", http=http, lifespan="off", log_config=None, proxy_headers=False)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen(config.backlog)  # not when the loop runs: who comes before its first accept waits in the queue
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive(), "the server did not stop"
