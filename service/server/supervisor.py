"""The parent process: binds, forks the children, replaces those that die, ends them at a signal. Serves nothing.

Its children are the workers, which answer lookups, and one steward, which changes the store. It is one thread and
one selector, without an event loop: nothing in it could not be forked.
"""

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import time
from functools import partial
from typing import Final

from service import logs
from service.metrics import Counters
from service.metrics.families import RESTARTS
from service.server.child import STOP_SIGNALS, Child
from service.server.control import Channel, Message
from service.server.listening import address_of, bind, shut
from service.server.local import Sockets
from service.server.prepared import prepare
from service.server.rpc import port_for, said_of
from service.server.steward import run_steward
from service.server.switchboard import Switchboard
from service.server.worker import run_worker
from service.settings import Settings

_GRACE: Final = 2.0  # seconds beyond the drain before a child is killed
_LAST_ARRIVALS: Final = 0.2
"""Seconds, at a stop, for clients who do not know yet that their connection was granted: a long way and back."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs the service until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        listeners = bind(settings.host, settings.port, settings.workers)
        self._rpc_port = port_for(settings)
        sockets = Sockets.bind(settings)
        self._sockets = sockets
        self._tls = settings.tls_certificate is not None
        self._url = address_of(listeners[0], tls=self._tls)
        prepared = prepare(settings, sockets.forwarded_at)
        self._shared = prepared.counters.shared
        self._counters = Counters(self._shared, self._shared.supervisor)
        self._counters.begin(RESTARTS)
        self._workers = [
            Child(f"worker-{number}", [listener], partial(run_worker, prepared, number, listener, self._rpc_port))
            for number, listener in enumerate(listeners)
        ]
        self._steward = Child("steward", sockets.all(), partial(run_steward, prepared, sockets))
        self._switchboard = Switchboard(self._kill_worker)
        self._selector = selectors.DefaultSelector()
        self._stops = 0
        self._announced = False

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT; a second one does not wait for requests in flight."""
        wakeup = self._catch_signals()
        gc.freeze()  # what is imported is never collected, so that its pages stay shared after the fork
        gc.enable()
        while not self._stops:
            self._start_due()
            self._wait(wakeup, self._next_due())
        self._stop(wakeup)

    @property
    def _children(self) -> list[Child]:
        return [*self._workers, self._steward]

    def _living(self) -> list[Child]:
        return [child for child in self._children if child.pid is not None]

    def _channels(self) -> dict[int, Channel]:
        """The channels of the workers that live, by their numbers."""
        return {number: worker.channel for number, worker in enumerate(self._workers) if worker.channel is not None}

    # Starting and replacing

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.pid is None and child.start_at <= now:
                child.start(partial(self._let_go, child))
                self._selector.register(child.channel, selectors.EVENT_READ, child)  # type: ignore[arg-type]
                if child is self._steward:
                    self._switchboard.connect(child.channel, self._channels())

    def _next_due(self) -> float | None:
        due = [child.start_at for child in self._children if child.pid is None]
        deadline = self._switchboard.next_deadline()
        if deadline is not None:
            due.append(deadline)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _let_go(self, child: Child) -> None:
        """In a child that was just forked."""
        if self._stops:  # the signal came between the fork and here, and will not come again
            os._exit(0)
        self._selector.close()
        for other in self._children:
            if other is not child:
                other.close()

    def _bury(self, child: Child) -> None:
        self._selector.unregister(child.channel)  # type: ignore[arg-type]
        child.bury(replace=not self._stops)
        if not self._stops:
            self._counters.add(RESTARTS)
        if child is self._steward:
            self._switchboard.connect(None, self._channels())
        else:
            number = self._workers.index(child)
            self._shared.gauges.clear(number)
            self._switchboard.gone(number)

    def _kill_worker(self, number: int) -> None:
        _log.error("worker %d does not answer and is killed", number)
        self._workers[number].signal(signal.SIGKILL)

    # What children say

    def _on_channel(self, child: Child) -> None:
        assert child.channel is not None  # noqa: S101  (it was selected)
        message = child.channel.receive()
        if message is None:
            self._bury(child)
        elif message.kind == "ready":
            child.now_ready()
            self._announce()
        else:
            self._pass_on(child, message)

    def _pass_on(self, child: Child, message: Message) -> None:
        if child is self._steward:
            self._switchboard.ask(message, self._channels())
        else:
            self._switchboard.answer(self._workers.index(child), message)

    def _announce(self) -> None:
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            if self._settings.backend == "onnx":
                _log.info("rows are fetched by ONNX Runtime with %s", self._settings.providers)
            if self._rpc_port is not None:
                _log.info("the Open Inference Protocol over gRPC is at %s", said_of(self._rpc_port))
            if self._sockets.admin is not None:
                _log.info("the admin API is at %s", address_of(self._sockets.admin, tls=self._tls))
            # The last one: who waits for it finds the others.
            _log.info("serving %s at %s with %d worker(s)", self._settings.store, self._url, len(self._workers))

    # Waiting and stopping

    def _catch_signals(self) -> socket.socket:
        wakeup, written = socket.socketpair()
        written.setblocking(False)
        wakeup.setblocking(False)
        self._written = written
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop_signal)
        self._selector.register(wakeup, selectors.EVENT_READ)
        return wakeup

    def _on_stop_signal(self, _number: int, _frame: object) -> None:
        self._stops += 1

    def _wait(self, wakeup: socket.socket, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is not None:
                self._on_channel(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    wakeup.recv(4096)
        self._switchboard.expire()

    def _stop(self, wakeup: socket.socket) -> None:
        _log.info("stopping: requests in flight get %d s to finish", self._settings.drain_seconds)
        self._let_nobody_in(wakeup)
        self._sockets.remove()
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_seconds + _GRACE
        self._wait_for_end(wakeup, deadline)
        if self._living():
            self._signal_all(signal.SIGKILL)
            while self._living():
                self._wait(wakeup, None)

    def _let_nobody_in(self, wakeup: socket.socket) -> None:
        """Shuts the queues of connections, has the children take what is still to come, and lets go of the sockets."""
        listeners = [listener for child in self._children for listener in child.sockets]
        for listener in listeners:
            shut(listener)
        self._wait_for_end(wakeup, time.monotonic() + _LAST_ARRIVALS)
        for listener in listeners:
            listener.close()

    def _wait_for_end(self, wakeup: socket.socket, deadline: float) -> None:
        """Until all children have ended, the deadline, or another signal to stop."""
        while self._living() and self._stops == 1 and time.monotonic() < deadline:
            self._wait(wakeup, max(0.0, deadline - time.monotonic()))

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.signal(number)


def supervise(settings: Settings) -> None:
    """Runs the service with these settings until it is told to stop; raises Conflict if its address is taken."""
    logs.configure(settings.log_level, settings.log_format)
    gc.disable()  # until all that is there is frozen: to look for garbage in it takes 0.1 s
    Supervisor(settings).run()
