"""A rolling restart under load: workers one by one, and whole servers behind a forwarder, while clients look up.

    python -m load_tests.rolling --rounds 5 --servers 5

Every answer is checked. Ends with 1 if a request failed for anything but a connection that ended before a byte of
its answer, or if sending it again did not help.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from load_tests.forwarder import forwarding
from load_tests.patient_clients import Clients, Tally, asking
from load_tests.running import Running, running, until
from service.imported import ImportedTable, RowBlock
from service.store import TableStore
from service.types import RowArray

TABLE: Final = "rolling"
TOKEN: Final = "rolling-token"
_ROWS, _DIM = 2000, 32
_KEEPING, _NEW = 6, 2  # clients
_SETTLED: Final = 20  # answers of each client between two restarts
_READY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was replaced, how long each replacement took from the signal until all was ready, and what clients saw."""

    what: str
    seconds: list[float]
    tally: Tally

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        tally = self.tally
        claims = {
            "nothing was replaced": bool(self.seconds),
            "there were no answers to check": tally.answered > 0 and tally.on_new_connections > 0,
            f"{tally.failed} requests failed": tally.failed == 0,
        }
        return [*(claim for claim, kept in claims.items() if not kept), *tally.examples]

    def lines(self) -> list[str]:
        """A table to read."""
        tally = self.tally
        retried = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.retried.items())) or "none"
        counts = {
            self.what: f"{len(self.seconds)} replaced, {max(self.seconds):.2f} s at most until all were ready",
            "  answered": f"{tally.answered:,} requests, {tally.on_new_connections:,} on connections of their own",
            "  failed": f"{tally.failed:,}",
            "  sent again": retried,
            "  told of the end": f"{tally.announced:,} answers had Connection: close",
            "  longest": f"{tally.longest * 1e3:.0f} ms from a request to its answer, all tries together",
        }
        return [f"{name:26}{value}" for name, value in counts.items()]


def published(root: Path) -> RowArray:
    """A table whose numbers are all different, in force."""
    rows: RowArray = np.arange(_ROWS * _DIM, dtype=np.float32).reshape(_ROWS, _DIM)
    TableStore(root).publish(TABLE, ImportedTable(_ROWS, _DIM, [RowBlock(rows)]), activate=True)
    return rows


def replace_workers(root: Path, rows: RowArray, workers: int, rounds: int) -> Figures:
    """SIGTERM to one worker after another; the next one when the last one's replacement serves."""
    seconds: list[float] = []
    with (
        running(root, "--workers", str(workers), settings={"ADMIN_TOKEN": TOKEN}) as server,
        asking(server.url, TABLE, rows, _KEEPING, _NEW) as start,
    ):
        clients = start()
        for _ in range(rounds):
            for pid in server.workers():
                _settle(clients)
                seconds.append(_timed(partial(_replace_worker, server, pid, workers)))
        _settle(clients)
        tally = clients.end()
        assert server.stop() == 0
    return Figures(f"workers, of {workers}", seconds, tally)


def _replace_worker(server: Running, pid: int, workers: int) -> None:
    os.kill(pid, signal.SIGTERM)
    until(lambda: pid not in server.workers() and _serving(server) == workers, _READY_SECONDS)


def _serving(server: Running) -> int:
    """How many workers serve the table."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        told = httpx.get(f"{server.url}/v1/admin/tables/{TABLE}", headers=headers, trust_env=False).json()
    except httpx.TransportError:  # by way of the worker that ends
        return 0
    return sum(worker["state"] == "READY" for worker in told["workers"])


def replace_servers(root: Path, rows: RowArray, workers: int, times: int) -> Figures:
    """A new server on the same store, then new connections to it, then SIGTERM to the old one; and again."""
    seconds: list[float] = []
    with ExitStack() as stack:
        old = stack.enter_context(running(root, "--workers", str(workers)))
        forwarder = stack.enter_context(forwarding(old.url))
        clients = stack.enter_context(asking(forwarder.url, TABLE, rows, _KEEPING, _NEW))()
        for _ in range(times):
            _settle(clients)
            new = stack.enter_context(running(root, "--workers", str(workers)))
            until(partial(_ready, new), _READY_SECONDS)
            forwarder.forward_to(new.url)
            _settle(clients)  # some keep their connections to the old one
            seconds.append(_timed(partial(_stop, old)))
            old = new
        _settle(clients)
        tally = clients.end()
    return Figures(f"servers, of {workers} workers", seconds, tally)


def _ready(server: Running) -> bool:
    return httpx.get(f"{server.url}/health/ready", trust_env=False).is_success


def _stop(server: Running) -> None:
    code = server.stop()
    assert code == 0, f"the server ended with {code}"


def _settle(clients: Clients) -> None:
    """Until every client has some more answers."""
    wanted = [tally.answered + _SETTLED for tally in clients.tallies]
    until(lambda: all(tally.answered >= most for tally, most in zip(clients.tallies, wanted, strict=True)), 60)


def _timed(change: Callable[[], None]) -> float:
    started = time.monotonic()
    change()
    return time.monotonic() - started


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that every worker is replaced")
    parser.add_argument("--servers", type=int, default=5, help="times that a whole server is replaced")
    asked = parser.parse_args()
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = published(root)
        for replace, workers, times in (
            (replace_workers, 2, asked.rounds),
            (replace_workers, 4, asked.rounds),
            (replace_servers, 2, asked.servers),
        ):
            figures = replace(root, rows, workers, times)
            print("\n".join(figures.lines()), flush=True)
            broken += figures.broken()
    print("\n".join(f"BROKEN: {claim}" for claim in broken) if broken else "all as promised")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
