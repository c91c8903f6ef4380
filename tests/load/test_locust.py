"""The load tests as they are run: locust in a process of its own, against real servers."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from load_tests.locust_run import ROOT, TOKEN, command, environment
from load_tests.locust_users.kinds import KINDS
from load_tests.running import Running, running, until
from service.store import TableStore
from tests.world import listening, publish, service_over

SHIPPED: Final = "glove-6b-50d"
COUNTER: Final = re.compile(r'^embedding_requests_total\{.*endpoint="lookup".*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """What locust said: its exit code, requests and failures by type and name, and its log."""

    code: int
    requests: Mapping[tuple[str, str], int]
    failures: Mapping[tuple[str, str], int]
    log: str

    def of(self, kind: str) -> dict[str, int]:
        return {name: count for (method, name), count in self.requests.items() if method == kind}


def locust(url: str, *options: str, users: int = 8, seconds: int = 3) -> Run:
    return finished(started(url, *options, users=users, seconds=seconds))


def started(url: str, *options: str, users: int, seconds: int) -> "subprocess.Popen[str]":
    usual = ("--json", "--only-summary", "--questions", "20", "-r", "50", "-u", str(users), "-t", f"{seconds}s")
    asked = command(url, *usual, *options)
    pipe = subprocess.PIPE
    return subprocess.Popen(asked, env=environment(), stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True)


def finished(process: "subprocess.Popen[str]") -> Run:
    with process:
        try:
            printed, log = process.communicate(timeout=60)
        finally:
            process.kill()
    entries = [entry for entries in documents(printed) for entry in entries]
    keys = [(entry["method"], entry["name"]) for entry in entries]
    requests = {key: entry["num_requests"] for key, entry in zip(keys, entries, strict=True)}
    failures = {key: entry["num_failures"] for key, entry in zip(keys, entries, strict=True) if entry["num_failures"]}
    return Run(process.returncode, requests, failures, log)


def documents(text: str) -> Iterator[list[dict[str, Any]]]:
    """What each process of locust prints: those that have no statistics print an empty list."""
    while text := text.lstrip():
        found, end = json.JSONDecoder().raw_decode(text)
        yield found
        text = text[end:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers over a copy of the shipped store."""
    store = tmp_path_factory.mktemp("locust") / "model_store"
    shutil.copytree(ROOT / "model_store", store, ignore=shutil.ignore_patterns(".*"))
    with running(store, "--workers", "2", settings={"ADMIN_TOKEN": TOKEN}) as started:
        yield started


def admin(server: Running, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}/v1/admin{path}", headers={"Authorization": f"Bearer {TOKEN}"})


def test_all_kinds_of_lookups_are_answered_while_the_table_is_swapped(server: Running) -> None:
    before = admin(server, f"/tables/{SHIPPED}").json()
    run = locust(server.url, "--swap-every", "0.3", "--oov-share", "0.2", "--wait-ms", "5", seconds=5)
    assert run.code == 0, run.log
    assert run.failures == {}
    assert set(run.of("POST")) == {*KINDS, "json oov", "raw oov", "v2 json oov", "v2 binary oov"}
    swaps = run.of("SWAP")
    assert swaps["activate"] > 0
    assert swaps["rollback"] > 0
    assert swaps["put back"] == 1
    assert admin(server, f"/tables/{SHIPPED}").json() == before
    assert admin(server, f"/tables/{SHIPPED}-swap").json()["versions"] == []


def test_processes_share_the_users_and_one_alone_swaps(server: Running) -> None:
    run = locust(server.url, "--processes", "2", "--swap-every", "0.3", "--wait-ms", "5", "RawUser", "V2User")
    assert run.code == 0, run.log
    assert run.failures == {}
    assert set(run.of("POST")) >= {name for name, kind in KINDS.items() if kind.form != "json"}
    assert run.of("SWAP")["activate"] > 0
    assert run.of("SWAP")["put back"] == 1
    assert run.log.count("Got quit message from master") == 2


def test_two_versions_that_exist_are_swapped_and_what_was_active_is_again(server: Running) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    for sign in (1, -1, 2):
        uploaded(server, "named", sign * rows, activate=sign == 2)
    run = locust(server.url, "--swap-table", "named", "--swap-versions", "1,2", "--swap-every", "0.2", "--zipf", "0")
    assert run.code == 0, run.log
    assert run.failures == {}
    assert run.of("SWAP")["activate"] > 0
    told = admin(server, "/tables/named").json()
    assert told["active_version"] == 3
    assert [version["version"] for version in told["versions"]] == [1, 2, 3]


