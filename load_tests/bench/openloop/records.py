"""What became of the requests of one stream, and percentiles of it."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

_NOTABLE: Final = 0.1
_BUSY: Final = 0.9

Seconds: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Record:
    """All requests that were due in `seconds`, in the order of their due times; times count from the run's start.

    A request that got no answer has status 0 and is done at infinity; one that was never sent was sent then, too.
    `late` is by how much the generator was late to send though a connection was free (NaN for what was not sent);
    `busy` is the share of its time that it did not wait.
    """

    name: str
    seconds: float
    due: Seconds
    sent: Seconds
    done: Seconds
    late: Seconds
    status: NDArray[np.int16]
    with_retry_after: int
    body_bytes: int
    reconnects: int
    busy: float

    def latency(self, status: int = 200) -> Seconds:
        """From due to done, of the answers with this status and of those that never came (infinity)."""
        latency: Seconds = (self.done - self.due)[(self.status == status) | (self.status == 0)]
        return latency

    def time_to(self, status: int) -> Seconds:
        """From sent to done, of the answers with this status."""
        chosen = self.status == status
        times: Seconds = self.done[chosen] - self.sent[chosen]
        return times

    def lateness(self) -> Seconds:
        """By how much the generator was late, for all that was sent."""
        return self.late[np.isfinite(self.late)]

    def count(self, status: int) -> int:
        """Answers with this status; 0 counts those that never came."""
        return int((self.status == status).sum())

    def rate(self, status: int = 200, *, warm_up: float = 0.0) -> float:
        """Answers with this status a second, between the warm-up and the end of the arrivals."""
        counted = (self.status == status) & (self.done >= warm_up) & (self.done < self.seconds)
        return float(counted.sum()) / (self.seconds - warm_up)

    def after(self, warm_up: float) -> "Record":
        """The requests due after so many seconds; counters, rates and times stay those of the whole run."""
        chosen = self.due >= warm_up
        parts = {name: getattr(self, name)[chosen] for name in ("due", "sent", "done", "late", "status")}
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in parts}
        return Record(**parts, **rest)

    @property
    def doubt(self) -> str:
        """Why its latencies may be the generator's own; empty if they are the server's."""
        late, all_of_it = percentile(self.lateness(), 99), percentile(self.latency(), 99)
        if late > _NOTABLE * all_of_it:
            return f"the generator was {late * 1e3:.2f} ms late (p99), of {all_of_it * 1e3:.2f} ms"
        return f"the generator was busy {self.busy:.0%} of the time" if self.busy > _BUSY else ""


def percentile(values: Seconds, percent: float) -> float:
    """The smallest value that so many percent do not exceed; NaN of none."""
    if not values.size:
        return float("nan")
    return float(np.percentile(values, percent, method="inverted_cdf"))
