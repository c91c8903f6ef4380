"""What the process that swaps tells those that look up: before an activation, and when it has returned.

With one process there is one of each. With many, the messages are locust's; every process that looks up confirms
what it was told, and the activation waits for that.
"""

from typing import Any, Final, Protocol

import gevent
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from load_tests.locust_users.traffic import TRAFFIC

_BEGINS: Final = "swap-begins"
_RETURNED: Final = "swap-returned"
_REST: Final = "swap-rest"
_HEARD: Final = "swap-heard"
_PATIENCE: Final = 10.0  # seconds; a process that does not confirm by then has died, or will be counted as missing
_POLL: Final = 0.002


class _Message(Protocol):
    data: Any
    node_id: str


class Listener:
    """In a process that looks up: does what it is told, and confirms it."""

    def __init__(self, runner: LocalRunner | WorkerRunner) -> None:
        self._runner = runner
        runner.register_message(_BEGINS, self._begins)
        runner.register_message(_RETURNED, self._returned)
        runner.register_message(_REST, self._rest, concurrent=True)

    def _begins(self, environment: Environment, msg: _Message) -> None:
        if environment in TRAFFIC:
            TRAFFIC[environment].checker.in_force.begins(msg.data["before"], msg.data["version"])
        self._confirm(msg)

    def _returned(self, environment: Environment, msg: _Message) -> None:
        if environment in TRAFFIC:
            TRAFFIC[environment].checker.in_force.returned(msg.data["version"])
        self._confirm(msg)

    def _rest(self, environment: Environment, msg: _Message) -> None:
        """Ends all users between two requests."""
        if environment in TRAFFIC:
            traffic = TRAFFIC[environment]
            traffic.resting = True
            while traffic.in_flight:
                gevent.sleep(_POLL)
        self._confirm(msg)

    def _confirm(self, msg: _Message) -> None:
        self._runner.send_message(_HEARD, {"number": msg.data["number"]})


class Announcer:
    """In the process that swaps: tells all others, and waits until they have confirmed."""

    def __init__(self, runner: LocalRunner | MasterRunner) -> None:
        self._runner = runner
        self._number = 0
        self._heard: set[str] = set()
        runner.register_message(_HEARD, self._on_heard)

    def begins(self, before: int, version: int) -> None:
        """An activation is about to be asked for."""
        self._tell(_BEGINS, {"before": before, "version": version})

    def returned(self, version: int) -> None:
        """It has returned."""
        self._tell(_RETURNED, {"version": version})

    def rest(self) -> None:
        """Nobody asks any more when this returns. Alone, locust itself has ended its users by then."""
        if isinstance(self._runner, MasterRunner):
            self._tell(_REST, {})

    def _tell(self, kind: str, data: dict[str, int]) -> None:
        self._number += 1
        self._heard = set()
        self._runner.send_message(kind, {**data, "number": self._number})
        with gevent.Timeout(_PATIENCE, False):
            while not self._others() <= self._heard:
                gevent.sleep(_POLL)

    def _others(self) -> set[str]:
        if isinstance(self._runner, LocalRunner):
            return set()  # whoever is told in the same process has done it when telling returns
        clients = self._runner.clients
        return {client.id for client in (*clients.ready, *clients.spawning, *clients.running)}

    def _on_heard(self, environment: Environment, msg: _Message) -> None:  # noqa: ARG002
        if msg.data["number"] == self._number:
            self._heard.add(msg.node_id)
