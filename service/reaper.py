"""Gives back what tables held, once nothing refers to them any more: on a thread of its own, never on an event loop.

The last reference to a replaced table is dropped wherever its last request ends, which is the event loop.
"""

import threading
import weakref
from queue import SimpleQueue
from typing import Protocol


class Releasable(Protocol):
    """Something that takes long to let go of."""

    def release(self) -> None:
        """Lets go, in small steps. Called once, when nobody uses it any more."""


class Reaper:
    """Watches objects; its thread starts with the first, so that a process may be forked before."""

    def __init__(self) -> None:
        # Reentrant: a put may come from a destructor that runs within another put.
        self._dropped: SimpleQueue[tuple[Releasable, ...]] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, owner: object, *held: Releasable) -> None:
        """Releases `held` soon after the last reference to `owner`, which takes weak references, is gone."""
        self._start()
        weakref.finalize(owner, self._dropped.put, held).atexit = False

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=_release_all, args=(self._dropped,), name="reaper", daemon=True)
                self._thread.start()


def _release_all(dropped: "SimpleQueue[tuple[Releasable, ...]]") -> None:
    while True:
        for part in dropped.get():
            part.release()
        part = None  # type: ignore[assignment]  # or the last one would stay until the next comes
