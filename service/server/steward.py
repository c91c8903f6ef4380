"""The process that changes the store: the admin API for what workers pass on, and for the commands of this host.

It answers no lookup, so that what it does (hash, read and write gigabytes) takes no turn from those that do.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Collection
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

import uvloop

from service import background
from service.api.app import Service
from service.api.authorization import Tokens, local_user
from service.api.guard import Guard
from service.api.observed import observed
from service.api.retelling import Retelling
from service.metrics import Counters
from service.metrics.families import SWAP_SECONDS, SWAPS
from service.server.accepting import Share, Shares
from service.server.asking import AskedWorkers
from service.server.control import Channel, Message
from service.server.local import Sockets
from service.server.prepared import Prepared
from service.server.serving import ChildServer
from service.server.tls import arguments_of
from service.server.traces import traces
from service.settings import Settings
from service.steward import Steward
from service.store import TableStore

_NICENESS: Final = 5  # a third of the share of a worker, where all cores are busy
_HOUSEKEEPING: Final = 5.0  # seconds
_Servers: TypeAlias = list[tuple[ChildServer, list[socket.socket]]]


def run_steward(prepared: Prepared, sockets: Sockets, channel: Channel) -> None:
    """Serves the admin routes of a service until SIGTERM, or until the supervisor is gone."""
    prepared.counters.move_to(prepared.counters.shared.steward)
    prepared.counters.is_served = lambda _: True  # it serves none itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    with traces(prepared.settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(prepared, sockets, channel))


async def _serve(prepared: Prepared, sockets: Sockets, channel: Channel) -> None:
    settings, service = prepared.settings, prepared.service
    workers = AskedWorkers(channel, settings.prepare_seconds)
    store = TableStore(settings.store, timedelta(seconds=settings.delete_grace_seconds), background.sha256)
    steward = Steward(store, workers, partial(_count_switch, prepared.counters))
    servers = _servers(settings, service, sockets, steward)
    loop = asyncio.get_running_loop()
    loop.add_reader(channel.fileno(), _on_message, channel, workers, servers)
    loop.add_signal_handler(signal.SIGTERM, _stop, servers)
    housekeeping = loop.create_task(steward.housekeep(_HOUSEKEEPING))
    channel.send(Message("ready"))  # connections wait in the sockets' queues
    await asyncio.gather(*(server.serve(listeners) for server, listeners in servers))
    housekeeping.cancel()


def _count_switch(counters: Counters, tables: Collection[str], seconds: float | None) -> None:
    """Notes that versions were put in force after so long; None where that has failed."""
    for table in tables:
        counters.begin(SWAPS, (table, "failed"))
        counters.add(SWAPS, (table, "failed" if seconds is None else "done"))
        if seconds is not None:
            counters.observe(SWAP_SECONDS, (table,), seconds)


def _servers(settings: Settings, service: Service, sockets: Sockets, steward: Steward) -> _Servers:
    patience = (settings.drain_seconds, settings.client_seconds)
    others = service.front.dialects
    guard = Guard(service.behind, steward, Tokens.of(settings))
    # What workers pass on is in the log already.
    passed_on = observed(Retelling(guard, others), settings.model_copy(update={"access_log": False}), service.routes)
    direct = observed(Retelling(guard, others), settings, service.routes)
    servers = [(ChildServer(passed_on, *patience), [sockets.forwarded])]
    if sockets.admin is not None:
        share = Share(Shares(1), 0)
        servers.append((ChildServer(direct, *patience, share=share, tls=arguments_of(settings)), [sockets.admin]))
    if sockets.control is not None:
        local = observed(Guard(service.behind, steward, local_user), settings, service.routes)
        servers.append((ChildServer(local, *patience), [sockets.control]))
    return servers


def _on_message(channel: Channel, workers: AskedWorkers, servers: _Servers) -> None:
    message = channel.receive()
    if message is not None:
        workers.on_message(message)
    else:  # the supervisor is gone
        asyncio.get_running_loop().remove_reader(channel.fileno())
        _stop(servers)


def _stop(servers: _Servers) -> None:
    for server, _ in servers:
        server.stop()
