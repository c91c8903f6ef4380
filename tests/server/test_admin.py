"""The admin API through real workers and the steward: all workers or none, whoever is late, stopped or killed."""

import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

WORDS: Final = "/v1/admin/tables/words"
SETTINGS: Final = {"ADMIN_TOKEN": "secret", "ADMIN_TOKENS": '{"ann": "of-ann"}'}
# A poll so rare that only the barrier can have made workers change.
OPTIONS: Final = ("--workers", "2", "--poll-seconds", "600", "--delete-grace-seconds", "0")


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` has the versions 1 (active), 2 and 3, `item` 1 (active) and 2; version n is n times the rows."""
    store = TableStore(tmp_path / "store")
    for version in (1, 2, 3):
        publish(store, "words", KERAS_ROWS * version, KERAS_TOKENS, activate=version == 1)
    for version in (1, 2):
        publish(store, "item", KERAS_ROWS * version, activate=version == 1)
    return store


@contextmanager
def administrated(store: TableStore, *options: str) -> Iterator[tuple[Running, httpx.Client]]:
    with running(store.root, *OPTIONS, *options, settings=SETTINGS) as server, admin_of(server.url) as admin:
        yield server, admin


def admin_of(url: str, token: str = "secret") -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)


def ok(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    content: dict[str, Any] = answer.json()
    return content


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def served(server: Running, table: str = "words", connections: int = 32) -> Counter[str]:
    """The versions that lookups get over so many fresh connections, which spread over all workers."""
    url = f"{server.url}/v1/tables/{table}/lookup"
    with fresh() as client:
        answers = [client.post(url, json={"ids": [0]}) for _ in range(connections)]
    return Counter(answer.headers["embedding-version"] for answer in answers)


def fresh() -> httpx.Client:
    """A client that keeps no connection."""
    return httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


def states(admin: httpx.Client, table: str = "words") -> list[tuple[int, int | None, str, int | None]]:
    workers = ok(admin.get(f"/v1/admin/tables/{table}"))["workers"]
    return [(state["worker"], state["process"], state["state"], state["version"]) for state in workers]


def test_every_verb_goes_through_every_worker(store: TableStore) -> None:
    with administrated(store) as (server, admin):
        first, second = server.workers()
        assert states(admin) == [(0, first, "READY", 1), (1, second, "READY", 1)]
        content = ok(admin.post(f"{WORDS}/activate", json={"version": 2}))
        assert 0 < content.pop("seconds") < 10
        assert content == {"table": "words", "previous_version": 1, "active_version": 2, "workers": 2}
        assert served(server) == {"2": 32}
        assert states(admin) == [(0, first, "READY", 2), (1, second, "READY", 2)]
        assert ok(admin.post(f"{WORDS}/rollback"))["active_version"] == 1
        assert served(server) == {"1": 32}
        both = ok(admin.post("/v1/admin/activate", json={"tables": {"words": 3, "item": 2}}))
        assert [table["active_version"] for table in both["tables"]] == [3, 2]
        assert (served(server), served(server, "item")) == ({"3": 32}, {"2": 32})
        assert ok(admin.put(f"{WORDS}/labels/stable", json={"version": 2}))["version"] == 2
        assert problem(admin.delete(f"{WORDS}/versions/2")) == (409, "conflict")
        assert admin.delete(f"{WORDS}/labels/stable").status_code == 204
        assert admin.delete(f"{WORDS}/versions/2").status_code == 204
        assert ok(admin.post(f"{WORDS}/prune", json={"keep": 0}))["removed"] == []
        lines = {line["table"]: line for line in ok(admin.get("/v1/admin/tables"))["tables"]}
        assert (lines["words"]["versions"], lines["words"]["active_version"]) == ([1, 3], 3)
        assert [worker["version"] for worker in lines["item"]["workers"]] == [2, 2]
        assert server.stop() == 0


def test_after_the_answer_no_connection_gets_the_old_version(store: TableStore) -> None:
    with administrated(store) as (server, admin):
        for version in (2, 3, 1, 3, 2):
            ok(admin.post(f"{WORDS}/activate", json={"version": version}))
            assert served(server, connections=64) == {str(version): 64}


def test_errors_come_through_as_they_are(store: TableStore) -> None:
    with administrated(store) as (server, admin):
        assert problem(admin.get("/v1/admin/tables/nope")) == (404, "table_not_found")
        assert problem(admin.get("/v1/admin/nope")) == (404, "not_found")
        assert problem(admin.post(f"{WORDS}/activate", json={"version": 9})) == (404, "version_not_found")
        assert problem(admin.post(f"{WORDS}/activate", content=b"{")) == (400, "invalid_json")
        assert problem(admin.post(f"{WORDS}/activate?force=1", json={"version": 2})) == (422, "invalid_request")
        wrong = admin.patch(f"{WORDS}/labels/stable")
        assert (problem(wrong), wrong.headers["allow"]) == ((405, "method_not_allowed"), "PUT, DELETE")
        for headers in ({"authorization": "Bearer x"}, {"authorization": ""}):
            answer = admin.get("/v1/admin/tables", headers=headers)
            assert problem(answer) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert served(server) == {"1": 32}


@pytest.mark.parametrize(
    "target",
    [b"/v1/admin/tables/a%20b", b"/v1/admin/tables/%ff", b'/v1/admin/tables/"<>^`{|}', b"/v1/admin/tables/%",
     b"/v1/admin//", b"/v1/admin/tables?" + b"x" * 60_000, b"/v1/admin/tables?" + b"x" * 70_000,
     b"/v1/admin/tables?%ff=\xc3\xa4", b"/v1/admin/tables/\xc3\xa4",
     b"/v1/admin/../../x", b"/v1/admin/tables/a#b", b"/v1/admin/tables/[x]", b"/v1/admin/tables/a:b@c"],
)  # fmt: skip
def test_no_address_is_an_internal_error(shared: Running, target: bytes) -> None:
    url = httpx.URL(shared.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: close\r\n\r\n"
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.match(rb"HTTP/1.1 4\d\d ", answer), answer[:300]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("shared")
    publish(TableStore(root), "words", KERAS_ROWS)
    with running(root, *OPTIONS, settings=SETTINGS) as server:
        yield server


@pytest.mark.parametrize("path", [f"{WORDS}/versions", f"{WORDS}/activate"])
def test_a_wrong_token_is_refused_before_the_body_is_there(shared: Running, path: str) -> None:
    url = httpx.URL(shared.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_without_a_token_the_api_says_how_to_get_one(store: TableStore) -> None:
    with running(store.root, *OPTIONS) as server, admin_of(server.url) as admin:
        answer = admin.get("/v1/admin/tables")
        assert problem(answer) == (403, "forbidden")
        assert "EMBEDDING_ADMIN_TOKEN" in answer.json()["detail"]


def test_who_changed_what_is_in_the_log_and_in_the_history(store: TableStore) -> None:
    with administrated(store) as (server, _), admin_of(server.url, "of-ann") as ann:
        ok(ann.post(f"{WORDS}/activate", json={"version": 2}))
        assert ok(ann.get(WORDS))["history"][-1]["by"] == "activate by ann"
        line = "audit: by=ann change=activate table=words from=1 to=2 request="
        assert [found for found in server.log.read_text().splitlines() if line in found]
        assert "of-ann" not in server.log.read_text()


# Workers that do not answer, or die


def test_a_worker_that_cannot_prepare_in_time_changes_nothing_anywhere(store: TableStore) -> None:
    with administrated(store, "--prepare-seconds", "1", "--admin-port", "0") as (server, _), own_port(server) as admin:
        stopped = server.workers()[1]
        os.kill(stopped, signal.SIGSTOP)
        answer = admin.post(f"{WORDS}/activate", json={"version": 2})
        assert (problem(answer), answer.json()["workers"]) == ((504, "timeout"), [1])
        assert store.active_version("words") == 1
        assert [(worker, version) for worker, _, _, version in states(admin)] == [(0, 1), (1, None)]
        os.kill(stopped, signal.SIGCONT)
        assert served(server) == {"1": 32}
        until(lambda: [version for _, _, _, version in states(admin)] == [1, 1])
        assert ok(admin.post(f"{WORDS}/activate", json={"version": 2}))["workers"] == 2
        assert served(server) == {"2": 32}
        assert server.workers()[1] == stopped


def test_a_late_answer_does_not_put_an_abandoned_version_in_force(store: TableStore) -> None:
    with administrated(store, "--prepare-seconds", "1", "--admin-port", "0") as (server, _), own_port(server) as admin:
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        tables = {"words": 3, "item": 2}
        assert problem(admin.post("/v1/admin/activate", json={"tables": tables})) == (504, "timeout")
        os.kill(stopped, signal.SIGCONT)
        assert ok(admin.post(f"{WORDS}/activate", json={"version": 2}))["workers"] == 2
        assert (served(server), served(server, "item")) == ({"2": 32}, {"1": 32})


@contextmanager
def own_port(server: Running) -> Iterator[httpx.Client]:
    """A client of the admin API's own port, which no worker's fate can disturb."""
    found = until(lambda: re.search(r"the admin API is at (http://\S+)", server.log.read_text()))
    with admin_of(found.group(1)) as admin:
        yield admin


def test_a_worker_killed_while_versions_change_comes_back_on_the_committed_one(store: TableStore) -> None:
    with administrated(store, "--admin-port", "0") as (server, _), own_port(server) as admin:
        for kill in range(8):
            version = kill % 3 + 1
            victim = server.workers()[kill % 2]
            killing = threading.Timer(kill * 0.001, os.kill, (victim, signal.SIGKILL))
            killing.start()
            content = ok(admin.post(f"{WORDS}/activate", json={"version": version}))
            assert (content["active_version"], store.active_version("words")) == (version, version)
            assert content["workers"] in (1, 2)
            killing.join()
            until(lambda victim=victim: len(set(server.workers()) - {victim}) == 2)  # type: ignore[misc]
            assert served(server, connections=16) == {str(version): 16}
        until(lambda version=version: [state[2:] for state in states(admin)] == [("READY", version)] * 2)  # type: ignore[misc]


def test_all_workers_killed_come_back_on_the_committed_version(store: TableStore) -> None:
    with administrated(store) as (server, admin):
        ok(admin.post(f"{WORDS}/activate", json={"version": 3}))
        before = server.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert served(server) == {"3": 32}
        assert not set(before) & set(server.workers())


# The steward


def test_a_killed_steward_is_replaced_and_the_api_goes_on(store: TableStore) -> None:
    with administrated(store) as (server, admin):
        for version in (2, 3, 1):
            ok(admin.get(WORDS))  # a connection of a worker to the steward, which will be dead
            old = server.steward()
            os.kill(old, signal.SIGKILL)
            until(lambda old=old: not Path(f"/proc/{old}").exists())  # type: ignore[misc]
            ok(admin.get("/v1/admin/tables"))
            assert ok(admin.post(f"{WORDS}/activate", json={"version": version}))["workers"] == 2
            assert served(server) == {str(version): 32}
            assert server.steward() != old


def test_a_steward_killed_in_the_middle_leaves_what_is_in_force(store: TableStore) -> None:
    with administrated(store, "--admin-port", "0") as (server, _), own_port(server) as admin:
        stopped, other = server.workers()
        os.kill(stopped, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(try_to_activate, admin, 2)
            until(lambda: "/words/2/" in Path(f"/proc/{other}/maps").read_text())  # it is prepared there
            os.kill(server.steward(), signal.SIGKILL)
            assert asked.result() is None
        os.kill(stopped, signal.SIGCONT)
        assert (store.active_version("words"), served(server)) == (1, {"1": 32})
        assert try_to_activate(admin, 3) == 200
        assert served(server) == {"3": 32}


def try_to_activate(admin: httpx.Client, version: int) -> int | None:
    try:
        return admin.post(f"{WORDS}/activate", json={"version": version}).status_code
    except httpx.TransportError:
        return None


# Several at once


def test_two_activations_at_once_are_both_answered_truthfully(store: TableStore) -> None:
    with administrated(store) as (server, admin), admin_of(server.url) as other, ThreadPoolExecutor(2) as pool:
        active = 1
        for _ in range(10):
            pair = [2, 3] if active == 1 else [1, 2] if active == 3 else [3, 1]
            asked = [
                pool.submit(client.post, f"{WORDS}/activate", json={"version": version})
                for client, version in zip((admin, other), pair, strict=True)
            ]
            answers = {ok(future.result())["active_version"]: ok(future.result()) for future in asked}
            assert {answer["workers"] for answer in answers.values()} == {2}
            first = next(answer for answer in answers.values() if answer["previous_version"] == active)
            last = next(answer for answer in answers.values() if answer["previous_version"] == first["active_version"])
            active = last["active_version"]
            assert served(server, connections=16) == {str(active): 16}
            history = ok(admin.get(WORDS))["history"][-2:]
            assert [event["version"] for event in history] == [first["active_version"], active]


def test_changes_of_all_kinds_at_once_leave_a_store_that_all_agree_on(store: TableStore) -> None:
    with administrated(store) as (server, admin), ThreadPoolExecutor(8) as pool:
        jobs: list[tuple[str, str, object]]
        jobs = [("POST", f"{WORDS}/activate", {"version": n % 3 + 1}) for n in range(12)]
        jobs += [("POST", "/v1/admin/activate", {"tables": {"words": n % 3 + 1, "item": n % 2 + 1}}) for n in range(12)]
        jobs += [("PUT", f"{WORDS}/labels/stable", {"version": n % 3 + 1}) for n in range(6)]
        jobs += [("POST", f"{WORDS}/rollback", {}) for _ in range(6)]
        answers = list(pool.map(lambda job: admin.request(job[0], job[1], json=job[2]).status_code, jobs))
        assert set(answers) <= {200, 409}
        assert served(server) == {str(store.active_version("words")): 32}
        assert served(server, "item") == {str(store.active_version("item")): 32}


# A port of its own


def test_the_admin_port_is_named_in_the_log_and_serves_nothing_else(store: TableStore) -> None:
    with administrated(store, "--admin-port", "0") as (server, public), own_port(server) as admin:
        assert str(admin.base_url) != server.url
        ok(admin.post(f"{WORDS}/activate", json={"version": 2}))
        assert served(server) == {"2": 32}
        for method, path in (("GET", "/v1/admin/tables"), ("POST", f"{WORDS}/activate"), ("GET", "/v1/admin/x")):
            assert problem(public.request(method, path)) == (404, "not_found")
        for method, path in (
            ("POST", "/v1/tables/words/lookup"), ("POST", "/v1/lookup"), ("GET", "/v1/tables"), ("GET", "/metrics"),
            ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/health/ready"),
        ):  # fmt: skip
            assert problem(admin.request(method, path)) == (404, "not_found")
        assert admin.get("/health/live").status_code == 200
        assert problem(admin.get("/v1/admin/tables", headers={"authorization": "Bearer x"})) == (401, "unauthorized")


def test_many_requests_at_once_are_all_passed_on(shared: Running) -> None:
    with admin_of(shared.url) as admin, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: admin.get("/v1/admin/tables").status_code, range(200)))
    assert set(answers) == {200}
