"""The parent process: binds, forks the workers, replaces those that die, ends them at a signal. Serves nothing.

It is one thread and one selector, without an event loop: nothing in it could not be forked.
"""

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from service.server.control import Channel
from service.server.listening import address_of, bind
from service.server.worker import prepare, run_worker
from service.settings import Settings

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_GRACE: Final = 2.0  # seconds beyond the drain before a worker is killed
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0  # seconds before a worker that never became ready is started again

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    """One place for a worker: the process in it changes, its socket and counters stay."""

    number: int
    listener: socket.socket
    pid: int | None = None
    channel: Channel | None = None
    ready: bool = False
    failures: int = 0
    start_at: float = field(default=0.0)


class Supervisor:
    """Runs the service until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        listeners = bind(settings.host, settings.port, settings.workers)
        self._url = address_of(listeners[0])
        self._workers = [_Worker(number, listener) for number, listener in enumerate(listeners)]
        self._prepared = prepare(settings)
        self._selector = selectors.DefaultSelector()
        self._stops = 0
        self._announced = False

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT; a second one does not wait for requests in flight."""
        wakeup = self._catch_signals()
        gc.collect()
        gc.freeze()  # what is imported is never collected, so that its pages stay shared after the fork
        while not self._stops:
            self._start_due()
            self._wait(wakeup, self._next_start())
        self._stop(wakeup)

    # Starting and replacing

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.pid is None and worker.start_at <= now:
                self._start(worker)

    def _next_start(self) -> float | None:
        waiting = [worker.start_at for worker in self._workers if worker.pid is None]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _start(self, worker: _Worker) -> None:
        ours, theirs = Channel.pair()
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where a service is started without them
            stream.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become(worker, theirs)
        theirs.close()
        worker.pid, worker.channel, worker.ready = pid, ours, False
        self._selector.register(ours, selectors.EVENT_READ, worker)
        _log.debug("worker %d is process %d", worker.number, pid)

    def _become(self, worker: _Worker, channel: Channel) -> None:
        """In the child: lets go of what is the supervisor's, serves, and never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            if self._stops:  # the signal came between the fork and here, and will not come again
                return
            self._selector.close()
            for other in self._workers:
                if other.channel is not None:
                    other.channel.close()
                if other is not worker:
                    other.listener.close()
            run_worker(self._prepared, worker.number, worker.listener, channel)
            code = 0
        except BaseException:  # noqa: BLE001  (the child must not run on into the supervisor's code)
            _log.critical("worker %d fell over", worker.number, exc_info=True)
        finally:
            logging.shutdown()
            os._exit(code)

    def _on_channel(self, worker: _Worker) -> None:
        assert worker.channel is not None  # noqa: S101  (it was selected)
        message = worker.channel.receive()
        if message is None:
            self._bury(worker)
        elif message.kind == "ready":
            worker.ready, worker.failures = True, 0
            if not self._announced and all(other.ready for other in self._workers):
                self._announced = True
                _log.info("serving %s at %s with %d worker(s)", self._settings.store, self._url, len(self._workers))

    def _bury(self, worker: _Worker) -> None:
        assert worker.channel is not None  # noqa: S101
        assert worker.pid is not None  # noqa: S101
        self._selector.unregister(worker.channel)
        worker.channel.close()
        _, status = os.waitpid(worker.pid, 0)
        if not self._stops:
            delay = 0.0 if worker.ready else min(_FIRST_DELAY * 2**worker.failures, _LONGEST_DELAY)
            worker.failures += not worker.ready
            worker.start_at = time.monotonic() + delay
            code = os.waitstatus_to_exitcode(status)
            _log.warning("worker %d (process %d) ended with %d and is replaced", worker.number, worker.pid, code)
        worker.pid = worker.channel = None

    # Waiting and stopping

    def _catch_signals(self) -> socket.socket:
        wakeup, written = socket.socketpair()
        written.setblocking(False)
        wakeup.setblocking(False)
        self._written = written
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
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

    def _stop(self, wakeup: socket.socket) -> None:
        _log.info("stopping: requests in flight get %d s to finish", self._settings.drain_seconds)
        for worker in self._workers:
            worker.listener.close()
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_seconds + _GRACE
        while self._living() and self._stops == 1 and time.monotonic() < deadline:
            self._wait(wakeup, max(0.0, deadline - time.monotonic()))
        if self._living():
            self._signal_all(signal.SIGKILL)
            while self._living():
                self._wait(wakeup, None)

    def _living(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.pid is not None]

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in (worker.pid for worker in self._workers if worker.pid is not None):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def supervise(settings: Settings) -> None:
    """Runs the service with these settings until it is told to stop; raises Conflict if its address is taken."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-8s %(process)d %(message)s", force=True
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    Supervisor(settings).run()
