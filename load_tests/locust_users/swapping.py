"""Swaps while users look up: one greenlet in one process, the master or the only one."""

import logging
import time
from collections.abc import Callable
from typing import Final, Literal

import gevent
from gevent.event import Event
from locust.env import Environment

from load_tests.locust_users.admin import Admin, AdminFailed
from load_tests.locust_users.announcing import Announcer
from load_tests.locust_users.options import Options
from load_tests.locust_users.swap_table import SwapTable

SWAP: Final = "SWAP"
"""The type of their entries in the statistics."""
_Verb = Literal["activate", "rollback", "put back"]
_log = logging.getLogger(__name__)


class Swapper:
    """Swaps two versions to and fro, by activation and by rollback, until it is ended."""

    def __init__(
        self, environment: Environment, announcer: Announcer, admin: Admin, table: SwapTable, options: Options
    ) -> None:
        self._environment = environment
        self._announcer = announcer
        self._admin = admin
        self._table = table
        self._every = options.swap_every
        self._current = table.versions[0]
        self._certain = False
        """Whether the version before the last swap is what a rollback would activate."""
        self._ended = Event()
        self._greenlet = gevent.spawn(self._run)

    def end(self) -> None:
        """Waits for a swap under way; nobody looks up any more; then puts back what was there before."""
        self._ended.set()
        self._greenlet.join()
        self._announcer.rest()
        self._timed("put back", lambda: self._table.put_back(self._admin))
        self._admin.close()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._swap()

    def _swap(self) -> None:
        before = self._current
        version = next(each for each in self._table.versions if each != before)
        verb: _Verb = "rollback" if self._certain and before == self._table.versions[1] else "activate"
        self._announcer.begins(before, version)
        self._certain = self._timed(verb, lambda: self._switch(verb, before, version))
        if self._certain:
            self._current = version
            self._announcer.returned(version)

    def _switch(self, verb: _Verb, before: int, version: int) -> None:
        name = self._table.name
        done = self._admin.rollback(name) if verb == "rollback" else self._admin.activate(name, version)
        if done != (before, version):
            raise AdminFailed(f"{verb} from {before} to {version} was one from {done[0]} to {done[1]}")

    def _timed(self, verb: _Verb, change: Callable[[], None]) -> bool:
        """Makes a change and counts it in the statistics; whether it was made."""
        started = time.perf_counter()
        failure: AdminFailed | None = None
        try:
            change()
        except AdminFailed as error:
            _log.error("%s of table %s: %s", verb, self._table.name, error)
            failure = error
        self._environment.events.request.fire(
            request_type=SWAP,
            name=verb,
            response_time=1e3 * (time.perf_counter() - started),
            response_length=0,
            exception=failure,
            context={},
        )
        return failure is None
