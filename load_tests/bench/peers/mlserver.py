"""MLServer with a runtime of its own for the table, in a virtual environment beside this project's: V2 JSON.

Everything that costs time and is not the lookup is off: debugging, worker processes, metrics.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from load_tests.bench import loads, v2
from load_tests.bench.data import Data
from load_tests.bench.peers.common import Peer, Variant, said_by
from load_tests.bench.processes import ROOT, Server, free_port, started

_BIN: Final = ROOT / ".venv-peers" / "bin"
_RUNTIME: Final = ROOT / "load_tests" / "bench" / "applications" / "mlserver_rows.py"


def _missing() -> str | None:
    return None if (_BIN / "mlserver").exists() else "mlserver is not installed in .venv-peers"


@contextmanager
def _start(data: Data, core: int) -> Iterator[Server]:
    folder, port = data.folder / "mlserver", free_port()
    _write(folder, data.npy, port)
    command = [str(_BIN / "mlserver"), "start", str(folder)]
    with started(command, port, core, data.folder / "mlserver.log") as server:
        yield server


def _write(folder: Path, table: Path, port: int) -> None:
    folder.mkdir(exist_ok=True)
    shutil.copy(_RUNTIME, folder)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "parallel_workers": 0}
    settings |= {"debug": False, "metrics_endpoint": None}
    model = {"name": "rows", "implementation": "mlserver_rows.Rows", "parameters": {"uri": str(table)}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))


def _versions() -> dict[str, str]:
    program = "from importlib.metadata import version; print(version('mlserver'))"
    return {"mlserver": said_by(str(_BIN / "python"), "-c", program)}


MLSERVER: Final = Peer(
    missing=_missing,
    versions=_versions,
    start=_start,
    load=loads.HTTP,
    variants={"V2 JSON": Variant(partial(v2.json, model="rows"), v2.is_tensor)},
)
