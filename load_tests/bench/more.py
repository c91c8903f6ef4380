"""What `make bench` measures beside the closed loop, each by its module in `openloop`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from load_tests.bench.openloop import latency, mixed, overload, spread, start
from load_tests.bench.openloop.latency import Curve
from load_tests.bench.openloop.world import world
from load_tests.bench.row import Row

_IN_FLIGHT: Final = "16"
"""EMBEDDING_MAX_IN_FLIGHT where refusals are measured: with the default, 64 connections are refused nothing."""


@dataclass(frozen=True, slots=True)
class More:
    """Lines for the table of promises, and latency against rate."""

    rows: Sequence[Row] = ()
    curves: Sequence[Curve] = ()


def _refusing(row: Row) -> Row:
    return replace(row, what=f"{_IN_FLIGHT} in flight: {row.what}")


NOTHING: Final = More()


def measure(tell: Callable[[str], None]) -> More:
    """All of it, which takes ten minutes; `tell` hears what is under way."""
    tell("spread of connections over 4 workers")
    rows = spread.rows(spread.measure())
    tell("starts with a table of 3 GB")
    rows += start.rows(start.measure())
    with world() as setting:
        tell("latency against rate")
        curves = [latency.curve(setting, kind) for kind in latency.KINDS]
        tell("small requests beside large ones")
        rows += mixed.rows(mixed.measure(setting))
        tell("overload")
        rows += [row for row in overload.rows(overload.measure(setting)) if not math.isnan(row.measured)]
    with world(settings={"MAX_IN_FLIGHT": _IN_FLIGHT}) as setting:
        tell("overload with refusals")
        rows += [_refusing(row) for row in overload.rows(overload.measure(setting))]
    return More(rows, curves)
