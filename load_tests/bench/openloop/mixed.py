"""What small lookups feel of large ones: `python -m load_tests.bench.openloop.mixed`.

64-id requests arrive at 30 % of their peak rate, alone and while 2,048-id requests arrive at 30 % of theirs; windows of
each kind take turns, and the medians of their p99 are compared.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from load_tests.bench.data import ROWS
from load_tests.bench.openloop.generator import Stream
from load_tests.bench.openloop.records import percentile
from load_tests.bench.openloop.world import WARM_UP, Kind, World, world
from load_tests.bench.row import Row, all_kept, table

SMALL: Final = Kind(64, "raw")
BESIDE: Final = (Kind(2048, "raw"), Kind(2048, "JSON"))
SHARE: Final = 0.3
"""Of the peak rate of each kind."""
AT_MOST: Final = 4.0
AIM: Final = 2.0
_CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of time: percentiles of the small requests, in seconds from due, and of what was beside them."""

    beside: str
    p50: float
    p99: float
    failed: int
    large_p99: float
    doubt: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """All windows, and the rates at which requests arrived in them, by their kind."""

    rates: dict[str, float]
    windows: tuple[Window, ...]

    def p99(self, beside: str = "") -> float:
        """The median over the windows with this beside (empty: alone), in seconds."""
        return statistics.median(window.p99 for window in self.windows if window.beside == beside)

    def ratio(self, beside: str) -> float:
        """Of that to the windows where the small requests were alone."""
        return self.p99(beside) / self.p99()


def measure(setting: World, windows: int = 9, seconds: float = 3.0) -> Mixed:
    """So many windows of each kind, in turn."""
    rates = {str(kind): SHARE * setting.peak(kind, seconds) for kind in (SMALL, *BESIDE)}
    kinds = [None, *BESIDE] * windows
    return Mixed(rates, tuple(_window(setting, kind, rates, seconds, seed) for seed, kind in enumerate(kinds)))


def _window(setting: World, beside: Kind | None, rates: dict[str, float], seconds: float, seed: int) -> Window:
    kinds = [SMALL] if beside is None else [SMALL, beside]
    streams = [Stream(str(kind), setting.requests(kind), _CONNECTIONS, rates[str(kind)]) for kind in kinds]
    records = [record.after(WARM_UP * seconds) for record in setting.run(seconds, *streams, seed=seed)]
    small = records[0]
    return Window(
        beside="" if beside is None else str(beside),
        p50=percentile(small.latency(), 50),
        p99=percentile(small.latency(), 99),
        failed=sum(len(record.due) - record.count(200) for record in records),
        large_p99=percentile(records[-1].latency(), 99) if beside else float("nan"),
        doubt=small.doubt,
    )


def rows(mixed: Mixed, at_most: float = AT_MOST) -> list[Row]:
    """The promise for raw requests beside raw ones; those beside JSON are only told."""
    raw, text = (str(kind) for kind in BESIDE)
    return [Row(_what(raw), mixed.ratio(raw), at_most=at_most, aim=AIM), Row(_what(text), mixed.ratio(text))]


def _what(beside: str) -> str:
    return f"p99 of {SMALL} at {SHARE:.0%} load, {beside} taking another {SHARE:.0%}: against alone"


def show(mixed: Mixed) -> None:
    """Prints all windows."""
    print("requests/s: " + ", ".join(f"{kind} {rate:,.0f}" for kind, rate in mixed.rates.items()))
    print(f"{'beside':16}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}{'their p99 ms':>14}")
    for window in mixed.windows:
        print(
            f"{window.beside or '-':16}{window.p50 * 1e3:9.2f}{window.p99 * 1e3:9.2f}{window.failed:8}"
            f"{window.large_p99 * 1e3:14.2f}  {window.doubt}".rstrip()
        )
    for beside in dict.fromkeys(window.beside for window in mixed.windows):
        print(f"median p99 {'beside ' + beside if beside else 'alone'}: {mixed.p99(beside) * 1e3:.2f} ms")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs it; ends with 1 if the promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=9, help="of each kind")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--at-most", type=float, default=AT_MOST, help="the ratio that is promised")
    given = parser.parse_args(arguments)
    with world(rows=given.rows) as setting:
        mixed = measure(setting, given.windows, given.seconds)
    show(mixed)
    joined = rows(mixed, given.at_most)
    print(table(joined))
    sys.exit(0 if all_kept(joined) else 1)


if __name__ == "__main__":
    main()
