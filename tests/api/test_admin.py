"""`/v1/admin/…` in one process: every route, every answer, every error, and that an error changes nothing."""

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import httpx
import pytest

from service.store import TableStore
from service.types import TableVersion
from tests.api.wire import JSON, PROBLEM
from tests.test_durable import contents
from tests.world import KERAS_ROWS, KERAS_TOKENS, Path_, publish, serving

ADMIN: Final = "/v1/admin"
WORDS: Final = f"{ADMIN}/tables/words"
SECRET: Final = {"authorization": "Bearer secret"}
READY: Final = {"worker": 0, "process": os.getpid(), "state": "READY", "version": 2, "reason": None}
IDLE: Final = READY | {"state": "AVAILABLE", "version": None, "reason": "no version is active"}

ROUTES: Final = (
    ("GET", f"{ADMIN}/tables"),
    ("GET", WORDS),
    ("POST", f"{WORDS}/versions"),
    ("POST", f"{WORDS}/activate"),
    ("POST", f"{ADMIN}/activate"),
    ("POST", f"{WORDS}/rollback"),
    ("PUT", f"{WORDS}/labels/stable"),
    ("DELETE", f"{WORDS}/labels/stable"),
    ("DELETE", f"{WORDS}/versions/3"),
    ("POST", f"{WORDS}/prune"),
)
Answer: TypeAlias = dict[str, Any]


def fill(root: Path) -> TableStore:
    """`words` has the versions 1 (label stable), 2 (active, 1 was before), 3 and 4; `once` has 1; `idle` has none
    active; `broken` has 1 (active), 2 (label torn, a byte is wrong) and 3 (its file is cut)."""
    store = TableStore(root)
    for version in (1, 2, 3, 4):
        publish(store, "words", KERAS_ROWS * version, KERAS_TOKENS, activate=version <= 2)
    store.set_label("words", "stable", 1)
    publish(store, "once", KERAS_ROWS)
    publish(store, "idle", KERAS_ROWS, activate=False)
    for version in (1, 2, 3):
        publish(store, "broken", KERAS_ROWS * version, activate=version == 1)
    store.set_label("broken", "torn", 2)
    for version in (2, 3):
        vectors = store.version(TableVersion("broken", version)).vectors
        whole = vectors.read_bytes()
        vectors.write_bytes(whole[:-1] + (b"\x7f" if version == 2 else b""))
    return store


@contextmanager
def administrating(root: Path, path: Path_ = "wire", **settings: object) -> Iterator[httpx.Client]:
    """A server over the store with the admin token `secret`, and a client that has it."""
    with serving(root, path, **{"admin_token": "secret", **settings}) as client:
        client.headers.update(SECRET)
        client.timeout = httpx.Timeout(60)
        yield client


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return fill(tmp_path / "store")


@pytest.fixture
def client(store: TableStore) -> Iterator[httpx.Client]:
    with administrating(store.root) as client:
        yield client


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """The same store for all that changes nothing."""
    return fill(tmp_path_factory.mktemp("still") / "store")


@pytest.fixture(scope="module")
def refusing(still: TableStore) -> Iterator[httpx.Client]:
    with administrating(still.root) as client:
        yield client


def ok(answer: httpx.Response, status: int = 200) -> Answer:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == JSON
    content: Answer = answer.json()
    return content


def refused(answer: httpx.Response, status: int, code: str) -> Answer:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: Answer = answer.json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    return problem


def served(client: httpx.Client, table: str = "words") -> str:
    return str(client.post(f"/v1/tables/{table}/lookup", json={"ids": [0]}).headers["embedding-version"])


# Who may ask


def test_without_a_configured_token_the_api_is_off_and_says_how_to_turn_it_on(still: TableStore) -> None:
    with serving(still.root) as client:
        for method, path in ROUTES:
            problem = refused(client.request(method, path, headers=SECRET), 403, "forbidden")
            assert "EMBEDDING_ADMIN_TOKEN" in problem["detail"]


def test_an_empty_token_is_none(still: TableStore) -> None:
    with serving(still.root, admin_token="", admin_tokens={"ann": ""}) as client:
        refused(client.get(f"{ADMIN}/tables", headers={"authorization": "Bearer"}), 403, "forbidden")


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", f"{ADMIN}/nope"), ("DELETE", WORDS)])
def test_without_a_token_nothing_is_told(refusing: httpx.Client, method: str, path: str) -> None:
    answer = refusing.request(method, path, headers={"authorization": ""})
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="admin"'


