"""Traces in a child process: begun after the fork, sent to the last before it ends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.server.extras import missing
from service.settings import Settings

_LAST_SECONDS: Final = 1.0  # for what has not been sent yet
_NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def why_not(settings: Settings) -> str | None:
    """Why there can be no traces with these settings; None where they can be had, or are not wanted."""
    if settings.traces_endpoint is None:
        return "it needs an endpoint, --traces-endpoint" if settings.traces_ratio else None
    return missing("tracing", _NEEDED)


@contextmanager
def traces(settings: Settings) -> Iterator[None]:
    """Has this process send its spans meanwhile, if that is wanted."""
    if settings.traces_endpoint is None:
        yield
        return
    from service.spans import start  # noqa: PLC0415  (an extra)

    provider = start(settings)
    try:
        yield
    finally:
        # In a thread that may be left behind: a collector that does not answer must not hold up a stop.
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(_LAST_SECONDS)
