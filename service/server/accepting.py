"""Workers take connections in turns from one queue, so that each has as many as the others.

All of them wait at the same listening socket, and each tells in shared memory how many connections it has open. It
accepts while no other has fewer, and else leaves what waits to those. It looks again a moment later: what nobody has
taken by then waits for a worker that is busy, stopped or dead, and is taken out of turn.
"""

import asyncio
import logging
import mmap
import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

_COLUMNS: Final = 3  # of an int64 for each worker: connections open, connections ever taken, whether it takes part
_LEAD: Final = 32
"""A worker may have one connection more than another for each so many that it has: many at once are taken faster."""
_GLANCES: Final = 16
"""How often a worker looks again at once, since the others may just be waking, and resting costs as much as this."""
_REST: Final = 0.001  # seconds; the shortest that uvloop's timers know
_PATIENCE: Final = 0.05  # seconds that the queue may stand still before a worker takes from it out of turn
_RETURN: Final = 0.1  # seconds after which a worker that others have passed over takes part again, if it lives
_RECOVERY: Final = 1.0  # seconds without accepting where the system has no room for another connection
_MOST_AT_END: Final = 2048

_log = logging.getLogger(__name__)


class Shares:
    """How many connections each of `workers` processes has open; made before they are forked.

    Each writes its own figures only, without a lock. Any may write that another does not take part.
    """

    def __init__(self, workers: int) -> None:
        memory = memoryview(mmap.mmap(-1, workers * _COLUMNS * 8)).cast("q")
        self.open = memory[:workers]
        self.taken = memory[workers : 2 * workers]
        self.present = memory[2 * workers :]


class Share:
    """What one worker knows of its share of the connections. Not for use from several threads."""

    def __init__(self, shares: Shares, number: int) -> None:
        self._shares = shares
        self._number = number
        self._others = [other for other in range(len(shares.open)) if other != number]

    @property
    def open(self) -> int:
        """Connections that this worker has."""
        return self._shares.open[self._number]

    def begin(self) -> None:
        """Forgets the connections of the process that had this number before."""
        self._shares.open[self._number] = 0
        self.come()

    def come(self) -> None:
        """Takes part: the others leave connections to this worker."""
        self._shares.present[self._number] = 1

    def leave(self) -> None:
        """Takes no part: the others do not wait for this worker."""
        self._shares.present[self._number] = 0

    def took(self) -> None:
        """Counts a connection that was opened."""
        self._shares.open[self._number] += 1
        self._shares.taken[self._number] += 1

    def lost(self) -> None:
        """Counts a connection that has ended."""
        self._shares.open[self._number] -= 1

    def first(self) -> list[int]:
        """The workers whose turn comes before that of this one; none if it is its turn."""
        opened, present = self._shares.open, self._shares.present
        mine = opened[self._number]
        enough = mine - mine // _LEAD
        return [other for other in self._others if opened[other] < enough and present[other]]

    def pass_over(self, others: Sequence[int]) -> None:
        """Has everybody go on without these, until they come again."""
        for other in others:
            self._shares.present[other] = 0

    def taken_by_all(self) -> int:
        """Connections that all workers ever took: this grows as the queue moves."""
        return sum(self._shares.taken)


class OpenConnections(set[Any]):
    """uvicorn's set of open connections, telling when one has ended."""

    def __init__(self, lost: Callable[[], None]) -> None:
        super().__init__()
        self._lost = lost

    def discard(self, connection: object) -> None:
        """Takes out a connection that has ended."""
        if connection in self:
            super().discard(connection)
            self._lost()


class Acceptor:
    """Takes this worker's share of the connections that wait at a listening socket, which all workers have.

    It begins at once; errors of the system are logged, and it tries again later. `tls` are the loop's arguments for
    connections that are encrypted.
    """

    def __init__(
        self,
        listener: socket.socket,
        share: Share,
        protocol: Callable[[], asyncio.Protocol],
        tls: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._share = share
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._fails = False
        self._rests = False
        """Whether the system had no room for another connection a moment ago."""
        self._taken = -1
        """How many connections all had taken when this worker last saw the queue move."""
        self._since = 0.0
        self._glances = 0
        self._share.begin()
        self._returning = self._loop.call_later(_RETURN, self._return)
        self._wait()

    def close(self) -> None:
        """Takes what waits, since nobody else may be there for it, and then no more."""
        if self._listener.fileno() == -1:
            return
        for _ in range(_MOST_AT_END):
            if not self._accept():
                break
        self._stop_waiting()
        self._returning.cancel()
        self._share.leave()
        self._listener.close()

    def _wait(self) -> None:
        self._rests = False
        self._share.come()
        self._loop.add_reader(self._listener, self._look)

    def _return(self) -> None:
        """Others may have passed this worker over, and take everything: it would never look, and not come again."""
        if not self._rests:
            self._share.come()
        self._returning = self._loop.call_later(_RETURN, self._return)

    def _wait_later(self, seconds: float) -> None:
        """Takes the reader away meanwhile: as long as connections wait, it would be called without a pause."""
        self._stop_waiting()
        self._later = self._loop.call_later(seconds, self._wait)

    def _stop_waiting(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._later is not None:
            self._later.cancel()

    def _look(self) -> None:
        """Called again and again as long as connections wait."""
        self._share.come()
        first = self._share.first()
        if first:
            self._leave_to(first)
        while not first and self._accept():
            first = self._share.first()

    def _leave_to(self, first: Sequence[int]) -> None:
        """Leaves a connection to those whose turn it is, but not for ever."""
        taken, now = self._share.taken_by_all(), self._loop.time()
        if self._taken != taken:
            self._taken, self._since, self._glances = taken, now, 0
        self._glances += 1
        if self._glances <= _GLANCES:
            os.sched_yield()
        elif now - self._since < _PATIENCE:
            self._wait_later(_REST)
        elif self._accept():
            self._share.pass_over(first)

    def _accept(self) -> bool:
        """Takes one connection; false for none."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._recover(error)
            return False
        self._fails = False
        self._begin(connection)
        return True

    def _recover(self, error: OSError) -> None:
        if not self._fails:
            _log.error("no connection can be taken: %s", error.strerror)
        self._fails = self._rests = True
        self._share.leave()
        self._wait_later(_RECOVERY)

    def _begin(self, connection: socket.socket) -> None:
        """Has uvloop go on as with connections that it has accepted itself; it sets TCP_NODELAY for these, too."""
        self._share.took()
        beginning = self._loop.connect_accepted_socket(self._protocol, connection, **self._tls)
        # It waits once, for its protocol to be called. A task for it would cost 20 us.
        waiter: asyncio.Future[None] = beginning.send(None)
        waiter.add_done_callback(partial(_go_on, beginning, self._share))


def _go_on(beginning: Coroutine[Any, Any, object], share: Share, _: asyncio.Future[None]) -> None:
    try:
        beginning.send(None)
    except StopIteration:
        pass
    except (OSError, asyncio.CancelledError):  # the client does not speak TLS, or has gone before it did
        share.lost()
