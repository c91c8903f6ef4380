"""How much memory a server takes while a large file is uploaded to it: a fixed buffer, whatever the size of the file.

    python -m load_tests.upload_memory --megabytes 1000 --workers 2

Streams a `.npy` that is made on the way, and looks at the workers and the steward every 50 ms. What counts is memory
that belongs to one process alone (`RssAnon`, `RssShmem`): pages of a mapped file can be dropped at any time. Prints
by how much each process grew and the speed; ends with 1 if one of them grew by more than `--at-most` megabytes.
"""

import argparse
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from numpy.typing import NDArray

from load_tests.running import Running, running
from service.npyfile import header_bytes

DIM: Final = 128
_BLOCK: Final = 2048  # rows that are sent at once
_PERIOD: Final = 0.05  # seconds
_TOKEN: Final = "secret"
_OWN: Final = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figures:
    """Bytes that were sent, the seconds until the answer, and by how many bytes each process grew at most."""

    sent: int
    seconds: float
    growth: Mapping[str, int]


@dataclass(slots=True)
class _Watched:
    """Own bytes of some processes, by what they are called: at first, and the most that was seen."""

    processes: Mapping[str, int]
    first: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        for name, pid in self.processes.items():
            size = own_bytes(pid)
            self.first.setdefault(name, size)
            self.most[name] = max(size, self.most.get(name, 0))

    def growth(self) -> dict[str, int]:
        return {name: self.most[name] - size for name, size in self.first.items()}


def measure(folder: Path, megabytes: int, workers: int = 2) -> Figures:
    """Uploads a table of so many megabytes to a server over a store in `folder`, and activates it."""
    rows = megabytes * 1_000_000 // (DIM * 4)
    head = header_bytes((rows, DIM))
    sent = len(head) + rows * DIM * 4
    with (
        running(folder, "--workers", str(workers), settings={"ADMIN_TOKEN": _TOKEN}) as server,
        _admin(server) as admin,
    ):
        admin.get("/v1/admin/tables").raise_for_status()  # what the first request imports and builds does not count
        with _watching(server) as watched:
            begun = time.monotonic()
            answer = admin.post(
                "/v1/admin/tables/large/versions",
                params={"activate": "true"},
                content=_pieces(head, rows),
                headers={"content-length": str(sent)},
            )
            seconds = time.monotonic() - begun
        if answer.status_code != httpx.codes.CREATED:
            raise RuntimeError(answer.text)
        _check(server, rows)
        return Figures(sent, seconds, watched.growth())


def own_bytes(pid: int) -> int:
    """Memory in bytes that the process has for itself."""
    return sum(1024 * int(size) for size in _OWN.findall(Path(f"/proc/{pid}/status").read_text()))


def block(first: int, count: int) -> NDArray[np.float32]:
    """Rows that tell which they are; shape (count, DIM)."""
    numbers = np.arange(first * DIM, (first + count) * DIM, dtype=np.int64)
    return (numbers % 8_388_593).astype(np.float32).reshape(count, DIM)


def _pieces(head: bytes, rows: int) -> Iterator[bytes]:
    yield head
    for first in range(0, rows, _BLOCK):
        yield block(first, min(_BLOCK, rows - first)).tobytes()


def _check(server: Running, rows: int) -> None:
    headers = {"accept": "application/octet-stream"}
    answer = httpx.post(f"{server.url}/v1/tables/large/lookup", json={"ids": [0, rows - 1]}, headers=headers)
    if answer.content != np.concatenate([block(0, 1), block(rows - 1, 1)]).tobytes():
        raise RuntimeError("the rows are not those that were sent")


def _admin(server: Running) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {_TOKEN}"}, timeout=600)


@contextmanager
def _watching(server: Running) -> Iterator[_Watched]:
    workers = {f"worker {number}": pid for number, pid in enumerate(server.workers())}
    watched = _Watched({**workers, "steward": server.steward(), "supervisor": server.process.pid})
    watched.look()
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(watched, ended))
    thread.start()
    try:
        yield watched
    finally:
        ended.set()
        thread.join()


def _watch(watched: _Watched, ended: threading.Event) -> None:
    while not ended.wait(_PERIOD):
        watched.look()


def main() -> int:
    """Prints the figures; 1 if a process grew too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-most", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), asked.megabytes, asked.workers)
    speed = figures.sent / 1e6 / figures.seconds
    print(f"uploaded    {figures.sent / 1e6:9.1f} MB in {figures.seconds:.1f} s: {speed:.0f} MB/s")
    for name, size in figures.growth.items():
        print(f"{name:12}{size / 1e6:9.1f} MB more at most")
    return 0 if max(figures.growth.values()) <= asked.at_most * 1_000_000 else 1


if __name__ == "__main__":
    sys.exit(main())
