"""What is promised of one case against another, within one run."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from load_tests.bench.burst import Burst
from load_tests.bench.cases import Case
from load_tests.bench.rounds import Run
from load_tests.bench.row import Row


@dataclass(frozen=True, slots=True)
class Promise:
    """Requests a second of `ours` against those of `theirs`."""

    what: str
    ours: Case
    theirs: Case
    at_least: float
    aim: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A promise and what came of it: medians of the ratios within each round.

    `by_cpu` is the ratio that the servers' processor time for a request leads to: what it would be if the load
    generator were never what is waited for.
    """

    row: Row
    by_cpu: float


PROMISES: Final = (
    Promise("64 ids, raw, against the floor", Case("ours", "raw", 64), Case("floor", "rows", 64), 0.65, 0.75),
    Promise(
        "64 ids, raw, uniform, against Redis MGET",
        Case("ours", "raw", 64, "uniform"),
        Case("Redis", "MGET", 64, "uniform"),
        1.7,
        2,
    ),
    Promise(
        "64 ids, JSON warm, against the usual FastAPI service",
        Case("ours", "JSON warm", 64),
        Case("usual FastAPI", "JSON", 64),
        11,
        15,
    ),
    Promise(
        "64 ids, JSON cold, against the usual FastAPI service",
        Case("ours without cache", "JSON cold", 64),
        Case("usual FastAPI", "JSON", 64),
        3.2,
        5,
    ),
    Promise(
        "64 ids, JSON with base64, against raw", Case("ours", "JSON base64", 64), Case("ours", "raw", 64), 0.55, 0.7
    ),
    Promise("2,048 ids, raw, against the floor", Case("ours", "raw", 2048), Case("floor", "rows", 2048), 0.65, 0.85),
    Promise(
        "2,048 ids, raw, uniform, against Redis MGET",
        Case("ours", "raw", 2048, "uniform"),
        Case("Redis", "MGET", 2048, "uniform"),
        7,
        10,
    ),
    Promise(
        "2,048 ids, JSON warm, against the usual FastAPI service",
        Case("ours", "JSON warm", 2048),
        Case("usual FastAPI", "JSON", 2048),
        22,
        30,
    ),
    Promise("64 ids, V2 binary, against raw", Case("ours", "V2 binary", 64), Case("ours", "raw", 64), 0.6, 0.9),
    Promise("64 ids, V2 binary, against Triton", Case("ours", "V2 binary", 64), Case("Triton", "V2 binary", 64), 3, 5),
    Promise("64 ids, V2 JSON, against MLServer", Case("ours", "V2 JSON", 64), Case("MLServer", "V2 JSON", 64), 9, 12),
    Promise(
        "64 ids, raw, mean-pooled, against the floor with 512 bytes",
        Case("ours", "raw mean-pooled", 64),
        Case("floor", "one row", 64),
        0.52,
        0.65,
    ),
)


def ratios(run: Run) -> Iterator[Ratio]:
    """Of all promises whose two cases were measured; NaN, which keeps no promise, where no round of both is good."""
    for each in PROMISES:
        if each.ours in run.rounds and each.theirs in run.rounds:
            rate = _median(run, each, lambda ours, theirs: ours.rate / theirs.rate)
            by_cpu = _median(run, each, lambda ours, theirs: theirs.cpu / ours.cpu if ours.cpu else math.nan)
            yield Ratio(Row(each.what, rate, at_least=each.at_least, aim=each.aim), by_cpu)


def _median(run: Run, promise: Promise, ratio: Callable[[Burst, Burst], float]) -> float:
    both = zip(run.rounds[promise.ours], run.rounds[promise.theirs], strict=True)
    return statistics.median([ratio(ours, theirs) for ours, theirs in both if ours and theirs] or [math.nan])
