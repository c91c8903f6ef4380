"""What `GET /metrics` gives: the names of all metrics with their labels."""

from collections.abc import Mapping
from typing import Final

COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "embedding_requests_total": ("table", "version", "endpoint", "code"),
    "embedding_ids_total": ("table",),
    "embedding_oov_ids_total": ("table",),
    "embedding_row_texts_total": ("table", "result"),
    "embedding_swaps_total": ("table", "result"),
    "embedding_table_loads_total": ("table", "result"),
    "embedding_worker_restarts_total": (),
}
HISTOGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "embedding_request_seconds": ("table", "endpoint"),
    "embedding_request_ids": ("table", "endpoint"),
    "embedding_swap_seconds": ("table",),
}
GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "embedding_in_flight": (),
    "embedding_waiting": (),
    "embedding_connections": (),
    "embedding_in_flight_limit": (),
    "embedding_workers": (),
    "embedding_workers_ready": (),
    "embedding_active_version": ("table", "version"),
    "embedding_loaded_versions": ("table",),
    "embedding_mapped_bytes": ("table",),
    "embedding_table_ready": ("table",),
    "embedding_build_info": ("version", "backend"),
}
METRICS: Final[Mapping[str, tuple[str, ...]]] = {**COUNTERS, **HISTOGRAMS, **GAUGES}


def _series_of_histogram(name: str, labels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {f"{name}_bucket": (*labels, "le"), f"{name}_sum": labels, f"{name}_count": labels}


SERIES: Final[Mapping[str, tuple[str, ...]]] = {
    **COUNTERS,
    **GAUGES,
    **{series: of for name, labels in HISTOGRAMS.items() for series, of in _series_of_histogram(name, labels).items()},
}
"""What a query can name: of a histogram its buckets, sum and count."""
