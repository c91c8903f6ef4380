"""One worker process: its registry, its watcher, its uvicorn. Forked from the supervisor, after all imports."""

import asyncio
import contextlib
import signal
import socket
import sys
from typing import Final

import uvloop

from service.server.accepting import Share
from service.server.allocator import keep_freed_memory
from service.server.control import Channel, Message
from service.server.listening import shut
from service.server.participant import Participant
from service.server.prepared import Prepared
from service.server.rpc import Rpc
from service.server.serving import ChildServer
from service.server.tls import arguments_of
from service.server.traces import traces
from service.server.wire import Wire

_PATIENCE: Final = 5.0
"""Seconds that connections wait in the socket's queue for the tables to be loaded: a replaced worker answers
none of them "not ready", and with tables that take longer its health can still be asked."""
_TURN: Final = 0.0005
"""Seconds after which a thread that opens a version hands the interpreter lock to the event loop (default: 0.005)."""


def run_worker(
    prepared: Prepared, number: int, listener: socket.socket, rpc_port: socket.socket | None, channel: Channel
) -> None:
    """Serves until SIGTERM, or until the supervisor is gone."""
    prepared.counters.move_to(number)
    sys.setswitchinterval(_TURN)
    keep_freed_memory()
    # Ctrl-C reaches the whole process group; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with traces(prepared.settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rpc = Rpc(prepared.settings, prepared.service, rpc_port)
        runner.run(_serve(prepared, number, listener, rpc, channel))


async def _serve(prepared: Prepared, number: int, listener: socket.socket, rpc: Rpc, channel: Channel) -> None:
    settings, gauges = prepared.settings, prepared.service.gauges

    def put_gauges(connections: int) -> None:
        gauges.connections = connections
        gauges.put()

    def started() -> None:
        gauges.put()
        channel.send(Message("ready"))

    server = ChildServer(
        prepared.service.front,
        settings.drain_seconds,
        settings.client_seconds,
        on_started=started,
        on_tick=put_gauges,
        on_stop=rpc.stop,
        tls=arguments_of(settings),
        protocol=Wire,
        share=Share(prepared.shares, number),
    )
    participant = Participant(prepared.watcher, number, channel, give_up=lambda: signal.raise_signal(signal.SIGKILL))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_reader(channel.fileno(), _on_message, channel, participant, server, listener)
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


def _on_message(channel: Channel, participant: Participant, server: ChildServer, listener: socket.socket) -> None:
    message = channel.receive()
    if message is not None:
        participant.on_message(message)
    else:  # the supervisor is gone: nobody would ever stop this worker
        asyncio.get_running_loop().remove_reader(channel.fileno())
        shut(listener)
        server.stop()
