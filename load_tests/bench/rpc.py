"""V2 over gRPC beside Triton's and a constant answer of grpcio's asyncio server: `python -m load_tests.bench.rpc`.

64 ids of the table that every peer serves, asked by h2load (Debian's `nghttp2-client`): 8 connections with 4 requests
at a time in each. Servers run on one core and h2load on another; each has its turn in every round.
"""

import argparse
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from load_tests.bench.data import DIM, ROWS, TABLE, Data, drawn, made
from load_tests.bench.machine import machine
from load_tests.bench.peers import triton
from load_tests.bench.processes import Cores, Server, free_port, started
from service.dialects.v2.messages import SERVICE, message
from service.types import IdArray

COUNT: Final = 64
_AT_LEAST: Final = 0.7  # of Triton's
_RATE: Final = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
_DONE: Final = re.compile(r"(\d+) succeeded, 0 failed, 0 errored, 0 timeout")
_APPLICATION: Final = Path(__file__).parent / "applications" / "rpc_floor.py"


def request_for(ids: IdArray, model: str) -> bytes:
    """A ModelInferRequest as HTTP/2 carries it: not compressed, its length, itself."""
    asked = message("ModelInferRequest")(model_name=model)
    tensor = asked.inputs.add()
    tensor.name, tensor.datatype = "ids", "INT64"
    tensor.shape.append(len(ids))
    asked.outputs.add().name = "vectors"
    asked.raw_input_contents.append(ids.astype("<i8").tobytes())
    content = asked.SerializeToString()
    framed: bytes = b"\0" + struct.pack(">I", len(content)) + content
    return framed


def answer_like(rows: int) -> bytes:
    """A ModelInferResponse of the size of ours."""
    said = message("ModelInferResponse")(model_name=TABLE, model_version="1")
    tensor = said.outputs.add()
    tensor.name, tensor.datatype = "vectors", "FP32"
    tensor.shape.extend([rows, DIM])
    said.raw_output_contents.append(np.zeros((rows, DIM), np.float32).tobytes())
    serialized: bytes = said.SerializeToString()
    return serialized


@contextmanager
def _floor(data: Data, core: int) -> Iterator[Server]:
    port, answer = free_port(), data.folder / "answer"
    answer.write_bytes(answer_like(COUNT))
    command = [sys.executable, str(_APPLICATION), SERVICE, str(port), str(answer)]
    with started(command, port, core, data.folder / "rpc-floor.log") as server:
        yield server


@contextmanager
def _ours(data: Data, core: int) -> Iterator[Server]:
    port, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "service", "serve", "--store", str(data.store), "--port", str(port)]
    with started([*command, "--grpc-port", str(rpc)], rpc, core, data.folder / "rpc-ours.log") as server:
        yield server


@contextmanager
def _triton(data: Data, core: int) -> Iterator[Server]:
    with triton.serving(data, core, rpc=True) as server:
        yield server


SERVERS: Final[dict[str, tuple[str, Callable[[Data, int], AbstractContextManager[Server]]]]] = {
    "grpcio, a constant answer": (TABLE, _floor),
    "ours": (TABLE, _ours),
    "Triton": ("rows", _triton),
}


def rate(port: int, body: Path, core: int, seconds: int) -> float:
    """Requests a second; raises RuntimeError if any of them failed."""
    command = ["taskset", "--cpu-list", str(core), "h2load", "-c", "8", "-m", "4", "-D", str(seconds)]
    command += ["--warm-up-time=1", "-d", str(body), "-H", "content-type:application/grpc", "-H", "te:trailers"]
    url = f"http://127.0.0.1:{port}/{SERVICE}/ModelInfer"
    said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    found = _RATE.search(said)
    if found is None or _DONE.search(said) is None:
        raise RuntimeError(said)
    return float(found.group(1))


def main() -> None:
    """Measures, prints, and ends with 1 where ours is below what is promised of Triton's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    given = parser.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed: it is in Debian's package nghttp2-client")
    left_out = triton.TRITON.missing()
    if left_out is not None:
        print(f"Triton is left out: {left_out}")
    chosen = {name: each for name, each in SERVERS.items() if name != "Triton" or left_out is None}
    cores = Cores.here()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = made(Path(folder), ROWS)
        ids = drawn("zipf", COUNT, ROWS)[0]
        bodies = {name: Path(folder) / f"request-{model}" for name, (model, _) in chosen.items()}
        for name, (model, _) in chosen.items():
            bodies[name].write_bytes(request_for(ids, model))
        servers = {name: stack.enter_context(start(data, cores.server)) for name, (_, start) in chosen.items()}
        rounds = [
            {name: rate(servers[name].port, bodies[name], cores.generator, given.seconds) for name in chosen}
            for _ in range(given.rounds)
        ]
    print(f"{', '.join(machine().values())}; {given.rounds} rounds of {given.seconds} s, medians; {COUNT} ids")
    for name in chosen:
        print(f"{name}: {statistics.median(each[name] for each in rounds):,.0f} requests/s")
    for name in chosen.keys() - {"ours"}:
        ratio = statistics.median(each["ours"] / each[name] for each in rounds)
        print(f"ours against {name}: {ratio:.2f}" + (f", at least {_AT_LEAST}" if name == "Triton" else ""))
    against = [each["ours"] / each["Triton"] for each in rounds if "Triton" in each]
    raise SystemExit(0 if not against or statistics.median(against) >= _AT_LEAST else 1)


if __name__ == "__main__":
    main()
