"""The first question to a fresh server, against those that come after it."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from load_tests.bench.cases import SIZES, Case
from load_tests.bench.data import Data
from load_tests.bench.peers.known import PEERS
from load_tests.bench.processes import Cores
from load_tests.bench.questions import Questions
from load_tests.bench.rounds import questions_of

_PEER: Final = "ours"
_LATER: Final = 200  # questions


@dataclass(frozen=True, slots=True)
class First:
    """Seconds from connecting to the whole answer, one question at a time: the first one, the median of later ones.

    `from_disk`: before the server started, the table's pages were told to leave the memory.
    """

    count: int
    from_disk: bool
    first: float
    later: float


def first_answers(data: Data, cores: Cores, sizes: tuple[int, ...] = SIZES) -> Iterator[First]:
    """Measures both sizes, with the table in memory and on disk; no other server may have it mapped."""
    for count in sizes:
        for from_disk in (False, True):
            if from_disk:
                _drop(data)
            with PEERS[_PEER].start(data, cores.server) as server:
                asked = _seconds(questions_of(Case(_PEER, "raw", count, "uniform"), data), server.port)
            yield First(count, from_disk, asked[0], statistics.median(asked[1:]))


def _seconds(questions: Questions, port: int) -> list[float]:
    ask = PEERS[_PEER].load.ask
    return [_timed(ask, port, request) for request in islice(cycle(questions.requests), 1 + _LATER)]


def _timed(ask: Callable[[int, bytes], bytes], port: int, request: bytes) -> float:
    begun = time.perf_counter()
    ask(port, request)
    return time.perf_counter() - begun


def _drop(data: Data) -> None:
    for file in data.store.rglob("*.npy"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
