"""Triton with its Python backend, on the processor: V2 with tensors in binary.

It is taken from the path, where its own image has it, or from the package in `.venv-triton`.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from load_tests.bench import loads, v2
from load_tests.bench.data import DIM, Data
from load_tests.bench.peers.common import Peer, Variant, said_by
from load_tests.bench.processes import ROOT, Server, free_port, started

_PROGRAM: Final = "tritonserver"
_VENV: Final = ROOT / ".venv-triton"
_MODEL: Final = ROOT / "load_tests" / "bench" / "applications" / "triton_model.py"
_CONFIGURATION: Final = """\
name: "rows"
backend: "python"
max_batch_size: 0
input [{{ name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }}]
output [{{ name: "vectors" data_type: TYPE_FP32 dims: [ -1, {dim} ] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
parameters: {{ key: "table" value: {{ string_value: "{table}" }} }}
"""


def _missing() -> str | None:
    here = shutil.which(_PROGRAM) or _packages() is not None
    return None if here else f"{_PROGRAM} is neither on the path nor in .venv-triton"


def _packages() -> Path | None:
    """The folder of the packages in `.venv-triton`, None where Triton is not among them."""
    return next((each for each in _VENV.glob("lib/python3.*/site-packages") if (each / "pytriton").exists()), None)


@contextmanager
def serving(data: Data, core: int, *, rpc: bool) -> Iterator[Server]:
    """Triton on one core, at the port for HTTP or at that for gRPC."""
    folder, port = data.folder / "triton", free_port()
    models = folder / "models"
    _write(models / "rows", data.npy)
    options = [f"--model-repository={models}", "--allow-metrics=false"]
    if rpc:
        options += [f"--grpc-port={port}", "--grpc-address=127.0.0.1", "--allow-http=false"]
    else:
        options += [f"--http-port={port}", "--http-address=127.0.0.1", "--allow-grpc=false"]
    program, environment = _installed(folder / "backends")
    with started([*program, *options], port, core, data.folder / "triton.log", environment) as server:
        yield server


def _write(model: Path, table: Path) -> None:
    (model / "1").mkdir(parents=True)
    shutil.copy(_MODEL, model / "1" / "model.py")
    (model / "config.pbtxt").write_text(_CONFIGURATION.format(dim=DIM, table=table))


def _installed(backends: Path) -> tuple[list[str], Mapping[str, str]]:
    """The command, and the variables it needs; `backends` becomes a folder if it is needed."""
    packages = _packages()
    if (program := shutil.which(_PROGRAM)) or packages is None:
        return [program or _PROGRAM], {}
    triton = packages / "pytriton" / _PROGRAM
    shutil.copytree(triton / "backends", backends)
    # One stub for each version of Python; the backend takes the one that lies beside it.
    version = packages.parent.name.removeprefix("python")
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    # The stub imports from the environment of the first Python on the path.
    path = os.pathsep.join((str(_VENV / "bin"), os.environ["PATH"]))
    environment = {"PATH": path, "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs")}
    return [str(triton / "bin" / _PROGRAM), f"--backend-directory={backends}"], environment


def _versions() -> dict[str, str]:
    if program := shutil.which(_PROGRAM):
        said = Path(program).resolve().parents[1] / "TRITON_VERSION"
        return {"Triton": said.read_text().strip() if said.exists() else "of unknown version"}
    asked = "from importlib.metadata import version; print(version('nvidia-pytriton'))"
    return {"nvidia-pytriton": said_by(str(_VENV / "bin" / "python"), "-c", asked)}


TRITON: Final = Peer(
    missing=_missing,
    versions=_versions,
    start=partial(serving, rpc=False),
    load=loads.HTTP,
    variants={"V2 binary": Variant(partial(v2.binary, model="rows"), v2.ends_with_rows)},
)
