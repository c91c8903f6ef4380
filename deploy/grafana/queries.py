"""What panels ask of Prometheus: selectors that follow the dashboard's variables, and the shapes of questions."""

from dataclasses import dataclass
from typing import Final

SERVER: Final = 'job=~"$job", instance=~"$instance"'
TABLE: Final = f'{SERVER}, table=~"$table"'
FAILED: Final = "5..|INTERNAL|UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED|DATA_LOSS"
"""The codes that are the service's fault, as rules.yml has them."""

_WINDOW: Final = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and what its series are called. `instant` asks for the last value only, `step` is the shortest."""

    expression: str
    legend: str = ""
    instant: bool = False
    format: str = "time_series"
    step: str = ""


def of_servers(metric: str) -> str:
    """A metric of the chosen servers."""
    return f"{metric}{{{SERVER}}}"


def of_tables(metric: str, more: str = "") -> str:
    """A metric of the chosen tables on the chosen servers; `more` are further matchers."""
    return f"{metric}{{{TABLE}{more and ', ' + more}}}"


def per_second(metric: str, by: str = "", more: str = "", window: str = _WINDOW) -> str:
    """The rate of a counter of tables, summed up to the labels `by`."""
    return f"sum{_by(by)}(rate({of_tables(metric, more)}[{window}]))"


def share(part: str, whole: str) -> str:
    """A ratio that has no value without a whole, and is 0 without a part."""
    return f"({part} or {whole} * 0) / ({whole} > 0)"


def quantile(q: float, histogram: str, by: str = "", window: str = _WINDOW) -> str:
    """A quantile of a histogram of tables, without the NaN that a quantile of nothing is."""
    buckets = per_second(f"{histogram}_bucket", f"{by}, le" if by else "le", window=window)
    return f"histogram_quantile({q:g}, {buckets}) > 0"


def increase(metric: str, by: str, selected: str, legend: str) -> Query:
    """What a counter has grown by, for bars: each has its own interval, so that their sum is that of the counter."""
    return Query(f"sum{_by(by)}(increase({metric}{{{selected}}}[$__interval]))", legend, step="1m")


def with_table(expression: str) -> str:
    """The same with a name for what has no table."""
    return f'label_replace({expression}, "table", "(no table)", "table", "")'


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
