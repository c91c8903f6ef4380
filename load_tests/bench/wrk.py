"""Load over HTTP in a closed loop, by wrk: every connection asks again as soon as it is answered."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from load_tests.bench.burst import Burst, Said, generated
from load_tests.bench.processes import Server
from load_tests.bench.questions import Questions

CONNECTIONS: Final = 16

_SCRIPT: Final = Path(__file__).with_name("cycle.lua")
_ERRORS: Final = ("connect", "read", "write", "status", "timeout")
_TIMEOUT: Final = 30  # seconds, for one answer


def missing() -> str | None:
    """Why there can be no load."""
    absent = [program for program in ("wrk", "taskset") if not shutil.which(program)]
    return f"{', '.join(absent)} not installed" if absent else None


def version() -> str:
    """What wrk calls itself."""
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition(" Copyright")[0].removeprefix("wrk ").strip()


def drive(server: Server, questions: Questions, seconds: int, core: int) -> Burst:
    """Asks for so many seconds; raises CalledProcessError if wrk itself fails."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(framed(questions.requests))
        command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
        command += ["--timeout", f"{_TIMEOUT}s", "--latency", "--script", str(_SCRIPT)]
        return parsed(generated([*command, f"http://127.0.0.1:{server.port}", "--", file.name], server, core))


def framed(requests: Iterable[bytes]) -> bytes:
    """The file that the script reads."""
    return b"".join(b"%08d%s" % (len(request), request) for request in requests)


def parsed(said: Said) -> Burst:
    """What wrk printed; raises ValueError if the script's line is not among it."""
    lines: Sequence[str] = [line for line in said.text.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise ValueError(f"wrk printed no figures: {said.text!r}")
    figures: Mapping[str, float] = json.loads(lines[0])
    failures = {name: int(figures[name]) for name in _ERRORS if figures[name]}
    return Burst(
        seconds=figures["microseconds"] / 1e6,
        requests=int(figures["requests"]),
        p50=figures["p50"] / 1e6,
        p99=figures["p99"] / 1e6,
        failures=failures,
        server_cpu=said.server_cpu,
        generator_cpu=said.generator_cpu,
    )
