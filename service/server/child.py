"""A place for a child process of the supervisor: the process in it changes, its sockets and counters stay."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from service.server.control import Channel

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LONGEST_COMM: Final = 15  # bytes
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0  # seconds before a child that never became ready is started again

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Child:
    """`run` is what the process does with its end of the channel, until it is told to stop."""

    name: str
    sockets: Sequence[socket.socket]
    run: Callable[[Channel], None]
    pid: int | None = None
    channel: Channel | None = None
    ready: bool = False
    failures: int = 0
    start_at: float = field(default=0.0)

    def start(self, let_go: Callable[[], None]) -> None:
        """Forks. `let_go` is called in the child: it closes what is the supervisor's and its other children's."""
        ours, theirs = Channel.pair()
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where a service is started without them
            stream.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become(theirs, let_go)
        theirs.close()
        self.pid, self.channel, self.ready = pid, ours, False
        _log.debug("%s is process %d", self.name, pid)

    def _become(self, channel: Channel, let_go: Callable[[], None]) -> None:
        """In the child: does its work and never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            let_go()
            with suppress(OSError):  # what `ps` and `top` show
                Path("/proc/self/comm").write_text(f"embed-{self.name}"[:_LONGEST_COMM])
            self.run(channel)
            code = 0
        except BaseException:  # noqa: BLE001  (the child must not run on into the supervisor's code)
            _log.critical("%s fell over", self.name, exc_info=True)
        finally:
            logging.shutdown()
            os._exit(code)

    def now_ready(self) -> None:
        """It has said that it is."""
        self.ready, self.failures = True, 0

    def bury(self, *, replace: bool) -> None:
        """After the end of its channel: waits for the process, and says when the next one may start."""
        assert self.channel is not None  # noqa: S101  (its end was seen)
        assert self.pid is not None  # noqa: S101
        self.channel.close()
        _, status = os.waitpid(self.pid, 0)
        if replace:
            delay = 0.0 if self.ready else min(_FIRST_DELAY * 2**self.failures, _LONGEST_DELAY)
            self.failures += not self.ready
            self.start_at = time.monotonic() + delay
            code = os.waitstatus_to_exitcode(status)
            _log.warning("%s (process %d) ended with %d and is replaced", self.name, self.pid, code)
        self.pid = self.channel = None
        self.ready = False

    def signal(self, number: signal.Signals) -> None:
        """Signals the process, if there is one."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Lets go of its sockets and of its channel."""
        for held in self.sockets:
            held.close()
        if self.channel is not None:
            self.channel.close()