@pytest.mark.parametrize(
    "credentials",
    ["secret", "Bearer", "Basic secret", "Bearer secret x", "Bearer Secret", "Bearer secre", "Bearer secret2",
     "Bearer,secret", 'Bearer "secret"', "Bearer admin", "Token secret", "Bearersecret"],
)  # fmt: skip
def test_a_wrong_or_malformed_token_is_unauthorized(refusing: httpx.Client, credentials: str) -> None:
    answer = refusing.get(f"{ADMIN}/tables", headers={"authorization": credentials})
    problem = refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "secret" not in problem["detail"]


def test_a_request_without_the_header_is_unauthorized(still: TableStore) -> None:
    with serving(still.root, admin_token="secret") as client:
        refused(client.get(f"{ADMIN}/tables"), 401, "unauthorized")


@pytest.mark.parametrize("credentials", ["Bearer secret", "bearer secret", "BEARER  secret"])
def test_the_scheme_is_read_as_http_says(refusing: httpx.Client, credentials: str) -> None:
    ok(refusing.get(f"{ADMIN}/tables", headers={"authorization": credentials}))


@pytest.mark.parametrize("token", ["sécret", "a b", "x" * 5000])
def test_a_token_of_any_text_is_compared_and_never_an_internal_error(still: TableStore, token: str) -> None:
    with serving(still.root, admin_token="secret") as client:
        credentials = f"Bearer {token}".encode()
        answer = client.get(f"{ADMIN}/tables", headers={b"authorization": credentials})
        refused(answer, 401, "unauthorized")


@pytest.mark.parametrize("path", [f"{WORDS}/versions", f"{WORDS}/activate"])
def test_a_wrong_token_is_refused_before_the_body_is_there(refusing: httpx.Client, path: str) -> None:
    address = urlsplit(str(refusing.base_url))
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("token", ["secret", "of-ann", "of-bob"])
def test_every_configured_token_is_good(still: TableStore, token: str) -> None:
    with serving(still.root, admin_token="secret", admin_tokens={"ann": "of-ann", "bob": "of-bob"}) as client:
        ok(client.get(f"{ADMIN}/tables", headers={"authorization": f"Bearer {token}"}))
        refused(client.get(f"{ADMIN}/tables", headers={"authorization": "Bearer ann"}), 401, "unauthorized")


def test_behind_the_front_there_is_no_admin_api(still: TableStore) -> None:
    with administrating(still.root, "behind") as client:
        for method, path in ROUTES:
            refused(client.request(method, path), 404, "not_found")


# What there is


def test_all_tables_are_listed_with_what_is_served(refusing: httpx.Client) -> None:
    tables = ok(refusing.get(f"{ADMIN}/tables"))["tables"]
    assert [table["table"] for table in tables] == ["broken", "idle", "once", "words"]
    assert tables[3] == {
        "table": "words",
        "active_version": 2,
        "versions": [1, 2, 3, 4],
        "labels": {"stable": 1},
        "workers": [READY],
        "reason": None,
    }
    assert tables[1] | {"workers": []} == {
        "table": "idle", "active_version": None, "versions": [1], "labels": {}, "workers": [], "reason": None,
    }  # fmt: skip
    assert tables[1]["workers"] == [IDLE]


def test_a_table_is_described_with_versions_labels_history_and_workers(
    refusing: httpx.Client, still: TableStore
) -> None:
    content = ok(refusing.get(WORDS))
    assert content.keys() == {"table", "active_version", "versions", "labels", "history", "workers"}
    assert (content["table"], content["active_version"], content["labels"]) == ("words", 2, {"stable": 1})
    assert content["workers"] == [READY]
    first = content["versions"][0]
    assert datetime.fromisoformat(first.pop("created")) > datetime.now(UTC) - timedelta(hours=1)
    folder = still.version(TableVersion("words", 1)).path
    assert first.pop("bytes") == sum(len(file) for name, file in contents(folder).items() if name != "manifest.json")
    assert first == {
        "version": 1, "active": False, "labels": ["stable"], "num_embeddings": 7, "embedding_dim": 2,
        "dtype": "float32", "has_vocabulary": True, "source": {}, "reason": None,
    }  # fmt: skip
    assert [(version["version"], version["active"]) for version in content["versions"]] == [
        (1, False), (2, True), (3, False), (4, False),
    ]  # fmt: skip
    events = [{key: value for key, value in event.items() if key != "time"} for event in content["history"]]
    assert events == [
        {"event": "activation", "version": 1, "previous_version": None, "by": "publish"},
        {"event": "activation", "version": 2, "previous_version": 1, "by": "publish"},
    ]


