"""Every counter and histogram: its name, meaning, labels and buckets.

Names and units are what Prometheus recommends (https://prometheus.io/docs/practices/naming).
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Family:
    """A counter, a gauge, or a histogram with `buckets`: the upper bounds of all but the last, which has none."""

    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Numbers of a series: one, or those of the buckets and the sum of what was observed."""
        return len(self.buckets) + 2 if self.buckets else 1


REQUESTS: Final = "embedding_requests"
IDS: Final = "embedding_ids"
OOV_IDS: Final = "embedding_oov_ids"
ROW_TEXTS: Final = "embedding_row_texts"
LOADS: Final = "embedding_table_loads"
SWAPS: Final = "embedding_swaps"
RESTARTS: Final = "embedding_worker_restarts"
REQUEST_SECONDS: Final = "embedding_request_seconds"
REQUEST_IDS: Final = "embedding_request_ids"
SWAP_SECONDS: Final = "embedding_swap_seconds"

RETIRED: Final = "retired"
"""Not told to anybody: the versions of tables whose series a process has ended."""
OTHER: Final = "other"
"""The label value of what has no series of its own."""

FAMILIES: Final[dict[str, Family]] = {
    REQUESTS: Family(
        "Lookups answered, by table, version, endpoint and status code.", ("table", "version", "endpoint", "code")
    ),
    REQUEST_SECONDS: Family(
        "Seconds from the last byte of a lookup to its answer, of those answered with 200.",
        ("table", "endpoint"),
        (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    ),
    REQUEST_IDS: Family(
        "Ids and tokens of a lookup in one table, of those answered with 200.",
        ("table", "endpoint"),
        (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144),
    ),
    OOV_IDS: Family("Ids and tokens outside the table, refused or answered by its rule.", ("table",)),
    ROW_TEXTS: Family("Rows of JSON answers, whose text was kept (hit) or rendered.", ("table", "result")),
    LOADS: Family("Versions that workers opened to serve them, or could not.", ("table", "result")),
    SWAPS: Family("Activations and rollbacks, done or failed.", ("table", "result")),
    SWAP_SECONDS: Family(
        "Seconds from the beginning of an activation until every worker serves it.",
        ("table",),
        (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
    ),
    RESTARTS: Family("Workers and stewards that ended and were replaced."),
}
"""What is counted, each in the region of its process."""

STORED: Final[dict[str, Family]] = {**FAMILIES, RETIRED: Family("", ("table", "version"))}
"""What is in the regions."""

DERIVED: Final[dict[str, Family]] = {
    IDS: Family("Ids and tokens looked up, of lookups answered with 200.", ("table",)),
}
"""Counters that are made of others when they are asked for."""

GAUGES: Final[dict[str, Family]] = {
    "embedding_workers": Family("Worker processes that were configured."),
    "embedding_workers_ready": Family("Worker processes that serve."),
    "embedding_in_flight": Family("Lookups in flight in all workers."),
    "embedding_in_flight_limit": Family("Places for lookups in flight in all workers."),
    "embedding_waiting": Family("Lookups that wait for a place in all workers."),
    "embedding_connections": Family("Open HTTP connections of all workers."),
    "embedding_active_version": Family(
        "Workers that serve this version of a table as the active one.", ("table", "version")
    ),
    "embedding_table_ready": Family(
        "1 if every worker serves the table, else 0; of tables with an active version.", ("table",)
    ),
    "embedding_loaded_versions": Family("Versions of a table that a worker has open, the most of any.", ("table",)),
    "embedding_mapped_bytes": Family(
        "Bytes of the open versions' rows, the most of any worker; workers share the pages.", ("table",)
    ),
    "embedding_build_info": Family("1, with the service's version and the backend.", ("version", "backend")),
}
"""What processes are doing now, in the words of `gauges` and `exposition`."""
