"""The model repository over real workers and the steward: load and unload in every worker, behind the admin token."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.server.test_admin import OPTIONS, SETTINGS, admin_of, fresh, ok
from tests.world import KERAS_ROWS, publish

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` has the versions 1 (active), 2 and 3; version n is n times the rows."""
    store = TableStore(tmp_path / "store")
    for version in (1, 2, 3):
        publish(store, "words", KERAS_ROWS * version, activate=version == 1)
    return store


@contextmanager
def served(store: TableStore, *options: str) -> Iterator[tuple[Running, triton.InferenceServerClient]]:
    with (
        running(store.root, *OPTIONS, *options, settings=SETTINGS) as server,
        triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=60) as client,
    ):
        yield server, client


def statuses(server: Running, connections: int = 24) -> Counter[tuple[int, str | None]]:
    """Status and version that inferences get over so many fresh connections, which spread over all workers."""
    asked = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [0]}]}
    with fresh() as client:
        answers = [client.post(f"{server.url}/v2/models/words/infer", json=asked) for _ in range(connections)]
    return Counter((answer.status_code, answer.json().get("model_version")) for answer in answers)


def test_load_and_unload_reach_every_worker(store: TableStore) -> None:
    with served(store) as (server, client):
        assert statuses(server) == {(200, "1"): 24}
        client.load_model("words", headers=TOKEN)
        assert statuses(server) == {(200, "3"): 24}
        client.unload_model("words", headers=TOKEN)
        assert statuses(server) == {(503, None): 24}
        index = client.get_model_repository_index()
        assert {(each["state"], each["reason"]) for each in index} == {("AVAILABLE", "it was unloaded")}
        assert not client.is_model_ready("words")
        assert client.is_server_ready()
        policy = json.dumps({"version_policy": {"specific": {"versions": [2]}}})
        client.load_model("words", headers=TOKEN, config=policy)
        assert statuses(server) == {(200, "2"): 24}
        with admin_of(server.url) as admin:
            answer = admin.post("/v2/repository/models/words/load", json={"parameters": {"version": "1"}})
            assert ok(answer) == {}
            events = ok(admin.get("/v1/admin/tables/words"))["history"]
        assert statuses(server) == {(200, "1"): 24}
    told = [(event["event"], event["version"], event["previous_version"]) for event in events]
    assert told == [
        ("activation", 1, None), ("activation", 3, 1), ("unloading", 3, None), ("activation", 2, None),
        ("activation", 1, 2),
    ]  # fmt: skip
    assert events[-1]["by"] == "activate by admin"


def test_a_table_that_was_unloaded_stays_so_in_workers_that_come_later(store: TableStore) -> None:
    with served(store) as (server, client):
        client.unload_model("words", headers=TOKEN)
    with served(store) as (server, client):
        assert statuses(server) == {(503, None): 24}
        client.load_model("words", headers=TOKEN)
        assert statuses(server) == {(200, "3"): 24}


def test_inferences_under_way_are_answered_while_versions_come_and_go(store: TableStore) -> None:
    """Every answer is of one version, or says that there is none."""
    stop = Event()
    answered: list[int] = []

    def infer(url: str) -> None:
        asked = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [7], "data": list(range(7))}]}
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                answer = client.post(f"{url}/v2/models/words/infer", json=asked)
                answered.append(answer.status_code)
                if answer.status_code == 200:
                    said = answer.json()
                    rows = KERAS_ROWS * int(said["model_version"])
                    assert said["outputs"][0]["data"] == pytest.approx(rows.ravel().tolist(), rel=1e-6)

    def some_more() -> None:
        before = len(answered)
        until(lambda: len(answered) >= before + 40, 30)

    with served(store) as (server, client), ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(infer, server.url) for _ in range(4)]
        for turn in range(6):
            if turn % 3 == 2:
                client.unload_model("words", headers=TOKEN)
            else:
                client.load_model("words", headers=TOKEN)
            some_more()
        stop.set()
        for each in clients:
            each.result()
    assert set(answered) == {200, 503}


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown parameter": (
        "load",
        {"parameters": {"file:1/model.onnx": "x"}},
        "unknown parameter 'file:1/model.onnx'",
    ),
    "a version that is a word": ("load", {"parameters": {"version": "new"}}, "table 'words' has no version new"),
    "a version that is none": ("load", {"parameters": {"version": 4}}, "table 'words' has no version 4"),
    "a version that is a list": ("load", {"parameters": {"version": [1]}}, "version must be an integer or its text"),
    "a config that is an object": ("load", {"parameters": {"config": {}}}, "config must be the text of a JSON object"),
    "a config that is no JSON": ("load", {"parameters": {"config": "{"}}, "not valid JSON"),
    "two versions": (
        "load",
        {"parameters": {"config": '{"version_policy":{"specific":{"versions":[1,2]}}}'}},
        "the version policy must name one specific version",
    ),
    "a policy of another form": (
        "load",
        {"parameters": {"config": '{"version_policy":{"specific":[1]}}'}},
        "the version policy must name one specific version",
    ),
    "parameters of another verb": ("unload", {"parameters": {"version": 1}}, "unknown parameter 'version'"),
    "a list of parameters": ("load", {"parameters": []}, "an object with an object of parameters"),
}


def test_what_is_wrong_changes_nothing(store: TableStore) -> None:
    with served(store) as (server, client), admin_of(server.url) as admin:
        for verb, body, text in WRONG.values():
            answer = admin.post(f"/v2/repository/models/words/{verb}", json=body)
            assert answer.status_code in (400, 404)
            assert (list(answer.json()), text in answer.json()["error"]) == (["error"], True), answer.text
        for headers, said in (({}, "a token is needed"), ({"Authorization": "Bearer x"}, "is not one of those")):
            for verb in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException, match=said) as error:
                    verb("words", headers=headers)
                assert error.value.status() == "401"
        with pytest.raises(InferenceServerException, match="there is no table 'nothing'"):
            client.unload_model("nothing", headers=TOKEN)
        assert admin.get("/v2/repository/models/words/load").status_code == 405
        assert statuses(server) == {(200, "1"): 24}


def test_on_the_admin_port_where_there_is_one(store: TableStore) -> None:
    with served(store, "--admin-port", "0") as (server, client):
        with pytest.raises(InferenceServerException, match="on a port of its own"):
            client.load_model("words", headers=TOKEN)
        (admin,) = [
            part for part in server.log.read_text().split() if part.startswith("http://") and part != server.url
        ]
        with triton.InferenceServerClient(admin.removeprefix("http://")) as other:
            with pytest.raises(InferenceServerException, match="a token is needed"):
                other.load_model("words")
            other.load_model("words", headers=TOKEN)
        assert statuses(server) == {(200, "3"): 24}


def test_without_a_token_it_is_off(store: TableStore) -> None:
    with running(store.root, *OPTIONS) as server:
        answer = httpx.post(f"{server.url}/v2/repository/models/words/load", json={})
        assert (answer.status_code, "the admin API is off" in answer.json()["error"]) == (403, True)
