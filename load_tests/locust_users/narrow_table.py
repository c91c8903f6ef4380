"""Locust's statistics as a table that is narrow enough for a page: `--narrow-table` prints it before locust's own."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # locust changes the whole process that imports it, and this is read in others, too
    from locust.env import Environment

_SHARES: Final = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
_HEAD: Final = ("50%", "90%", "95%", "99%", "99.9%", "max")


@dataclass(slots=True)
class _Line:
    """One kind of requests, or all; `times` are milliseconds as locust rounds them, and how many took so long."""

    kind: str
    name: str
    requests: int = 0
    failures: int = 0
    times: Counter[int] = field(default_factory=Counter)

    def add(self, entry: Mapping[str, Any]) -> None:
        self.requests += entry["num_requests"]
        self.failures += entry["num_failures"]
        self.times.update({int(float(time)): count for time, count in entry["response_times"].items()})

    def text(self, seconds: float) -> str:
        rate = self.requests / seconds
        times = "".join(f"{self._within(share):7}" for share in _SHARES)
        return f"{self.kind:6}{self.name:18}{self.requests:>9,}{self.failures:>8}{rate:>9,.1f} |{times}"

    def _within(self, share: float) -> int:
        """The time that so many were answered in; raises ValueError for none."""
        wanted, counted = share * self.times.total(), 0
        for time in sorted(self.times):
            counted += self.times[time]
            if counted >= wanted:
                return time
        raise ValueError("there were no requests")


def tell(environment: "Environment", **_: object) -> None:
    """Prints it at the end, if that is wished."""
    if getattr(environment.parsed_options, "narrow_table", False):
        print("\n".join(lines([entry.serialize() for entry in environment.stats.entries.values()])), flush=True)


def lines(statistics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each kind of requests and one for all, below their heading; nothing if there were none.

    `statistics` are the entries as locust serialises them.
    """
    entries = [entry for entry in statistics if entry["num_requests"]]
    if not entries:
        return
    began, ended = min(each["start_time"] for each in entries), max(each["last_request_timestamp"] for each in entries)
    yield f"{'type':6}{'name':18}{'requests':>9}{'failed':>8}{'req/s':>9} |{''.join(f'{name:>7}' for name in _HEAD)}"
    whole = _Line("", "all")
    for entry in sorted(entries, key=lambda each: (each["method"], each["name"])):
        line = _Line(entry["method"], entry["name"])
        line.add(entry)
        whole.add(entry)
        yield line.text(ended - began)
    yield whole.text(ended - began)
