"""What `GET /metrics` gives: the names of all metrics with their labels."""

from collections.abc import Mapping
from typing import Final

from service.metrics import families
from service.metrics.families import DERIVED, FAMILIES

COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    f"{name}_total": family.labels for name, family in {**FAMILIES, **DERIVED}.items() if not family.buckets
}
HISTOGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    name: family.labels for name, family in FAMILIES.items() if family.buckets
}
GAUGES: Final[Mapping[str, tuple[str, ...]]] = {name: family.labels for name, family in families.GAUGES.items()}
METRICS: Final[Mapping[str, tuple[str, ...]]] = {**COUNTERS, **HISTOGRAMS, **GAUGES}


def _series_of_histogram(name: str, labels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {f"{name}_bucket": (*labels, "le"), f"{name}_sum": labels, f"{name}_count": labels}


SERIES: Final[Mapping[str, tuple[str, ...]]] = {
    **COUNTERS,
    **GAUGES,
    **{series: of for name, labels in HISTOGRAMS.items() for series, of in _series_of_histogram(name, labels).items()},
}
"""What a query can name: of a histogram its buckets, sum and count."""