def test_a_damaged_version_is_listed_with_its_reason(tmp_path: Path) -> None:
    store = fill(tmp_path)
    (tmp_path / "broken" / "3" / "manifest.json").write_text("{")
    with administrating(store.root) as client:
        versions = ok(client.get(f"{ADMIN}/tables/broken"))["versions"]
    assert [version["num_embeddings"] for version in versions] == [7, 7, None]
    assert "manifest.json" in versions[2]["reason"]
    assert str(tmp_path) not in versions[2]["reason"]


def test_a_table_whose_files_cannot_be_read_is_listed_with_the_reason(tmp_path: Path) -> None:
    store = fill(tmp_path)
    (tmp_path / "once" / "CURRENT").write_text("nonsense")
    with administrating(store.root) as client:
        lines = {line["table"]: line for line in ok(client.get(f"{ADMIN}/tables"))["tables"]}
        assert lines["once"]["active_version"] is None
        assert "CURRENT" in lines["once"]["reason"]
        assert lines["words"]["reason"] is None
        refused(client.get(f"{ADMIN}/tables/once"), 409, "conflict")


def test_a_store_that_is_not_there_has_no_tables(tmp_path: Path) -> None:
    with administrating(tmp_path / "none") as client:
        assert ok(client.get(f"{ADMIN}/tables")) == {"tables": []}


def test_a_table_without_versions_still_has_its_history(client: httpx.Client) -> None:
    assert client.delete(f"{ADMIN}/tables/idle/versions/1").status_code == 204
    content = ok(client.get(f"{ADMIN}/tables/idle"))
    assert (content["versions"], content["active_version"]) == ([], None)
    assert [(event["event"], event["version"]) for event in content["history"]] == [("deletion", 1)]


# What is in force


def test_an_activation_answers_with_both_versions_and_is_served_at_once(client: httpx.Client) -> None:
    content = ok(client.post(f"{WORDS}/activate", json={"version": 3}))
    assert content.keys() == {"table", "previous_version", "active_version", "workers", "seconds"}
    assert 0 < content.pop("seconds") < 60
    assert content == {"table": "words", "previous_version": 2, "active_version": 3, "workers": 1}
    assert served(client) == "3"


def test_a_first_activation_has_no_previous_version(client: httpx.Client) -> None:
    content = ok(client.post(f"{ADMIN}/tables/idle/activate", json={"version": 1}))
    assert (content["previous_version"], content["active_version"]) == (None, 1)
    assert served(client, "idle") == "1"


def test_an_activation_of_what_is_active_changes_nothing(client: httpx.Client, store: TableStore) -> None:
    content = ok(client.post(f"{WORDS}/activate", json={"version": 2}))
    assert (content["previous_version"], content["active_version"]) == (2, 2)
    assert len(store.history("words")) == 2


def test_rollback_goes_back_and_twice_swaps_back(client: httpx.Client) -> None:
    for before, after in ((2, 1), (1, 2), (2, 1)):
        content = ok(client.post(f"{WORDS}/rollback"))
        assert content.keys() == {"table", "previous_version", "active_version", "workers", "seconds"}
        assert (content["table"], content["workers"]) == ("words", 1)
        assert (content["previous_version"], content["active_version"]) == (before, after)
        assert served(client) == str(after)


def test_rollback_takes_an_empty_object(client: httpx.Client) -> None:
    assert ok(client.post(f"{WORDS}/rollback", json={}))["active_version"] == 1


def test_several_tables_are_activated_together(client: httpx.Client) -> None:
    content = ok(client.post(f"{ADMIN}/activate", json={"tables": {"words": 3, "idle": 1, "once": 1}}))
    assert content.keys() == {"tables", "workers", "seconds"}
    assert content["workers"] == 1
    assert content["seconds"] > 0
    assert content["tables"] == [
        {"table": "words", "previous_version": 2, "active_version": 3},
        {"table": "idle", "previous_version": None, "active_version": 1},
        {"table": "once", "previous_version": 1, "active_version": 1},
    ]
    assert (served(client), served(client, "idle")) == ("3", "1")


