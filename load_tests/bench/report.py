"""The run as Markdown for people and as JSON, which has every burst."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from load_tests.bench.burst import Burst
from load_tests.bench.cases import Case
from load_tests.bench.first import First
from load_tests.bench.more import More
from load_tests.bench.openloop.latency import Curve, Point
from load_tests.bench.ratios import Ratio
from load_tests.bench.rounds import Run
from load_tests.bench.row import Row
from load_tests.bench.wrk import CONNECTIONS

_BUSY: Final = 0.85  # of a core
_MANY: Final = 100  # requests a second
_RATIOS: Final = """\
Ratios are of requests/s, the median of those within each round. "By server CPU" is what the processor time that the two
servers use for a request would make of it: it matters where the load generator, and not the server, could do no more
(marked *). Where neither was busy, something else was (marked †), and requests/s say little."""
_SPREAD: Final = """\
Spread is from the slowest round to the fastest, as a share of the median. Redis is asked by redis-benchmark, which
draws keys uniformly; the others by wrk, with prepared requests in turn."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that is written down. `more` are figures that were not measured in the closed loop."""

    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: int
    seconds: int
    run: Run
    ratios: Sequence[Ratio]
    first: Sequence[First]
    more: More

    @property
    def rows(self) -> list[Row]:
        """Every line with a promise, and those that only tell."""
        return [*(ratio.row for ratio in self.ratios), *self.more.rows]

    @property
    def good(self) -> bool:
        """Whether all promises are kept and nothing failed."""
        return not self.run.failures and all(row.kept for row in self.rows)


def median(bursts: Iterable[Burst], figure: Callable[[Burst], float]) -> float:
    """Of one figure over the rounds."""
    return statistics.median(map(figure, bursts))


def spread(rates: Sequence[float]) -> float:
    """From the slowest round to the fastest, as a share of the median."""
    return (max(rates) - min(rates)) / statistics.median(rates)


def rate_in_words(rate: float) -> str:
    """With one decimal where there are few."""
    return f"{rate:,.0f}" if rate >= _MANY else f"{rate:.1f}"


def markdown(report: Report) -> str:
    """Tables: what was measured, what was promised; and what one must know to read them."""
    sections = [
        ["# Bench", "", _how(report)],
        _cases(report.run),
        _promises(report),
        *map(_latency, report.more.curves),
        _firsts(report.first),
        _remarks(report),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _how(report: Report) -> str:
    machine = report.machine
    return (
        f"{report.date}. {machine['processor']}, {machine['cores']} cores, {machine['memory']} of memory, "
        f"{machine['kernel']}, Python {machine['Python']}. Servers run on one core and the load generator on another; "
        f"{CONNECTIONS} connections, each of which asks again when it is answered; medians over {report.rounds} rounds "
        f"of {report.seconds} s, in each of which every case has its turn."
    )


def _cases(run: Run) -> list[str]:
    heads = [
        "case",
        "requests/s",
        "server CPU µs/request",
        "p50 ms",
        "p99 ms",
        "spread",
        "server busy",
        "generator busy",
    ]
    return _table(heads, [_case(case, bursts) for case in run.rounds if (bursts := run.good(case))])


def _case(case: Case, bursts: Sequence[Burst]) -> list[str]:
    return [
        case.name,
        rate_in_words(median(bursts, lambda each: each.rate)),
        f"{median(bursts, lambda each: each.cpu) * 1e6:,.0f}",
        f"{median(bursts, lambda each: each.p50) * 1e3:.2f}",
        f"{median(bursts, lambda each: each.p99) * 1e3:.2f}",
        f"{spread([each.rate for each in bursts]):.0%}",
        f"{median(bursts, lambda each: each.server_share):.0%}",
        f"{median(bursts, lambda each: each.generator_share):.0%}{_mark(bursts)}",
    ]


def _mark(bursts: Sequence[Burst]) -> str:
    """What was waited for, if it was not the server."""
    server = median(bursts, lambda each: each.server_share)
    generator = median(bursts, lambda each: each.generator_share)
    if max(server, generator) < _BUSY:
        return " †"
    return " *" if generator > max(server, _BUSY) else ""


def _promises(report: Report) -> list[str]:
    heads = ["promise", "at least / at most", "aim", "measured", "kept", "by server CPU"]
    rows = [[*_promise(ratio.row), f"{ratio.by_cpu:.2f}"] for ratio in report.ratios]
    rows += [[*_promise(row), ""] for row in report.more.rows]
    return _table(heads, rows)


def _promise(row: Row) -> list[str]:
    aim = "" if row.aim is None else f"{row.aim:g}"
    kept = ("yes" if row.kept else "**no**") if row.promise else ""
    return [row.what, row.promise, aim, f"{row.measured:.3g}", kept]


def _latency(curve: Curve) -> list[str]:
    heads = [f"{curve.what}, requests that arrive at random, /s", "share of peak", "p50 ms", "p99 ms", "p99.9 ms"]
    return _table(heads, [_point(point) for point in curve.points])


def _point(point: Point) -> list[str]:
    times = [f"{seconds * 1e3:.2f}" for seconds in (point.p50, point.p99, point.p999)]
    return [f"{point.rate:,.0f}", f"{point.share:.0%}", *times]


def _firsts(first: Sequence[First]) -> list[str]:
    heads = ["first question to a fresh server (raw, uniform ids)", "first ms", "later, median ms"]
    return _table(heads, [[_first(each), f"{each.first * 1e3:.2f}", f"{each.later * 1e3:.2f}"] for each in first])


def _first(each: First) -> str:
    return f"{each.count} ids, the table {'not ' if each.from_disk else ''}in the page cache when the server starts"


def _remarks(report: Report) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    remarks = [
        f"Versions: {versions}.",
        _RATIOS,
        _SPREAD,
        f"All servers together take {report.run.idle:.1%} of their core while nobody asks.",
    ]
    remarks += [f"Left out: {name} ({reason})." for name, reason in report.run.left_out.items()]
    return [
        f"- {' '.join(each.split())}" for each in [*remarks, *(f"Failed: {failure}" for failure in report.run.failures)]
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return [_line(heads), _line(["---", *["---:"] * (len(heads) - 1)]), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_json(report: Report) -> dict[str, Any]:
    """Everything, with the figures of every round; times in seconds."""
    return {
        "date": report.date,
        "machine": dict(report.machine),
        "versions": dict(report.versions),
        "rounds": report.rounds,
        "seconds": report.seconds,
        "connections": CONNECTIONS,
        "idle_share": report.run.idle,
        "cases": list(_cases_as_json(report.run)),
        "ratios": [{**_row_as_json(ratio.row), "by_server_cpu": ratio.by_cpu} for ratio in report.ratios],
        "latency": [asdict(curve) for curve in report.more.curves],
        "more": [_row_as_json(row) for row in report.more.rows],
        "first": [asdict(each) for each in report.first],
        "left_out": report.run.left_out,
        "failures": report.run.failures,
    }


def _cases_as_json(run: Run) -> Iterator[dict[str, Any]]:
    for case, bursts in run.rounds.items():
        yield {**asdict(case), "name": case.name, "rounds": [burst and _burst_as_json(burst) for burst in bursts]}


def _burst_as_json(burst: Burst) -> dict[str, Any]:
    return {**asdict(burst), "requests_per_second": burst.rate, "server_cpu_per_request": burst.cpu}


def _row_as_json(row: Row) -> dict[str, Any]:
    return {**asdict(row), "kept": row.kept}