def uploaded(server: Running, table: str, rows: "np.typing.NDArray[np.float32]", *, activate: bool) -> None:
    lines = "\n".join(",".join(map(str, row)) for row in rows.tolist())
    answer = httpx.post(
        f"{server.url}/v1/admin/tables/{table}/versions",
        params={"file": "rows.csv", "activate": activate},
        headers={"Authorization": f"Bearer {TOKEN}"},
        content=lines,
    )
    assert answer.status_code == 201, answer.text


def test_an_address_may_end_in_a_slash(server: Running) -> None:
    run = locust(f"{server.url}/", seconds=2)
    assert run.code == 0, run.log
    assert run.failures == {}
    assert run.of("POST")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--ids-per-request", "0", "0 is less than 1"),
        ("--oov-share", "1.5", "1.5 is not between 0 and 1"),
        ("--wait-ms", "-1", "-1 is negative"),
        ("--lengths", "9-3", "lengths '9-3' are not like 8 or 1-16"),
        ("--swap-versions", "2,2", "versions '2,2' are one version"),
    ],
)
def test_a_wrong_option_is_refused_with_the_reason(server: Running, option: str, value: str, said: str) -> None:
    run = locust(server.url, f"{option}={value}")
    assert run.code == 2
    assert f"argument {option}: {said}" in run.log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--table", "nobody"], "there is no table 'nobody'"),
        (["--swap-every", "1", "--swap-table", SHIPPED], "name two of its versions"),
        (["--swap-every", "1", "--swap-table", SHIPPED, "--swap-versions", "1,7"], "has no version 7"),
        (["--swap-every", "1", "--token", "another"], "unauthorized"),
    ],
    ids=["no such table", "a table of somebody's", "no such version", "no good token"],
)
def test_a_test_that_cannot_begin_says_why(server: Running, options: list[str], said: str) -> None:
    run = locust(server.url, *options)
    assert run.code == 2
    assert said in run.log
    assert run.requests == {}


def test_a_slow_server_breaks_the_threshold(server: Running) -> None:
    run = locust(server.url, "--max-p99-ms", "0.001", "RawUser")
    assert run.code == 1
    assert re.search(r"BROKEN: the 99th percentile is \S+ ms, above 0.001 ms", run.log)
    assert run.failures == {}


def test_a_server_that_refuses_breaks_the_threshold(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "small", np.ones((100, 16)))
    options = ("--table", "small", "--ids-per-request", "2000", "--lengths", "2000", "--wait-ms", "0", "JsonUser")
    with running(tmp_path, "--workers", "1", settings={"MAX_IN_FLIGHT": "1"}) as server:
        run = locust(server.url, *options)
        assert run.code == 1
        assert re.search(r"BROKEN: [\d,]+ of [\d,]+ lookups failed", run.log)
        assert 0 < sum(run.failures.values()) < sum(run.requests.values())
        assert locust(server.url, *options, "--max-failure-share", "1").code == 0


def test_connections_that_a_restart_ends_are_retried_as_clients_do(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "small", np.ones((100, 8)))
    port = str(free_port())
    with running(tmp_path, "--port", port) as first:
        process = started(first.url, "--table", "small", "--retry-connects", "12", users=4, seconds=8)
        try:
            until(lambda: lookups_of(first) > 100, 20)
            assert first.stop() == 0
        except BaseException:
            process.kill()
            finished(process)
            raise
    with running(tmp_path, "--port", port) as second:
        run = finished(process)
        assert lookups_of(second) > 0
    assert run.code == 0, run.log
    assert run.failures == {}
    assert sum(run.of("RETRY").values()) > 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def lookups_of(server: Running) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(map(float, COUNTER.findall(text)))


class Corrupting:
    """In front of a service: every tenth answer of bytes has one bit that is wrong."""

    def __init__(self, behind: ASGIApp) -> None:
        self._behind = behind
        self._answers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_wrong(message: Message) -> None:
            body = message.get("body")
            if body and scope["path"].endswith("/lookup"):
                self._answers += 1
                if self._answers % 10 == 0:
                    message = {**message, "body": bytes(body[:-1]) + bytes([body[-1] ^ 1])}
            await send(message)

        await self._behind(scope, receive, send_wrong)


def test_one_wrong_bit_is_found(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "small", np.ones((5, 4)))
    service, _ = service_over(tmp_path)
    with listening(Corrupting(service.behind)) as url:
        run = locust(url, "--table", "small", "--oov-share", "0", "RawUser", "--tags", "flat", users=2)
    assert run.code == 1
    failed, asked = run.failures["POST", "raw flat"], run.requests["POST", "raw flat"]
    assert failed == pytest.approx(asked / 10, abs=2)  # those under way at the end are not counted