@pytest.mark.parametrize(
    ("others", "status", "code"),
    [
        ({"once": 2}, 404, "version_not_found"),
        ({"nope": 1}, 404, "table_not_found"),
        ({"../words": 1}, 404, "table_not_found"),
        ({"broken": 2}, 409, "conflict"),
        ({"broken": 3}, 409, "conflict"),
        ({"idle": 1, "once": 2}, 404, "version_not_found"),
    ],
)
def test_of_several_tables_none_is_activated_if_one_cannot_be(
    refusing: httpx.Client, still: TableStore, others: dict[str, int], status: int, code: str
) -> None:
    before = contents(still.root)
    for tables in ({"words": 3, **others}, {**others, "words": 3}):
        refused(refusing.post(f"{ADMIN}/activate", json={"tables": tables}), status, code)
    assert contents(still.root) == before
    assert served(refusing) == "2"


def test_256_tables_are_activated_together_and_257_are_too_many(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    tables = {f"t{number}": 1 for number in range(257)}
    for table in tables:
        publish(store, table, [[1.0]], activate=False)
    with administrating(tmp_path) as client:
        problem = refused(client.post(f"{ADMIN}/activate", json={"tables": tables}), 422, "invalid_request")
        assert "256" in problem["detail"]
        assert problem["field"] == "tables"
        assert set(store.active_versions(list(tables)).values()) == {None}
        del tables["t256"]
        assert len(ok(client.post(f"{ADMIN}/activate", json={"tables": tables}))["tables"]) == 256
        assert {served(client, table) for table in ("t0", "t255")} == {"1"}


# Labels


def test_a_label_moves_and_is_forgotten(client: httpx.Client, store: TableStore) -> None:
    for version in (3, 4):
        content = ok(client.put(f"{WORDS}/labels/canary-1_x", json={"version": version}))
        assert content == {"table": "words", "label": "canary-1_x", "version": version}
        asked = client.post("/v1/tables/words/labels/canary-1_x/lookup", json={"ids": [0]})
        assert asked.headers["embedding-version"] == str(version)
    assert store.labels("words") == {"stable": 1, "canary-1_x": 4}
    answer = client.delete(f"{WORDS}/labels/canary-1_x")
    assert (answer.status_code, answer.content) == (204, b"")
    assert store.labels("words") == {"stable": 1}
    refused(client.delete(f"{WORDS}/labels/canary-1_x"), 404, "label_not_found")
    assert served(client) == "2"


@pytest.mark.parametrize("label", ["Stable", "1st", "-x", "_", "a" * 65, "a b", "a.b", "%C3%A4", "a%00", "a%0a"])
def test_a_bad_name_is_no_label(refusing: httpx.Client, still: TableStore, label: str) -> None:
    before = contents(still.root)
    answer = refusing.put(f"{WORDS}/labels/{label}", json={"version": 1})
    if label == "a%0a":
        refused(answer, 404, "not_found")
    else:
        assert "label name" in refused(answer, 422, "invalid_request")["detail"]
        refused(refusing.delete(f"{WORDS}/labels/{label}"), 404, "label_not_found")
    assert contents(still.root) == before


# What goes


def test_a_version_that_nobody_uses_is_deleted(client: httpx.Client, store: TableStore) -> None:
    answer = client.delete(f"{WORDS}/versions/3")
    assert (answer.status_code, answer.content) == (204, b"")
    assert store.versions("words") == [1, 2, 4]
    assert not (store.root / "words" / "3").exists()
    refused(client.delete(f"{WORDS}/versions/3"), 404, "version_not_found")
    refused(client.post("/v1/tables/words/versions/3/lookup", json={"ids": [0]}), 404, "version_not_found")


@pytest.mark.parametrize(("version", "why"), [(1, "stable"), (2, "active")])
def test_a_version_in_use_is_not_deleted(refusing: httpx.Client, still: TableStore, version: int, why: str) -> None:
    before = contents(still.root)
    problem = refused(refusing.delete(f"{WORDS}/versions/{version}"), 409, "conflict")
    assert why in problem["detail"]
    assert contents(still.root) == before


def test_a_deleted_version_cannot_be_rolled_back_to(client: httpx.Client) -> None:
    assert client.delete(f"{WORDS}/labels/stable").status_code == 204
    assert client.delete(f"{WORDS}/versions/1").status_code == 204
    assert "deleted" in refused(client.post(f"{WORDS}/rollback"), 409, "conflict")["detail"]
    assert served(client) == "2"


@pytest.fixture
def many(tmp_path: Path) -> TableStore:
    """Versions 1 to 8 of `words`; 5 was active before 6 is, 2 is labelled, and 1 to 4 are three days old."""
    store = TableStore(tmp_path / "many")
    for version in range(1, 9):
        publish(store, "words", KERAS_ROWS * version, activate=version in (5, 6))
        if version <= 4:
            manifest = store.root / "words" / str(version) / "manifest.json"
            said = json.loads(manifest.read_text())
            said["created"] = (datetime.now(UTC) - timedelta(days=3)).isoformat()
            manifest.write_text(json.dumps(said))
    store.set_label("words", "stable", 2)
    return store


@pytest.mark.parametrize(
    ("body", "removed"),
    [
        (None, [1, 3, 4]),
        ({}, [1, 3, 4]),
        ({"keep": 1}, [1, 3, 4, 7]),
        ({"keep": 0}, [1, 3, 4, 7, 8]),
        ({"keep": 6}, [1]),
        ({"keep": 100}, []),
        ({"keep": 0, "older_than_days": 2}, [1, 3, 4]),
        ({"keep": 0, "older_than_days": 2.5}, [1, 3, 4]),
        ({"keep": 5, "older_than_days": 2}, [1, 3]),
        ({"keep": 0, "older_than_days": 3.5}, []),
        ({"older_than_days": 0}, [1, 3, 4]),
    ],
)
def test_prune_removes_by_count_and_age(many: TableStore, body: object, removed: list[int]) -> None:
    with administrating(many.root) as client:
        sent = {} if body is None else {"json": body}
        content = ok(client.post(f"{WORDS}/prune", **sent))  # type: ignore[arg-type]
        assert content == {"table": "words", "removed": removed, "unfinished": []}
    assert many.versions("words") == [version for version in range(1, 9) if version not in removed]


def test_prune_removes_what_killed_uploads_left(client: httpx.Client, store: TableStore) -> None:
    left = store.root / "words" / ".staging-0123"
    left.mkdir()
    (left / "received").write_bytes(b"half")
    content = ok(client.post(f"{WORDS}/prune", json={"keep": 9}))
    assert content == {"table": "words", "removed": [], "unfinished": [left.name]}
    assert not left.exists()


# What is wrong

UNKNOWN: Final = {
    "detail of no table": ("GET", "/tables/nope", None, "table_not_found"),
    "detail of a wrong name": ("GET", "/tables/..%2fwords", None, "not_found"),
    "detail of dots": ("GET", "/tables/%2e%2e", None, "table_not_found"),
    "activate no table": ("POST", "/tables/nope/activate", {"version": 1}, "table_not_found"),
    "activate no version": ("POST", "/tables/words/activate", {"version": 9}, "version_not_found"),
    "activate a huge version": ("POST", "/tables/words/activate", {"version": 2**70}, "version_not_found"),
    "roll back no table": ("POST", "/tables/nope/rollback", None, "table_not_found"),
    "label no table": ("PUT", "/tables/nope/labels/stable", {"version": 1}, "table_not_found"),
    "label no version": ("PUT", "/tables/words/labels/stable", {"version": 9}, "version_not_found"),
    "forget no label": ("DELETE", "/tables/words/labels/nope", None, "label_not_found"),
    "forget of no table": ("DELETE", "/tables/nope/labels/stable", None, "table_not_found"),
    "delete no version": ("DELETE", "/tables/words/versions/9", None, "version_not_found"),
    "delete version abc": ("DELETE", "/tables/words/versions/abc", None, "version_not_found"),
    "delete version 0": ("DELETE", "/tables/words/versions/0", None, "version_not_found"),
    "delete version 03": ("DELETE", "/tables/words/versions/03", None, "version_not_found"),
    "delete version -3": ("DELETE", "/tables/words/versions/-3", None, "version_not_found"),
    "delete of no table": ("DELETE", "/tables/nope/versions/1", None, "table_not_found"),
    "prune no table": ("POST", "/tables/nope/prune", {}, "table_not_found"),
    "no such route": ("GET", "/nope", None, "not_found"),
    "a slash too many": ("GET", "/tables/", None, "not_found"),
    "the API itself": ("GET", "/", None, "not_found"),
    "a table's route that is not there": ("POST", "/tables/words/verify", None, "not_found"),
    "a line end behind a route": ("GET", "/tables%0a", None, "not_found"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_there_is_404(refusing: httpx.Client, still: TableStore, case: str) -> None:
    method, path, body, code = UNKNOWN[case]
    before = contents(still.root)
    problem = refused(refusing.request(method, ADMIN + path, json=body) if body is not None
                      else refusing.request(method, ADMIN + path), 404, code)  # fmt: skip
    if body == {"version": 2**70}:
        assert problem["version"] == 2**70
    assert contents(still.root) == before


DEEP: Final = b"[" * 100_000
BODIES: Final = {
    "not JSON": (b"{", 400, "invalid_json", None),
    "nothing": (b"", 400, "invalid_json", None),
    "bad UTF-8": (b'{"version": "\xff"}', 400, "invalid_json", None),
    "too deep": (DEEP, 400, "invalid_json", None),
    "rubbish behind it": (b'{"version": 3} x', 400, "invalid_json", None),
    "a list": (b"[3]", 422, "invalid_request", None),
    "null": (b"null", 422, "invalid_request", None),
    "a number": (b"3", 422, "invalid_request", None),
    "no version": (b"{}", 422, "invalid_request", "version"),
    "a fraction": (b'{"version": 3.5}', 422, "invalid_request", "version"),
    "3.0": (b'{"version": 3.0}', 422, "invalid_request", "version"),
    "a string": (b'{"version": "3"}', 422, "invalid_request", "version"),
    "a boolean": (b'{"version": true}', 422, "invalid_request", "version"),
    "null as version": (b'{"version": null}', 422, "invalid_request", "version"),
    "zero": (b'{"version": 0}', 422, "invalid_request", "version"),
    "negative": (b'{"version": -1}', 422, "invalid_request", "version"),
    "an unknown field": (b'{"version": 3, "force": true}', 422, "invalid_request", "force"),
}


@pytest.mark.parametrize("route", ["POST /tables/words/activate", "PUT /tables/words/labels/stable"])
@pytest.mark.parametrize("case", BODIES)
def test_a_wrong_body_is_refused_and_the_field_named(
    refusing: httpx.Client, still: TableStore, route: str, case: str
) -> None:
    content, status, code, field = BODIES[case]
    method, _, path = route.partition(" ")
    before = contents(still.root)
    problem = refused(refusing.request(method, ADMIN + path, content=content), status, code)
    assert problem.get("field") == field
    assert contents(still.root) == before


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/activate", {}, "tables"),
        ("/activate", {"tables": {}}, "tables"),
        ("/activate", {"tables": []}, "tables"),
        ("/activate", {"tables": {"words": "3"}}, "tables.words"),
        ("/activate", {"tables": {"words": 3, "once": 0}}, "tables.once"),
        ("/activate", {"tables": {"words": 3}, "force": 1}, "force"),
        ("/activate", {"version": 3}, None),
        ("/tables/words/prune", {"keep": -1}, "keep"),
        ("/tables/words/prune", {"keep": "2"}, "keep"),
        ("/tables/words/prune", {"keep": 1.0}, "keep"),
        ("/tables/words/prune", {"keep": None}, "keep"),
        ("/tables/words/prune", {"older_than_days": -1}, "older_than_days"),
        ("/tables/words/prune", {"older_than_days": 1e9}, "older_than_days"),
        ("/tables/words/prune", {"older_than_days": "3"}, "older_than_days"),
        ("/tables/words/prune", {"age": 3}, "age"),
        ("/tables/words/versions", {"source": 3}, "source"),
        ("/tables/words/versions", {"source": ""}, "source"),
        ("/tables/words/versions", {"path": "x"}, None),
        ("/tables/words/versions", {"source": "x", "activate": True}, "activate"),
        ("/tables/words/rollback", {"version": 1}, None),
        ("/tables/words/rollback", [], None),
    ],
)
def test_fields_of_other_bodies_are_checked_too(
    refusing: httpx.Client, still: TableStore, path: str, body: object, field: str | None
) -> None:
    before = contents(still.root)
    problem = refused(refusing.post(ADMIN + path, json=body), 422, "invalid_request")
    if field is not None:
        assert problem["field"] == field
    assert contents(still.root) == before


@pytest.mark.parametrize("text", ['{"older_than_days": NaN}', '{"older_than_days": Infinity}'])
def test_an_age_is_a_number(refusing: httpx.Client, text: str) -> None:
    answer = refusing.post(f"{WORDS}/prune", content=text.encode())
    assert answer.json()["code"] in ("invalid_json", "invalid_request")


@pytest.mark.parametrize("route", [f"{method} {path}" for method, path in ROUTES if method == "DELETE"])
def test_a_deletion_takes_no_body(refusing: httpx.Client, still: TableStore, route: str) -> None:
    method, _, path = route.partition(" ")
    before = contents(still.root)
    refused(refusing.request(method, path, json={"version": 3}), 422, "invalid_request")
    assert contents(still.root) == before


@pytest.mark.parametrize(
    "headers", [{"content-type": "text/plain"}, {"content-type": "application/x-npy"}, {"content-encoding": "gzip"}]
)
@pytest.mark.parametrize("path", ["/tables/words/activate", "/activate", "/tables/words/prune"])
def test_a_body_of_another_type_is_refused(refusing: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = refusing.post(ADMIN + path, content=b'{"version": 3}', headers=headers)
    refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_megabytes_is_refused(refusing: httpx.Client, chunked: bool) -> None:
    body = b'{"version": 3' + b" " * (1 << 20) + b"}"
    content = iter([body[:9], body[9:]]) if chunked else body
    answer = refusing.post(f"{WORDS}/activate", content=content)
    refused(answer, 413, "request_too_large")


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route != ("POST", f"{WORDS}/versions")])
def test_an_unknown_query_name_is_named(refusing: httpx.Client, still: TableStore, method: str, path: str) -> None:
    before = contents(still.root)
    problem = refused(refusing.request(method, path, params={"force": "1"}), 422, "invalid_request")
    assert problem["field"] == "force"
    assert contents(still.root) == before


