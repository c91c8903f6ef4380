"""Who makes a change: the live server of the store, with its barrier over all workers, or this process alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import httpx

from service import controlsocket
from service.cli.common import user
from service.errors import Conflict, DamagedVersion, ServiceError, Unreachable
from service.store import Pruned, Switch, TableStore
from service.types import TableVersion

_NO_ANSWER_SECONDS: Final = 5.0  # to connect; an activation may take as long as the server's workers are given


@dataclass(frozen=True, slots=True)
class Done:
    """What an activation did; `workers` serve it, None where no server does."""

    switches: tuple[Switch, ...]
    workers: int | None = None
    seconds: float | None = None


class Changes(Protocol):
    """The verbs that change a store. Errors are those of the store, whoever it is that changes it."""

    def activate(self, targets: Mapping[str, int]) -> Done:
        """Verifies versions and puts them in force: all or none."""

    def activate_new(self, version: TableVersion, verb: str) -> Done:
        """Puts in force what this process has just published, and so verified; `verb` is what it was told to do."""

    def rollback(self, table: str) -> Done:
        """Activates the version that was active before."""

    def set_label(self, table: str, label: str, version: int) -> None:
        """Has a label name a version."""

    def delete_label(self, table: str, label: str) -> None:
        """Forgets a label."""

    def delete_version(self, table: str, version: int) -> None:
        """Removes a version."""

    def prune(self, table: str, keep: int, older_than: timedelta) -> Pruned:
        """Removes versions by count and age."""

    def workers(self, table: str) -> list[dict[str, Any]]:
        """What every worker of the live server serves of a table."""

    def all_workers(self) -> dict[str, list[dict[str, Any]]] | None:
        """The same for all tables; None where there is no live server."""


@contextmanager
def changing(store: TableStore) -> Iterator[Changes]:
    """Through the live server of this store if there is one on this host; else on the store, in its locks.

    Raises Conflict for a server of another user.
    """
    try:
        with controlsocket.live(store.root) as socket:
            if socket is None:
                yield _OnStore(store)
                return
            with _client(socket) as client:
                yield _ThroughServer(client)
    except PermissionError as error:
        if isinstance(error, ServiceError) or error.filename is not None:
            raise
        raise Conflict(f"a server of another user serves {store.root}; use its admin API") from None


def _client(socket: Path) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket), verify=False),
        base_url="http://server/v1/admin",
        headers={controlsocket.ACTOR: user().encode("utf-8", "replace")},
        timeout=httpx.Timeout(None, connect=_NO_ANSWER_SECONDS),
    )


@dataclass(frozen=True, slots=True)
class _OnStore:
    store: TableStore

    def activate(self, targets: Mapping[str, int]) -> Done:
        for table, version in targets.items():
            self.store.verify(TableVersion(table, version))
        return Done(tuple(self.store.switch(targets, f"activate by {user()}")))

    def activate_new(self, version: TableVersion, verb: str) -> Done:
        return Done(tuple(self.store.switch({version.name: version.version}, f"{verb} by {user()}")))

    def rollback(self, table: str) -> Done:
        return Done((self.store.rollback(table, f"rollback by {user()}"),))

    def set_label(self, table: str, label: str, version: int) -> None:
        self.store.set_label(table, label, version)

    def delete_label(self, table: str, label: str) -> None:
        self.store.delete_label(table, label)

    def delete_version(self, table: str, version: int) -> None:
        self.store.delete_version(table, version, f"delete by {user()}")

    def prune(self, table: str, keep: int, older_than: timedelta) -> Pruned:
        return self.store.prune(table, keep, older_than, f"prune by {user()}")

    def workers(self, table: str) -> list[dict[str, Any]]:  # noqa: ARG002  (nobody serves any table)
        return []

    def all_workers(self) -> dict[str, list[dict[str, Any]]] | None:
        return None


@dataclass(frozen=True, slots=True)
class _ThroughServer:
    client: httpx.Client

    def activate(self, targets: Mapping[str, int]) -> Done:
        answer = self._ask("POST", "/activate", {"tables": dict(targets)})
        return Done(tuple(_switch(table) for table in answer["tables"]), answer["workers"], answer["seconds"])

    def activate_new(self, version: TableVersion, verb: str) -> Done:  # noqa: ARG002  (the server has its own words)
        return self.activate({version.name: version.version})

    def rollback(self, table: str) -> Done:
        answer = self._ask("POST", f"{_of(table)}/rollback")
        return Done((_switch(answer),), answer["workers"], answer["seconds"])

    def set_label(self, table: str, label: str, version: int) -> None:
        self._ask("PUT", f"{_of(table)}/labels/{quote(label, safe='')}", {"version": version})

    def delete_label(self, table: str, label: str) -> None:
        self._ask("DELETE", f"{_of(table)}/labels/{quote(label, safe='')}")

    def delete_version(self, table: str, version: int) -> None:
        self._ask("DELETE", f"{_of(table)}/versions/{version}")

    def prune(self, table: str, keep: int, older_than: timedelta) -> Pruned:
        wanted = {"keep": keep, "older_than_days": older_than / timedelta(days=1)}
        answer = self._ask("POST", f"{_of(table)}/prune", wanted)
        return Pruned(tuple(TableVersion(table, version) for version in answer["removed"]), tuple(answer["unfinished"]))

    def workers(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", _of(table))["workers"]
        return found

    def all_workers(self) -> dict[str, list[dict[str, Any]]] | None:
        return {line["table"]: line["workers"] for line in self._ask("GET", "/tables")["tables"]}

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        try:
            answer = self.client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise Unreachable(f"the live server has not answered ({error}); what it did is not known") from error
        if answer.is_error:
            raise _refusal(answer.json())
        return answer.json() if answer.content else None


class Refused(ServiceError):
    """The live server's answer; `code` is the one that it gave."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # each of its own


def _refusal(problem: Mapping[str, Any]) -> ServiceError:
    if problem["code"] == "conflict" and "version" in problem:
        return DamagedVersion(TableVersion(problem["table"], problem["version"]), problem["reason"])
    return Refused(problem["code"], problem["detail"])


def _of(table: str) -> str:
    return f"/tables/{quote(table, safe='')}"


def _switch(said: Mapping[str, Any]) -> Switch:
    return Switch(said["table"], said["previous_version"], said["active_version"])
