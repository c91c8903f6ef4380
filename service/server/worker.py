"""One worker process: its registry, its watcher, its uvicorn. Forked from the supervisor, after all imports."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn
import uvloop

from service.api.app import create_service
from service.api.front import Front
from service.metrics import Counters, SharedCounters
from service.registry import TableRegistry
from service.server.control import Channel, Message
from service.server.protocol import IgnoringUpgrades
from service.settings import Settings
from service.store import TableStore
from service.watcher import StoreWatcher

_PATIENCE: Final = 5.0
"""Seconds that connections wait in the socket's queue for the tables to be loaded: a replaced worker answers
none of them "not ready", and with tables that take longer its health can still be asked."""


class WorkerServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, telling when it accepts."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def stop(self) -> None:
        """Finishes the requests in flight and then ends."""
        self.should_exit = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that workers have in common, made before they are forked: 10 MB that they share, not one each."""

    settings: Settings
    watcher: StoreWatcher
    counters: Counters
    front: Front


def prepare(settings: Settings) -> Prepared:
    """Builds the application. No table is opened and no thread is started yet."""
    registry = TableRegistry()
    watcher = StoreWatcher(
        TableStore(settings.store),
        registry,
        backend=settings.backend,
        poll_seconds=settings.poll_seconds,
        keep_loaded=settings.keep_loaded,
    )
    counters = Counters(SharedCounters(settings.workers), 0)
    return Prepared(settings, watcher, counters, create_service(settings, registry, watcher, counters).front)


def run_worker(prepared: Prepared, number: int, listener: socket.socket, channel: Channel) -> None:
    """Serves until SIGTERM, or until the supervisor is gone."""
    prepared.counters.move_to(number)
    # Ctrl-C reaches the whole process group; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(prepared, listener, channel))


async def _serve(prepared: Prepared, listener: socket.socket, channel: Channel) -> None:
    server = WorkerServer(_config(prepared), lambda: channel.send(Message("ready")))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_reader(channel.fileno(), _on_message, channel, server)
    first_look = asyncio.Event()
    watching = loop.create_task(prepared.watcher.run(first_look))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(first_look.wait(), _PATIENCE)
    if not server.should_exit:
        await server.serve([listener])
    watching.cancel()
    prepared.watcher.close()


def _on_message(channel: Channel, server: WorkerServer) -> None:
    if channel.receive() is None:  # the supervisor is gone: nobody would ever stop this worker
        asyncio.get_running_loop().remove_reader(channel.fileno())
        server.stop()


def _config(prepared: Prepared) -> uvicorn.Config:
    return uvicorn.Config(
        prepared.front,
        loop="uvloop",
        http=IgnoringUpgrades,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=prepared.settings.drain_seconds,
    )
