"""What all children of the supervisor have in common, made before they are forked."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from service.api.app import Service, create_service
from service.api.authorization import Tokens
from service.api.forwarding import Forwarding
from service.api.guard import closed
from service.dialects import dialects_of
from service.metrics import Counters, SharedCounters
from service.registry import TableRegistry
from service.server.accepting import Shares
from service.settings import Settings
from service.store import TableStore
from service.watcher import StoreWatcher


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that children have in common, made before they are forked: 10 MB that they share, not one each."""

    settings: Settings
    watcher: StoreWatcher
    counters: Counters
    service: Service
    shares: Shares


def prepare(settings: Settings, admin_at: str) -> Prepared:
    """Builds the application; `admin_at` is the Unix socket of the steward. No table is opened, no thread started."""
    registry = TableRegistry()
    watcher = StoreWatcher(
        TableStore(settings.store, timedelta(seconds=settings.delete_grace_seconds)),
        registry,
        fetching=settings.fetching(),
        poll_seconds=settings.poll_seconds,
        keep_loaded=settings.keep_loaded,
        text_bytes=settings.json_cache_bytes,
    )
    counters = Counters(SharedCounters(settings.workers), 0)
    forwarding = _forwarding(settings, admin_at) if settings.admin_port is None else closed
    service = create_service(
        settings, registry, watcher, counters, admin=lambda _: forwarding, dialects=dialects_of(settings)
    )
    return Prepared(settings, watcher, counters, service, Shares(settings.workers))


def _forwarding(settings: Settings, admin_at: str) -> Forwarding:
    nowhere = Forwarding("\0", Tokens.of(settings), settings.max_upload_bytes)
    asyncio.run(nowhere.rehearse())
    return Forwarding(admin_at, Tokens.of(settings), settings.max_upload_bytes)
