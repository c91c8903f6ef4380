"""What the metrics cost: the service as it is beside one that counts no lookups, `python -m load_tests.bench.metrics`.

64 ids raw, and as JSON with kept texts, over 16 connections; both servers have one worker on the same core, and their
turns in every round. Ends with 1 where counting takes 5 % of the raw requests/s, or more.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from load_tests.bench import wrk
from load_tests.bench.burst import Burst
from load_tests.bench.cases import Case
from load_tests.bench.data import ROWS, Data, made
from load_tests.bench.machine import machine
from load_tests.bench.processes import Cores, Server, free_port, started
from load_tests.bench.rounds import questions_of

COUNT: Final = 64
_MOST: Final = 0.05
_SERVERS: Final = {"counted": "service", "not counted": "load_tests.bench.applications.uncounted"}
_VARIANTS: Final = ("raw", "JSON warm")


@contextmanager
def _serving(module: str, data: Data, core: int) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", module, "serve", "--store", str(data.store), "--port", str(port)]
    with started(command, port, core, data.folder / f"{port}.log") as server:
        server.until(lambda: "at http://" in server.log.read_text())
        yield server


def _cost(bursts: Sequence[dict[str, Burst]]) -> float:
    """The share of the requests/s that counting takes: the median over rounds."""
    return statistics.median(1 - each["counted"].rate / each["not counted"].rate for each in bursts)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    given = parser.parse_args()
    if (missing := wrk.missing()) is not None:
        raise SystemExit(missing)
    cores, found = Cores.here(), 0.0
    print(f"{', '.join(machine().values())}; {given.rounds} rounds of {given.seconds} s, medians; {COUNT} ids")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = made(Path(folder), ROWS)
        servers = {name: stack.enter_context(_serving(module, data, cores.server)) for name, module in _SERVERS.items()}
        for variant in _VARIANTS:
            questions = questions_of(Case("ours", variant, COUNT, "zipf"), data)
            bursts = [
                {name: wrk.drive(server, questions, given.seconds, cores.generator) for name, server in servers.items()}
                for _ in range(given.rounds + 1)
            ][1:]
            for name in servers:
                rate = statistics.median(each[name].rate for each in bursts)
                cpu = statistics.median(each[name].cpu for each in bursts) * 1e6
                print(f"{variant}, {name}: {rate:,.0f} requests/s, {cpu:.2f} us of processor time each")
            cost = _cost(bursts)
            print(f"{variant}: counting takes {cost:.1%}" + (f", at most {_MOST:.0%}" if variant == "raw" else ""))
            found = cost if variant == "raw" else found
    raise SystemExit(found >= _MOST)


if __name__ == "__main__":
    main()
