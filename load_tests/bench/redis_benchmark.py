"""Load over RESP in a closed loop, by redis-benchmark, which draws the keys of every request anew, uniformly."""

import csv
import shutil
from dataclasses import replace
from typing import Final

from load_tests.bench import wire
from load_tests.bench.burst import Burst, Said, generated
from load_tests.bench.processes import Server
from load_tests.bench.questions import Questions
from load_tests.bench.wrk import CONNECTIONS

_FIRST: Final = 200  # requests, to see how many there can be


def missing() -> str | None:
    """Why there can be no load."""
    return None if shutil.which("redis-benchmark") else "redis-benchmark is not installed"


def key(row: int) -> bytes:
    """What redis-benchmark writes for a row."""
    return b"key:%012d" % row


def drive(server: Server, questions: Questions, seconds: int, core: int) -> Burst:
    """Asks for about so many seconds, for as many keys as the questions have ids.

    Which keys is drawn by redis-benchmark; one that Redis does not have counts as a failure.
    """
    rows = int(wire.ask_resp(server.port, wire.command(b"DBSIZE")))
    first = _burst(server, questions.count, rows, _FIRST, core)
    before = _missed(server.port)
    burst = _burst(server, questions.count, rows, max(_FIRST, int(seconds * first.rate)), core)
    missed = _missed(server.port) - before
    return replace(burst, failures={"missed": missed}) if missed else burst


def _burst(server: Server, count: int, rows: int, requests: int, core: int) -> Burst:
    command = ["redis-benchmark", "--csv", "-h", "127.0.0.1", "-p", str(server.port), "-c", str(CONNECTIONS)]
    command += ["-n", str(requests), "-r", str(rows), "MGET", *["key:__rand_int__"] * count]
    return parsed(generated(command, server, core), requests)


def parsed(said: Said, requests: int) -> Burst:
    """What redis-benchmark printed with `--csv`; raises ValueError if it is no figures."""
    rows = list(csv.DictReader(said.text.splitlines()))
    if len(rows) != 1:
        raise ValueError(f"redis-benchmark printed no figures: {said.text!r}")
    figures = rows[0]
    return Burst(
        seconds=requests / float(figures["rps"]),
        requests=requests,
        p50=float(figures["p50_latency_ms"]) / 1e3,
        p99=float(figures["p99_latency_ms"]) / 1e3,
        failures={},
        server_cpu=said.server_cpu,
        generator_cpu=said.generator_cpu,
    )


def _missed(port: int) -> int:
    lines = wire.ask_resp(port, wire.command(b"INFO", b"stats")).decode().splitlines()
    return int(next(line for line in lines if line.startswith("keyspace_misses:")).partition(":")[2])
