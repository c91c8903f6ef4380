"""The two kinds of load: over HTTP, and over the protocol of Redis."""

from typing import Final

from load_tests.bench import redis_benchmark, wire, wrk
from load_tests.bench.peers.common import Load

HTTP: Final = Load(wrk.missing, wire.ask_http, wrk.drive)
RESP: Final = Load(redis_benchmark.missing, wire.ask_resp, redis_benchmark.drive)
