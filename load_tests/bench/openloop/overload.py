"""Four times the load that saturates: `python -m load_tests.bench.openloop.overload`.

Whoever is refused must learn so at once, and the others must be answered as if nothing were. Three kinds of load: 64
connections where 16 saturate, whose clients ask again at once; the same, but they wait as `Retry-After` says; and
requests that arrive at four times the peak rate. The health of the server is asked all the while.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from load_tests.bench.data import ROWS
from load_tests.bench.openloop.generator import Stream
from load_tests.bench.openloop.records import Record, percentile
from load_tests.bench.openloop.world import PEAK_CONNECTIONS, WARM_UP, Kind, World, world
from load_tests.bench.row import Row, all_kept, table

KINDS: Final = (Kind(64, "raw"), Kind(2048, "JSON"))
TIMES: Final = 4
"""How much more than what saturates."""
AT_LEAST: Final = 0.9
AT_MOST: Final = 10.0
"""Milliseconds to a refusal, p99 from when the request was sent."""
REFUSED: Final = 503
_OPEN_CONNECTIONS: Final = 256
_HEALTH: Final = b"GET /health/live HTTP/1.1\r\nHost: bench\r\n\r\n"
_HEALTH_RATE: Final = 50.0

How: TypeAlias = Literal["again at once", "honour Retry-After", "open loop"]
HOW: Final[tuple[How, ...]] = ("again at once", "honour Retry-After", "open loop")


@dataclass(frozen=True, slots=True)
class Trial:
    """One load on one server. `peak` and `goodput` are answers with 200 a second, times are in seconds.

    `refused` is the share of the answers that were refusals, `hinted` the share of these with `Retry-After`; the
    percentiles of the time to a refusal are NaN without one. `failed` counts every other answer. `lively` is the share
    of the questions for its health that were answered with 200, `health_p99` counts from due.
    """

    what: str
    how: How
    offered: float
    peak: float
    goodput: float
    refused: float
    hinted: float
    failed: int
    refusal_p50: float
    refusal_p99: float
    refusal_due_p99: float
    lively: float
    health_p99: float
    busy: float

    @property
    def ratio(self) -> float:
        """Of the goodput to the peak."""
        return self.goodput / self.peak


def trial(setting: World, kind: Kind, how: How, peak: float, seconds: float) -> Trial:
    """One load, and what became of it; `peak` is the rate of this kind of request, measured in the same run."""
    stream = _stream(setting, kind, how, peak)
    health = Stream("health", (_HEALTH,), 2, _HEALTH_RATE, "even")
    record, probes = setting.run(seconds, stream, health, drain=0.0)
    return trial_of(str(kind), how, peak, record, probes)


def _stream(setting: World, kind: Kind, how: How, peak: float) -> Stream:
    requests = setting.requests(kind)
    if how == "open loop":
        return Stream(str(kind), requests, _OPEN_CONNECTIONS, TIMES * peak)
    honours = how == "honour Retry-After"
    return Stream(str(kind), requests, TIMES * PEAK_CONNECTIONS, honours_retry_after=honours)


def trial_of(what: str, how: How, peak: float, record: Record, probes: Record) -> Trial:
    """What the records of a load and of the questions for health say."""
    refusals = record.count(REFUSED)
    answered = int(np.count_nonzero(record.status))
    warm_up = WARM_UP * record.seconds  # in which connections are made
    steady = record.after(warm_up)
    from_sent = steady.time_to(REFUSED)
    from_due = (steady.done - steady.due)[steady.status == REFUSED]
    # The last questions may have been cut off by the end of the run.
    asked = probes.due < probes.seconds - _patience(probes.seconds)
    return Trial(
        what=what,
        how=how,
        offered=float(np.isfinite(record.sent).sum()) / record.seconds,
        peak=peak,
        goodput=record.rate(warm_up=warm_up),
        refused=refusals / max(1, answered),
        hinted=record.with_retry_after / refusals if refusals else math.nan,
        failed=answered - refusals - record.count(200),
        refusal_p50=percentile(from_sent, 50),
        refusal_p99=percentile(from_sent, 99),
        refusal_due_p99=percentile(from_due, 99),
        lively=float((probes.status[asked] == 200).mean()) if asked.any() else math.nan,
        health_p99=percentile((probes.done - probes.due)[asked], 99),
        busy=record.busy,
    )


def _patience(seconds: float) -> float:
    return min(1.0, 0.2 * seconds)


def measure(setting: World, rounds: int = 6, seconds: float = 2.0) -> list[Trial]:
    """Each kind of request under each load, the peak beside it, round after round."""
    return [one for _ in range(rounds) for kind in KINDS for one in _round(setting, kind, seconds)]


def _round(setting: World, kind: Kind, seconds: float) -> list[Trial]:
    peak = setting.peak(kind, seconds)
    return [trial(setting, kind, how, peak, seconds) for how in HOW]


def rows(trials: Sequence[Trial], at_least: float = AT_LEAST, at_most: float = AT_MOST) -> list[Row]:
    """Medians over the rounds of each load; the slowest refusals of all loads; the least lively health."""
    cases = list(dict.fromkeys((one.what, one.how) for one in trials))
    goodput = [
        Row(
            f"{TIMES} times the load, {what}, {how}: goodput against peak",
            statistics.median(one.ratio for one in trials if (one.what, one.how) == (what, how)),
            at_least=at_least,
        )
        for what, how in cases
    ]
    hinted = [one.hinted for one in trials if not math.isnan(one.hinted)]
    return [
        *goodput,
        Row("time to a refusal (503), p99 of the worst load, ms", _slowest(trials, cases), at_most=at_most),
        Row("refusals with Retry-After, share", min(hinted, default=math.nan), at_least=1.0),
        Row("/health/live answered meanwhile, share", min(one.lively for one in trials), at_least=1.0),
    ]


def _slowest(trials: Sequence[Trial], cases: Sequence[tuple[str, How]]) -> float:
    """The median of the rounds, of the load where it is highest, in milliseconds; NaN if nothing was refused."""
    by_case = [[one.refusal_p99 for one in trials if (one.what, one.how) == case] for case in cases]
    refused = [[p99 for p99 in times if not math.isnan(p99)] for times in by_case]
    return max((statistics.median(times) * 1e3 for times in refused if times), default=math.nan)


def show(trials: Sequence[Trial]) -> None:
    """Prints all trials."""
    print(
        f"{'request':16}{'load':20}{'sent/s':>8}{'peak/s':>8}{'good/s':>8}{'ratio':>7}{'refused':>9}{'hinted':>8}"
        f"{'failed':>8}{'503 p50':>9}{'503 p99':>9}{'from due':>10}{'alive':>7}{'p99':>9}{'busy':>6}   (times in ms)"
    )
    for one in trials:
        times = (one.refusal_p50, one.refusal_p99)
        print(
            f"{one.what:16}{one.how:20}{one.offered:8,.0f}{one.peak:8,.0f}{one.goodput:8,.0f}{one.ratio:7.2f}"
            f"{one.refused:9.1%}{one.hinted:8.0%}{one.failed:8}{''.join(f'{time * 1e3:9.2f}' for time in times)}"
            f"{one.refusal_due_p99 * 1e3:10.1f}{one.lively:7.0%}{one.health_p99 * 1e3:9.1f}{one.busy:6.0%}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs it; ends with 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--max-in-flight", type=int, help="the server's setting EMBEDDING_MAX_IN_FLIGHT")
    parser.add_argument("--at-least", type=float, default=AT_LEAST, help="goodput against peak")
    parser.add_argument("--at-most", type=float, default=AT_MOST, help="milliseconds to a refusal (p99)")
    given = parser.parse_args(arguments)
    settings = {} if given.max_in_flight is None else {"MAX_IN_FLIGHT": str(given.max_in_flight)}
    with world(rows=given.rows, settings=settings) as setting:
        trials = measure(setting, given.rounds, given.seconds)
    show(trials)
    joined = rows(trials, given.at_least, given.at_most)
    print(table(joined))
    sys.exit(0 if all_kept(joined) else 1)


if __name__ == "__main__":
    main()
