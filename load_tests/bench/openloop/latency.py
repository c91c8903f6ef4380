"""Latency against rate, up to saturation: `python -m load_tests.bench.openloop.latency`.

The peak of each kind of request is found by a closed loop; then requests arrive at shares of it, at random (Poisson) or
evenly spaced, and each one's latency counts from when it was due.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from load_tests.bench.data import ROWS
from load_tests.bench.openloop.generator import Arrivals, Stream
from load_tests.bench.openloop.records import Record, percentile
from load_tests.bench.openloop.world import WARM_UP, Kind, World, world
from load_tests.bench.row import Row, all_kept, table

KINDS: Final = (Kind(64, "raw"), Kind(64, "JSON"))
SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
HALF: Final = 0.5
"""The share of the peak at which the promise is for."""
_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Point:
    """One rate: requests a second that arrived and that were answered with 200; percentiles in seconds from due.

    `failed` counts what was answered with anything else, or not at all; `late_p99` is the generator's own, `doubt`
    says when that is a notable part of the latency.
    """

    share: float
    rate: float
    answered: float
    requests: int
    failed: int
    p50: float
    p99: float
    p999: float
    late_p99: float
    doubt: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One kind of request: its peak, in requests a second, and the points up to it and a bit beyond."""

    what: str
    peak: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each rate is held, and how requests arrive."""

    seconds: float = 5.0
    connections: int = _CONNECTIONS
    arrivals: Arrivals = "poisson"


def curve(setting: World, kind: Kind, shares: Sequence[float] = SHARES, pace: Pace = Pace()) -> Curve:
    """Measures one kind of request."""
    peak = setting.peak(kind, pace.seconds)
    return Curve(str(kind), peak, tuple(_point(setting, kind, share, peak, pace) for share in shares))


def _point(setting: World, kind: Kind, share: float, peak: float, pace: Pace) -> Point:
    stream = Stream(str(kind), setting.requests(kind), pace.connections, share * peak, pace.arrivals)
    (record,) = setting.run(pace.seconds, stream)
    return point_of(record, share, share * peak, WARM_UP * pace.seconds)


def point_of(record: Record, share: float, rate: float, warm_up: float) -> Point:
    """What a record says of the requests that were due after the warm-up."""
    counted = record.after(warm_up)
    latency = counted.latency()
    return Point(
        share=share,
        rate=rate,
        answered=record.rate(warm_up=warm_up),
        requests=len(counted.due),
        failed=len(counted.due) - counted.count(200),
        p50=percentile(latency, 50),
        p99=percentile(latency, 99),
        p999=percentile(latency, 99.9),
        late_p99=percentile(counted.lateness(), 99),
        doubt=counted.doubt,
    )


def rows(curves: Sequence[Curve], at_most: float | None = None) -> list[Row]:
    """The p99 at half the peak of each kind, in milliseconds."""
    return [
        Row(f"{one.what}: p99 at {HALF:.0%} of its peak, ms", _p99_at_half(one) * 1e3, at_most=at_most)
        for one in curves
    ]


def _p99_at_half(one: Curve) -> float:
    return min(one.points, key=lambda point: abs(point.share - HALF)).p99


def show(one: Curve) -> None:
    """Prints a curve."""
    print(f"{one.what}: peak {one.peak:,.0f} requests/s; milliseconds from due")
    print(f"{'share':>6}{'rate/s':>9}{'answered':>10}{'failed':>8}{'p50':>9}{'p99':>9}{'p99.9':>9}{'late p99':>10}")
    for point in one.points:
        times = "".join(f"{seconds * 1e3:9.2f}" for seconds in (point.p50, point.p99, point.p999))
        print(
            f"{point.share:6.0%}{point.rate:9,.0f}{point.answered:10,.0f}{point.failed:8,}{times}"
            f"{point.late_p99 * 1e3:10.3f}  {point.doubt}".rstrip()
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs it; ends with 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate")
    parser.add_argument("--connections", type=int, default=_CONNECTIONS)
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the peak")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--at-most", type=float, help="milliseconds of p99 at half the peak; default: no promise")
    given = parser.parse_args(arguments)
    pace = Pace(given.seconds, given.connections, given.arrivals)
    with world(rows=given.rows) as setting:
        curves = [curve(setting, kind, given.shares, pace) for kind in KINDS]
    for one in curves:
        show(one)
    joined = rows(curves, given.at_most)
    print(table(joined))
    sys.exit(0 if all_kept(joined) else 1)


if __name__ == "__main__":
    main()
