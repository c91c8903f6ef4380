"""One worker process: its registry, its watcher, its uvicorn. Forked from the supervisor, after all imports."""

import asyncio
import contextlib
import signal
import socket
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import uvloop

from service.api.app import Service, create_service
from service.api.authorization import Tokens
from service.api.forwarding import Forwarding
from service.api.guard import closed
from service.dialects import dialects_of
from service.metrics import Counters, SharedCounters
from service.registry import TableRegistry
from service.server.accepting import Share, Shares
from service.server.allocator import keep_freed_memory
from service.server.control import Channel, Message
from service.server.participant import Participant
from service.server.rpc import Rpc
from service.server.serving import ChildServer
from service.server.wire import Wire
from service.settings import Settings
from service.store import TableStore
from service.watcher import StoreWatcher

_PATIENCE: Final = 5.0
"""Seconds that connections wait in the socket's queue for the tables to be loaded: a replaced worker answers
none of them "not ready", and with tables that take longer its health can still be asked."""
_TURN: Final = 0.0005
"""Seconds after which a thread that opens a version hands the interpreter lock to the event loop (default: 0.005)."""


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


def run_worker(
    prepared: Prepared, number: int, listener: socket.socket, rpc_port: socket.socket | None, channel: Channel
) -> None:
    """Serves until SIGTERM, or until the supervisor is gone."""
    prepared.counters.move_to(number)
    sys.setswitchinterval(_TURN)
    keep_freed_memory()
    # Ctrl-C reaches the whole process group; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rpc = Rpc(prepared.settings, prepared.service, rpc_port)
        runner.run(_serve(prepared, number, listener, rpc, channel))


async def _serve(prepared: Prepared, number: int, listener: socket.socket, rpc: Rpc, channel: Channel) -> None:
    settings = prepared.settings
    server = ChildServer(
        prepared.service.front,
        settings.drain_seconds,
        settings.client_seconds,
        on_started=lambda: channel.send(Message("ready")),
        on_stop=rpc.stop,
        protocol=Wire,
        share=Share(prepared.shares, number) if settings.workers > 1 else None,
    )
    participant = Participant(prepared.watcher, number, channel, give_up=lambda: signal.raise_signal(signal.SIGKILL))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_reader(channel.fileno(), _on_message, channel, participant, server)
    first_look = asyncio.Event()
    watching = loop.create_task(prepared.watcher.run(first_look))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(first_look.wait(), _PATIENCE)
    if not server.should_exit:
        await rpc.start()
        await server.serve([listener])
        await rpc.ended()
    watching.cancel()
    prepared.watcher.close()


def _on_message(channel: Channel, participant: Participant, server: ChildServer) -> None:
    message = channel.receive()
    if message is not None:
        participant.on_message(message)
    else:  # the supervisor is gone: nobody would ever stop this worker
        asyncio.get_running_loop().remove_reader(channel.fileno())
        server.stop()
