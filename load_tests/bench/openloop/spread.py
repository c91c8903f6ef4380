"""How evenly connections fall on workers: `python -m load_tests.bench.openloop.spread`.

Keep-alive connections are opened all at once and then asked equally often. Which worker answers on which of them is
read from `/proc`: the sockets that it has open, and the ports of these sockets.
"""

import argparse
import http.client
import socket
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

from load_tests.bench.data import ROWS, made
from load_tests.bench.openloop.world import Kind, address_of, requests_of
from load_tests.bench.row import Row, all_kept, table
from load_tests.running import Running, running, until

AT_MOST: Final = 1.5
AIM: Final = 1.2
KIND: Final = Kind(64, "raw")
_ADDRESS: Final = 1  # the columns of /proc/net/tcp, see proc(5)
_PEER: Final = 2
_INODE: Final = 9


@dataclass(frozen=True, slots=True)
class Trial:
    """Requests that each worker answered, the busiest first."""

    answered: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """Of the busiest worker to the mean."""
        return max(self.answered) / statistics.mean(self.answered)


def holders(port: int, pids: Iterable[int]) -> dict[int, int]:
    """For each connection to this port of the machine: the client's port to the process that has it open."""
    inodes = _inodes(port)
    return {inodes[inode]: pid for pid in pids for inode in _sockets(pid) if inode in inodes}


def _inodes(port: int) -> dict[str, int]:
    """The server's sockets of the connections to a port: inode to the client's port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in _lines(Path("/proc/net") / name)]
    return {line[_INODE]: _port(line[_PEER]) for line in lines if _port(line[_ADDRESS]) == port}


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()[1:] if file.exists() else []


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _sockets(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            kind, _, inode = str(descriptor.readlink()).partition(":")
            if kind == "socket":
                yield inode.strip("[]")


@contextmanager
def _connected(url: str, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address_of(url), timeout=60)) for _ in range(count)]


def _ask_all(connections: Sequence[socket.socket], requests: Iterator[bytes]) -> None:
    """One request on each, all before the first answer is read; raises RuntimeError for one that is not 200."""
    for connection in connections:
        connection.sendall(next(requests))
    for connection in connections:
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"status {answer.status}")


def trial(server: Running, requests: Sequence[bytes], connections: int = 64, each: int = 5) -> Trial:
    """Fresh connections, so many requests on each; raises RuntimeError if one belongs to no worker."""
    workers, port = server.workers(), address_of(server.url)[1]
    # Those of the trial before may still be open where a worker is slow, and would count as its share.
    until(lambda: not any(holders(port, workers)) or None)
    answered = Counter(dict.fromkeys(workers, 0))
    with _connected(server.url, connections) as clients:
        ports = [int(client.getsockname()[1]) for client in clients]
        turns = cycle(requests)
        for _ in range(each):
            _ask_all(clients, turns)
            held_by = holders(port, workers)
            if missing := set(ports) - held_by.keys():
                raise RuntimeError(f"{len(missing)} connections belong to no worker")
            answered.update(held_by[port] for port in ports)
    return Trial(tuple(sorted(answered.values(), reverse=True)))


def measure(trials: int = 20, workers: int = 4, connections: int = 64, table_rows: int = ROWS) -> list[Trial]:
    """So many trials on one server."""
    with tempfile.TemporaryDirectory() as folder:
        store = made(Path(folder), table_rows).store
        requests = requests_of(KIND, table_rows)
        with running(store, "--workers", str(workers)) as server:
            return [trial(server, requests, connections) for _ in range(trials)]


def rows(trials: Sequence[Trial], at_most: float = AT_MOST) -> list[Row]:
    """The promise for the median of the trials; the worst is told."""
    ratios = [one.ratio for one in trials]
    workers, what = len(trials[0].answered), "busiest of {} workers against the mean, {} of {} trials"
    return [
        Row(what.format(workers, "median", len(trials)), statistics.median(ratios), at_most=at_most, aim=AIM),
        Row(what.format(workers, "worst", len(trials)), max(ratios)),
    ]


def show(trials: Sequence[Trial]) -> None:
    """Prints all trials."""
    print("answered by each worker, and the busiest against the mean")
    for one in trials:
        print("".join(f"{count:7,}" for count in one.answered) + f"{one.ratio:8.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs it; ends with 1 if the promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--at-most", type=float, default=AT_MOST, help="the median ratio that is promised")
    given = parser.parse_args(arguments)
    trials = measure(given.trials, given.workers, given.connections, given.rows)
    show(trials)
    joined = rows(trials, given.at_most)
    print(table(joined))
    sys.exit(0 if all_kept(joined) else 1)


if __name__ == "__main__":
    main()