@pytest.mark.parametrize("path", ["/tables/versions", "/tables/words/labels/versions"])
def test_a_name_that_reads_like_the_route_of_uploads_has_no_query(refusing: httpx.Client, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert refusing.request(method, ADMIN + path, params={"force": "1"}).json().get("field") == "force"


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("activate", {"version": 2}, "SHA-256"),
        ("activate", {"version": 3}, "vectors.npy has"),
        ("labels/fresh", {"version": 2}, "SHA-256"),
        ("labels/fresh", {"version": 3}, "vectors.npy has"),
    ],
)
def test_a_damaged_version_is_a_conflict_with_the_reason(
    refusing: httpx.Client, still: TableStore, path: str, body: dict[str, int], named: str
) -> None:
    before = contents(still.root)
    method = "POST" if path == "activate" else "PUT"
    problem = refused(refusing.request(method, f"{ADMIN}/tables/broken/{path}", json=body), 409, "conflict")
    assert named in problem["reason"]
    assert (problem["table"], problem["version"]) == ("broken", body["version"])
    assert str(still.root) not in json.dumps(problem)
    assert contents(still.root) == before
    assert served(refusing, "broken") == "1"


def test_a_rollback_to_a_damaged_version_is_a_conflict(client: httpx.Client, store: TableStore) -> None:
    vectors = store.version(TableVersion("words", 1)).vectors
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x7f")
    assert "SHA-256" in refused(client.post(f"{WORDS}/rollback"), 409, "conflict")["reason"]
    assert (store.active_version("words"), served(client)) == (2, "2")


