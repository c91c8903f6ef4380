"""Protocols that are switched on and off, and what all of them have in common: admission, metrics, faults of ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.dialects import MAKERS
from service.settings import DIALECTS, Settings
from tests.world import reachable, service_over, serving

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "v2": ("/v2/models/plain/infer", {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [1]}]}),
    "openai": ("/v1/embeddings", {"model": "plain", "input": [1]}),
    "tensorflow": ("/v1/models/plain:predict", {"instances": [1]}),
    "tei": ("/tei/plain/embed", {"inputs": [[1]]}),
}
WRONG: dict[str, dict[str, Any]] = {
    "v2": {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [9]}]},
    "openai": {"model": "plain", "input": [9]},
    "tensorflow": {"instances": [9]},
    "tei": {"inputs": [[9]]},
}
NOWHERE = {"openai": {"model": "nothing"}}
COUNTED = {"v2": "v2_infer", "openai": "openai_embeddings", "tensorflow": "tensorflow_predict", "tei": "tei_embed"}


def test_every_protocol_that_can_be_named_is_there() -> None:
    assert tuple(MAKERS) == DIALECTS == tuple(ASKED)
    assert Settings().spoken() == DIALECTS
    assert Settings(dialects="none").spoken() == Settings(dialects="").spoken() == ()


@pytest.mark.parametrize("chosen", [*DIALECTS, "none"])
def test_only_what_is_switched_on_is_there(store_root: Path, chosen: str) -> None:
    with serving(store_root, dialects=chosen) as client:
        for name, (path, asked) in ASKED.items():
            answer = client.post(path, json=asked)
            if name == chosen:
                assert answer.status_code == 200
            else:
                assert answer.status_code in (404, 405)
        assert client.get("/v2/models/plain/x").json().keys() == ({"error"} if chosen == "v2" else {*_PROBLEM})
        paths = client.get("/openapi.json").json()["paths"]
        assert any(path.startswith("/v2/") for path in paths) == (chosen == "v2")
        assert client.post("/v1/tables/plain/lookup", json={"ids": [1]}).status_code == 200


_PROBLEM = ("type", "title", "status", "detail", "code")


@pytest.mark.parametrize(
    ("chosen", "keys"),
    [
        ("openai", ["id", "object", "created", "owned_by"]),
        ("tensorflow", ["model_version_status"]),
        ("tensorflow,openai", ["id", "object", "created", "owned_by", "model_version_status"]),
    ],
)
def test_a_model_has_the_keys_of_what_is_switched_on(store_root: Path, chosen: str, keys: list[str]) -> None:
    with serving(store_root, dialects=chosen) as client:
        assert list(client.get("/v1/models/plain").json()) == keys
        assert client.get("/v1/models").status_code == (200 if "openai" in chosen else 404)


@pytest.fixture
def full(store_root: Path) -> Iterator[httpx.Client]:
    """A server that has as many lookups in flight as it may have."""
    service, _ = service_over(store_root, max_in_flight=1)
    service.front.lookups.admission.in_flight = 1
    with reachable(service, "wire") as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize("name", DIALECTS)
def test_too_many_in_flight_are_refused_in_the_protocols_own_words(full: httpx.Client, name: str) -> None:
    path, asked = ASKED[name]
    answer = full.post(path, json=asked)
    assert answer.status_code == (429 if name == "tei" else 503)
    assert answer.headers["retry-after"] == "1"
    said = answer.json()["error"]
    assert "EMBEDDING_MAX_IN_FLIGHT" in (said["message"] if name == "openai" else said)


@pytest.mark.parametrize("name", DIALECTS)
def test_lookups_are_counted(store_root: Path, name: str) -> None:
    path, asked = ASKED[name]
    with serving(store_root) as client:
        for _ in range(3):
            assert client.post(path, json=asked).status_code == 200
        assert client.post(path, json=WRONG[name]).status_code in (400, 422)
        assert client.post(path.replace("plain", "nothing"), json=asked | NOWHERE.get(name, {})).status_code == 404
        said = client.get("/metrics").text
    labels = f'code="200",endpoint="{COUNTED[name]}",table="plain",version="1"'
    assert f"embedding_requests_total{{{labels}}} 3.0" in said
    assert f'embedding_requests_total{{code="404",endpoint="{COUNTED[name]}",table="",version=""}} 1.0' in said
    assert 'embedding_ids_total{table="plain"} 3.0' in said
    assert 'embedding_oov_ids_total{table="plain"} 1.0' in said
    assert "nothing" not in said
