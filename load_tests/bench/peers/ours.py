"""The service itself, one worker, as `embedding-service serve` starts it: metrics on, every default as it is."""

import io
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

import numpy as np
import orjson

from load_tests.bench import loads, v2, wire
from load_tests.bench.data import TABLE, Data
from load_tests.bench.peers.common import Peer, Variant, never, packages
from load_tests.bench.processes import Server, free_port, started
from service.types import IdArray, RowArray

_PATH: Final = f"/v1/tables/{TABLE}/lookup"
_RAW: Final = "application/octet-stream"
_NPY: Final = "application/x-npy"
_JSON: Final = "application/json"
_ANNOUNCED: Final = "at http://"


@contextmanager
def _start(data: Data, core: int, **settings: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--store", str(data.store), "--port", str(port)]
    environment = {f"EMBEDDING_{name}": value for name, value in settings.items()}
    with started(command, port, core, data.folder / f"ours-{port}.log", environment) as server:
        # It listens before its workers run; the line comes when they do.
        server.until(lambda: _ANNOUNCED in server.log.read_text())
        yield server


def _octets(ids: IdArray, path: str = _PATH) -> bytes:
    return wire.post(path, _RAW, ids.astype("<i8").tobytes(), Accept=_RAW)


def _npy(ids: IdArray) -> bytes:
    body = io.BytesIO()
    np.save(body, ids)
    return wire.post(_PATH, _NPY, body.getvalue(), Accept=_NPY)


def _json(ids: IdArray, **options: str) -> bytes:
    return wire.post(_PATH, _JSON, orjson.dumps({"ids": ids.tolist(), **options}), Accept=_JSON)


def _is_octets(body: bytes, rows: RowArray) -> bool:
    return body == rows.tobytes()


def _is_npy(body: bytes, rows: RowArray) -> bool:
    return bool(np.array_equal(np.load(io.BytesIO(body)), rows))


def _is_mean(body: bytes, rows: RowArray) -> bool:
    return np.allclose(np.frombuffer(body, "<f4"), rows.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-6)


def _is_numbers(body: bytes, rows: RowArray) -> bool:
    return bool(np.array_equal(np.array(orjson.loads(body)["vectors"], np.float32), rows))


def _is_base64(body: bytes, rows: RowArray) -> bool:
    return b64decode(orjson.loads(body)["vectors"]) == rows.tobytes()


def _peer(start: Callable[[Data, int], AbstractContextManager[Server]], variants: Mapping[str, Variant]) -> Peer:
    versions = partial(packages, "uvicorn", "uvloop", "httptools", "numpy", "orjson", "pybase64")
    return Peer(never, versions, start, loads.HTTP, variants)


OURS: Final = _peer(
    _start,
    {
        "raw": Variant(_octets, _is_octets),
        "npy": Variant(_npy, _is_npy),
        "JSON warm": Variant(_json, _is_numbers),
        "JSON base64": Variant(partial(_json, encoding="base64"), _is_base64),
        "V2 binary": Variant(partial(v2.binary, model=TABLE), v2.ends_with_rows),
        "V2 JSON": Variant(partial(v2.json, model=TABLE), v2.is_tensor),
        "raw mean-pooled": Variant(partial(_octets, path=f"{_PATH}?pooling=mean"), _is_mean),
    },
)
WITHOUT_CACHE: Final = _peer(partial(_start, JSON_CACHE_BYTES="0"), {"JSON cold": Variant(_json, _is_numbers)})