@pytest.mark.parametrize("table", ["once", "idle"])
def test_without_an_earlier_activation_there_is_no_rollback(
    refusing: httpx.Client, still: TableStore, table: str
) -> None:
    before = contents(still.root)
    refused(refusing.post(f"{ADMIN}/tables/{table}/rollback"), 409, "conflict")
    assert contents(still.root) == before


ALLOWED: Final = {
    "/tables": {"GET"},
    "/tables/words": {"GET"},
    "/tables/words/versions": {"POST"},
    "/tables/words/activate": {"POST"},
    "/activate": {"POST"},
    "/tables/words/rollback": {"POST"},
    "/tables/words/labels/stable": {"PUT", "DELETE"},
    "/tables/words/versions/3": {"DELETE"},
    "/tables/words/prune": {"POST"},
}


@pytest.mark.parametrize("path", ALLOWED)
def test_other_methods_are_answered_with_those_that_there_are(
    refusing: httpx.Client, still: TableStore, path: str
) -> None:
    before = contents(still.root)
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - ALLOWED[path]:
        answer = refusing.request(method, ADMIN + path)
        refused(answer, 405, "method_not_allowed")
        assert {name.strip() for name in answer.headers["allow"].split(",")} == ALLOWED[path]
    assert contents(still.root) == before


