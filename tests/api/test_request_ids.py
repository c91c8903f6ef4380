"""The id of a request: taken from the client, or given to it, on every way that a request goes."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
import numpy as np
import pytest

from service.api.lookup import LookupEndpoint
from service.api.media import OCTETS
from service.server.heads import Heads
from service.store import TableStore
from tests.api.samples import ROWS, TOKENS
from tests.server import raw
from tests.server.raw import wired
from tests.world import Path_, publish, serving

LOOKUP = "/v1/tables/words/lookup"
MADE = re.compile(r"[0-9a-f]{32}")
RAW = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
V2 = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [5]}]}


@pytest.fixture(params=["wire", "front"])
def client(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    publish(TableStore(tmp_path), "words", ROWS, TOKENS)
    path: Path_ = request.param
    with serving(tmp_path, path, max_ids=100_000) as client:
        yield client


Body: TypeAlias = dict[str, Any]
ASKED: Final[dict[str, tuple[str, str, Body]]] = {
    "raw": ("POST", LOOKUP, {"content": np.array([5], dtype="<i8").tobytes(), "headers": RAW}),
    "JSON": ("POST", LOOKUP, {"json": {"ids": [5]}}),
    "a large one": ("POST", LOOKUP, {"json": {"ids": [5] * 50_000}}),
    "of a version": ("POST", "/v1/tables/words/versions/1/lookup", {"json": {"ids": [5]}}),
    "several": ("POST", "/v1/lookup", {"json": {"lookups": [{"table": "words", "ids": [5]}]}}),
    "V2": ("POST", "/v2/models/words/infer", {"json": V2}),
    "tensorflow": ("POST", "/v1/models/words:predict", {"json": {"instances": [5]}}),
}
REFUSED: Final[dict[str, tuple[str, str, Body]]] = {
    "an id outside": ("POST", LOOKUP, {"json": {"ids": [99]}}),
    "no JSON": ("POST", LOOKUP, {"content": b"{"}),
    "no such table": ("POST", "/v1/tables/x/lookup", {"json": {"ids": [5]}}),
    "no POST": ("GET", LOOKUP, {}),
    "V2": ("POST", "/v2/models/words/infer", {"json": {}}),
    "nothing there": ("GET", "/nowhere", {}),
    "admin without a token": ("GET", "/v1/admin/tables/words", {}),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_id_of_a_lookup_is_that_of_its_client(client: httpx.Client, name: str) -> None:
    method, path, body = ASKED[name]
    for _ in range(3):  # the head comes again
        given = {**body.get("headers", {}), "x-request-id": "checkout-7.a"}
        answer = client.request(method, path, **{**body, "headers": given})
        assert answer.status_code == 200
        assert answer.headers.get_list("x-request-id") == ["checkout-7.a"]


@pytest.mark.parametrize("name", ASKED)
def test_a_lookup_without_an_id_is_answered_without_one(client: httpx.Client, name: str) -> None:
    method, path, body = ASKED[name]
    for _ in range(3):
        assert "x-request-id" not in client.request(method, path, **body).headers


def test_an_id_is_not_that_of_the_next_request_on_the_connection(client: httpx.Client) -> None:
    for method, path, body in ASKED.values():
        given = {**body.get("headers", {}), "x-request-id": "mine"}
        client.request(method, path, **{**body, "headers": given})
        assert "x-request-id" not in client.post(LOOKUP, json={"ids": [5]}).headers
        refused = client.post(LOOKUP, json={"ids": [99]})
        assert MADE.fullmatch(refused.headers["x-request-id"])


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_has_an_id_in_any_case(client: httpx.Client, name: str) -> None:
    method, path, body = REFUSED[name]
    ids = set()
    for _ in range(3):
        answer = client.request(method, path, **body)
        assert answer.status_code >= 400
        (found,) = answer.headers.get_list("x-request-id")
        assert MADE.fullmatch(found)
        ids.add(found)
    assert len(ids) == 3
    given = {**body.get("headers", {}), "x-request-id": "mine"}
    assert client.request(method, path, **{**body, "headers": given}).headers.get_list("x-request-id") == ["mine"]


def test_other_answers_have_an_id(client: httpx.Client) -> None:
    for path in ("/health/live", "/v1/tables", "/metrics", "/openapi.json"):
        assert MADE.fullmatch(client.get(path).headers["x-request-id"])


@pytest.mark.parametrize("given", ["a b", "a\tb", '"', "x" * 129, "é", "", "a,b", "<script>"], ids=ascii)
def test_an_id_that_could_forge_a_line_is_replaced(client: httpx.Client, given: str) -> None:
    for asked in ({"ids": [5]}, {"ids": [99]}):
        answer = client.post(LOOKUP, json=asked, headers=[(b"x-request-id", given.encode())])
        (found,) = answer.headers.get_list("x-request-id")
        assert MADE.fullmatch(found)


@pytest.mark.parametrize("given", [None, "mine"])
def test_a_fault_is_in_the_log_under_the_id_that_the_client_was_told(
    client: httpx.Client, given: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken for a test")

    monkeypatch.setattr(LookupEndpoint, "_question", broken)
    with caplog.at_level(logging.ERROR):
        headers = {} if given is None else {"x-request-id": given}
        answer = client.post(LOOKUP, json={"ids": [5]}, headers=headers)
    assert answer.status_code == 500
    (told,) = answer.headers.get_list("x-request-id")
    assert answer.json()["request_id"] == told
    assert given in (None, told)
    assert [record for record in caplog.records if told in record.getMessage() and record.exc_info]


@pytest.mark.parametrize("field", ["X-Request-Id: r%d", "traceparent: 00-%032d-00f067aa0ba902b7-01"])
def test_heads_that_differ_in_what_is_new_each_time_are_known(tmp_path: Path, field: str) -> None:
    publish(TableStore(tmp_path), "words", ROWS, TOKENS)
    asked = raw.request(np.array([5], dtype="<i8").tobytes(), LOOKUP, media=OCTETS)
    with wired(tmp_path) as world, world.connect() as connection:
        for number in range(1, 9):
            line = b"\r\n" + (field % number).encode()
            connection.push(asked.head.replace(b"\r\nHost", line + b"\r\nHost") + asked.body)
            answer = connection.answer()
            assert answer.status == 200
            assert answer.field("x-request-id") == (f"r{number}" if field.startswith("X") else None)
        assert len(Heads.of(world.service.front)) == 1


def test_the_id_of_a_request_that_found_no_place_is_not_that_of_the_next(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "words", ROWS, TOKENS)
    with wired(tmp_path, max_in_flight=1) as world, world.connect() as connection:
        admission = world.service.served.admission
        admission.in_flight += 1
        for asked, given in ((b'{"ids":[5]}', b"mine"), (b'{"ids":[99]}', b"")):
            head = raw.request(asked, LOOKUP)
            line = b"\r\nx-request-id: " + given if given else b""
            connection.push(head.head.replace(b"\r\nHost", line + b"\r\nHost") + head.body)
            answer = connection.answer()
            if given:
                assert (answer.status, answer.field("x-request-id")) == (503, "mine")
                admission.leave()
            else:
                assert answer.status == 422
                assert MADE.fullmatch(str(answer.field("x-request-id")))
