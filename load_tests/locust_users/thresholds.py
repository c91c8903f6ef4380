"""What a test has shown against what was asked of it: the exit code."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Final

from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import RequestStats, calculate_response_time_percentile

from load_tests.locust_users.options import Options
from load_tests.locust_users.swapping import SWAP
from load_tests.locust_users.user import LOOKUP

BROKEN: Final = 1  # the exit code
_log = logging.getLogger(__name__)


def judge(environment: Environment, **_: object) -> None:
    """Sets the exit code of the master or of the only process, and says why."""
    if isinstance(environment.runner, WorkerRunner) or environment.process_exit_code is not None:
        return
    assert environment.parsed_options is not None
    options = Options.of(environment.parsed_options)
    broken = [*_broken(environment.stats, options)]
    if environment.runner is not None and environment.runner.exceptions:
        broken.append(f"{len(environment.runner.exceptions)} exceptions in users")
    for claim in broken:
        _log.error("BROKEN: %s", claim)
    environment.process_exit_code = BROKEN if broken else 0


def _broken(stats: RequestStats, options: Options) -> Iterator[str]:
    lookups, failed = _counts(stats, LOOKUP)
    swaps, failed_swaps = _counts(stats, SWAP)
    share = failed / max(1, lookups)
    if not lookups:
        yield "there were no lookups"
    if share > options.max_failure_share:
        yield f"{failed:,} of {lookups:,} lookups failed, more than a share of {options.max_failure_share:g}"
    if failed_swaps:
        yield f"{failed_swaps} of {swaps} swaps failed"
    if options.swap_every and not swaps:
        yield "there were no swaps"
    p99 = p99_ms(stats)
    if options.max_p99_ms is not None and p99 > options.max_p99_ms:
        yield f"the 99th percentile is {p99:g} ms, above {options.max_p99_ms:g} ms"


def _counts(stats: RequestStats, kind: str) -> tuple[int, int]:
    entries = [entry for entry in stats.entries.values() if entry.method == kind]
    return sum(entry.num_requests for entry in entries), sum(entry.num_failures for entry in entries)


def p99_ms(stats: RequestStats) -> float:
    """Of all lookups together; locust rounds times to two digits."""
    times: Counter[int] = Counter()
    for entry in stats.entries.values():
        if entry.method == LOOKUP:
            times.update(entry.response_times)
    return float(calculate_response_time_percentile(dict(times), times.total(), 0.99)) if times else 0.0