# Who did it


@pytest.mark.parametrize(("token", "name"), [("secret", "admin"), ("of-ann", "ann"), ("of-bob", "bob the builder")])
def test_the_owner_of_the_token_is_in_the_history(store: TableStore, token: str, name: str) -> None:
    with serving(
        store.root, admin_token="secret", admin_tokens={"ann": "of-ann", "bob the builder": "of-bob"}
    ) as client:
        client.headers["authorization"] = f"Bearer {token}"
        ok(client.post(f"{WORDS}/activate", json={"version": 3}))
        ok(client.post(f"{WORDS}/rollback"))
        assert client.delete(f"{WORDS}/versions/3").status_code == 204
        ok(client.post(f"{WORDS}/prune", json={"keep": 0}))
        history = ok(client.get(WORDS))["history"][2:]
    said = [(event["event"], event["version"], event["previous_version"], event["by"]) for event in history]
    assert said == [
        ("activation", 3, 2, f"activate by {name}"),
        ("activation", 2, 3, f"rollback by {name}"),
        ("deletion", 3, None, f"delete by {name}"),
        ("deletion", 4, None, f"prune by {name}"),
    ]


def audited(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "service.audit"]


def test_every_change_is_one_line_of_the_audit_log(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service.audit")
    client.post(f"{WORDS}/activate", json={"version": 3})
    client.post(f"{ADMIN}/activate", json={"tables": {"idle": 1, "words": 4}})
    client.post(f"{WORDS}/rollback")
    client.put(f"{WORDS}/labels/canary", json={"version": 4})
    client.put(f"{WORDS}/labels/stable", json={"version": 4})
    client.delete(f"{WORDS}/labels/canary")
    client.delete(f"{WORDS}/versions/2")
    client.post(f"{WORDS}/prune", json={"keep": 0})
    by = "audit: by=admin change"
    assert audited(caplog) == [
        f"{by}=activate table=words from=2 to=3",
        f"{by}=activate table=idle from=- to=1",
        f"{by}=activate table=words from=3 to=4",
        f"{by}=rollback table=words from=4 to=3",
        f"{by}='label canary' table=words from=- to=4",
        f"{by}='label stable' table=words from=1 to=4",
        f"{by}='unlabel canary' table=words from=4 to=-",
        f"{by}=delete table=words from=2 to=-",
        f"{by}=prune table=words from=1 to=-",
    ]


def test_what_is_refused_or_only_read_is_not_in_the_audit_log(
    refusing: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service.audit")
    refusing.get(f"{ADMIN}/tables")
    refusing.get(WORDS)
    refusing.post(f"{WORDS}/activate", json={"version": 9})
    refusing.post(f"{ADMIN}/tables/broken/activate", json={"version": 2})
    refusing.delete(f"{WORDS}/versions/1")
    assert audited(caplog) == []


@pytest.mark.parametrize(
    "name",
    ["ann\naudit: by=bob change=delete", "ann change=delete", 'a"b', "a='b'", "\u2028", "\x1b[31mred", "ann\r", "änn"],
)
def test_no_name_can_forge_a_line_or_a_field(store: TableStore, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.INFO, logger="service.audit")
    with serving(store.root, admin_tokens={name: "token"}) as client:
        client.headers["authorization"] = "Bearer token"
        ok(client.post(f"{WORDS}/activate", json={"version": 3}))
    (line,) = audited(caplog)
    assert line == f"audit: by={name!a} change=activate table=words from=2 to=3"
    assert line.isascii()
    assert line.isprintable()


# The description


def test_every_route_is_in_the_description_with_its_answers(refusing: httpx.Client) -> None:
    paths = ok(refusing.get("/openapi.json"))["paths"]
    admin = {(method.upper(), path) for path in paths if path.startswith(ADMIN) for method in paths[path]}
    assert admin == {
        (method, path.replace("words", "{table}").replace("labels/stable", "labels/{label}")
         .replace("versions/3", "versions/{version}"))
        for method, path in ROUTES
    }  # fmt: skip
    for method, path in admin:
        operation = paths[path][method.lower()]
        assert operation["summary"]
        assert operation["tags"] == ["admin"]
        assert {"401", "403", "404", "422"} <= operation["responses"].keys()
        assert operation["responses"].keys() & {"200", "201", "204"}


def test_a_token_from_a_file_may_end_with_its_line(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    with serving(tmp_path, admin_token="secret\n") as client:
        answer = client.get("/v1/admin/tables", headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 200
