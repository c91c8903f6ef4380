"""Lookups beyond the limits: of one version whatever happens between their parts, with errors told of the whole."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.client import (
    Client,
    InvalidRequest,
    Limits,
    NotRepresentable,
    OutOfVocabulary,
    RequestTooLarge,
    VersionNotFound,
)
from service.settings import Settings
from service.store import TableStore
from tests.client.both import Kind, opened
from tests.client.scripted import Scripted, answer, info, problem, scripted, vectors
from tests.world import publish, serving

ROWS = np.random.default_rng(5).normal(size=(50, 4)).astype(np.float32)
FEW = Limits(max_ids=10)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that takes ten ids."""
    root = tmp_path_factory.mktemp("narrow")
    publish(TableStore(root), "words", ROWS, [f"w{i}" for i in range(50)], padding_id=0)
    publish(TableStore(root), "large", [[1.0], [7e4]])
    with serving(root, max_ids=10) as http:
        yield str(http.base_url)


def test_the_shipped_limits_are_those_of_the_service() -> None:
    defaults = Settings.model_fields
    assert Limits() == Limits(
        defaults["max_ids"].default, defaults["max_body_bytes"].default, defaults["max_response_bytes"].default
    )


def test_parts_are_asked_of_the_version_of_the_first(kind: Kind) -> None:
    ids = np.arange(25)
    said = [vectors(ROWS[:10], 7), info(7), vectors(ROWS[10:20], 7), vectors(ROWS[20:25], 7)]
    with scripted(*said) as server, opened(kind, server.url, limits=FEW) as client:
        found = client.lookup("words", ids, label="stable")
    assert found.vectors.tobytes() == ROWS[:25].tobytes()
    assert (found.version, found.mask.shape) == (7, (25,))
    assert lookups(server) == ["/labels/stable/lookup", "/versions/7/lookup", "/versions/7/lookup"]


def test_it_begins_again_where_the_version_is_gone_between_parts(kind: Kind) -> None:
    gone = problem("version_not_found", 404, table="words", version=1)
    said = [vectors(ROWS[:10]), info(), gone, vectors(ROWS[:10] * 2, 2), info(2), vectors(ROWS[10:15] * 2, 2)]
    with scripted(*said) as server, opened(kind, server.url, limits=FEW) as client:
        found = client.lookup("words", np.arange(15))
    assert found.vectors.tobytes() == (ROWS[:15] * 2).tobytes()
    assert found.version == 2
    assert lookups(server) == ["/lookup", "/versions/1/lookup", "/lookup", "/versions/2/lookup"]


def test_a_version_that_was_asked_for_and_is_gone_is_an_error(kind: Kind) -> None:
    gone = problem("version_not_found", 404, table="words", version=1)
    with scripted(vectors(ROWS[:10]), info(), gone) as server, opened(kind, server.url, limits=FEW) as client:
        with pytest.raises(VersionNotFound):
            client.lookup("words", np.arange(15), version=1)
        assert lookups(server) == ["/versions/1/lookup"] * 2


def test_it_does_not_begin_again_for_ever(kind: Kind) -> None:
    gone = problem("version_not_found", 404, table="words", version=1)
    said = [vectors(ROWS[:10]), info(), gone, *[vectors(ROWS[:10]), gone] * 10]
    with scripted(*said) as server, opened(kind, server.url, limits=FEW) as client:
        with pytest.raises(VersionNotFound):
            client.lookup("words", np.arange(15))
        assert lookups(server) == ["/lookup", "/versions/1/lookup"] * 6


def lookups(server: Scripted) -> list[str]:
    return [
        line.removeprefix("POST /v1/tables/words").partition("?")[0]
        for line in server.lines()
        if line.startswith("POST")
    ]


def test_what_the_service_says_of_its_limits_is_kept(kind: Kind) -> None:
    refused = problem("request_too_large", 413, limit="EMBEDDING_MAX_IDS", allowed=10)
    said = [refused, vectors(ROWS[:10]), info(), vectors(ROWS[10:20]), vectors(ROWS[:10]), vectors(ROWS[10:20])]
    with scripted(*said) as server, opened(kind, server.url) as client:
        for _ in range(2):
            assert client.lookup("words", np.arange(20)).vectors.tobytes() == ROWS[:20].tobytes()
        assert len(lookups(server)) == 5


def test_a_limit_of_a_proxy_halves_the_parts(kind: Kind) -> None:
    refused = answer(413, b"<html>413 Request Entity Too Large</html>")
    with (
        scripted(refused, vectors(ROWS[:8]), info(), vectors(ROWS[8:16])) as server,
        opened(kind, server.url) as client,
    ):
        assert client.lookup("words", np.arange(16)).vectors.tobytes() == ROWS[:16].tobytes()


@pytest.mark.parametrize(
    "limits",
    [{"max_body_bytes": 400}, {"max_response_bytes": 400}, {"max_ids": 7}],
    ids=["body", "answer", "ids"],
)
@pytest.mark.parametrize("known", [True, False])
def test_every_limit_is_kept(tmp_path: Path, kind: Kind, limits: dict[str, Any], known: bool) -> None:
    publish(TableStore(tmp_path), "words", ROWS, [f"w{i}" for i in range(50)])
    with (
        serving(tmp_path, **limits) as http,
        opened(kind, str(http.base_url), limits=Limits(**limits) if known else Limits()) as client,
    ):
        ids = np.random.default_rng(1).integers(0, 50, (60, 2))
        assert client.lookup("words", ids).vectors.tobytes() == ROWS[ids].tobytes()
        ragged = [list(range(i % 4)) for i in range(40)]
        found = client.lookup("words", ragged)
        assert found.vectors.shape == (40, 3, 4)
        assert found.mask.sum() == sum(map(len, ragged))
        tokens = [f"w{i}" for i in ids[:, 0]]
        assert client.lookup("words", tokens=tokens).vectors.tobytes() == ROWS[ids[:, 0]].tobytes()


def test_ids_outside_are_told_of_the_whole_batch(narrow: str, kind: Kind) -> None:
    ids = np.arange(40).reshape(20, 2)
    ids[[7, 12, 19], 1] = [50, -1, 2**62]
    with opened(kind, narrow) as client, pytest.raises(OutOfVocabulary) as refused:
        client.lookup("words", ids)
    assert refused.value.total == 3
    assert refused.value.errors == [
        {"index": [7, 1], "id": 50},
        {"index": [12, 1], "id": -1},
        {"index": [19, 1], "id": 2**62},
    ]
    assert str(refused.value) == (
        "id 50 at [7, 1] is not in table words version 1, which has the ids 0 to 49 (and 2 more)"
    )


def test_of_very_many_the_first_hundred_are_named(narrow: str, kind: Kind) -> None:
    ids = [[3]] * 30 + [[2**70]] * 130
    with opened(kind, narrow) as client, pytest.raises(OutOfVocabulary) as refused:
        client.lookup("words", ids)
    assert (refused.value.total, len(refused.value.errors)) == (130, 100)
    assert refused.value.errors[-1] == {"index": [129, 0], "id": 2**70}


def test_tokens_outside_are_told_with_their_place(narrow: str, kind: Kind) -> None:
    tokens = [["w1"]] * 33 + [["none"], ["w2"], ["nil"]]
    with opened(kind, narrow) as client, pytest.raises(OutOfVocabulary) as refused:
        client.lookup("words", tokens=tokens)
    assert refused.value.errors[0] == {"index": [33, 0], "token": "none"}
    assert "token 'none' at [33, 0] is not in table words" in str(refused.value)


def test_other_errors_are_told_with_their_place(narrow: str, kind: Kind) -> None:
    with opened(kind, narrow) as client:
        with pytest.raises(InvalidRequest) as refused:
            client.lookup("words", [[1], [2]] * 12 + [[3, 4]], length=1)
        assert refused.value.field == "ids[24]"
        assert "the sequence ids[24] has 2 positions" in str(refused.value)
        for asked, index in (({}, [17, 0, 0]), ({"flatten": True}, [17, 0]), ({"pooling": "sum"}, [17, 0])):
            with pytest.raises(NotRepresentable) as beyond:
                client.lookup("large", [[0]] * 17 + [[1]], dtype="float16", **asked)
            assert beyond.value.members["index"] == index
            assert f"the value at {index} of the result" in str(beyond.value)


@pytest.mark.parametrize("asked", [{"pooling": "sum"}, {"length": 30}])
def test_one_sequence_that_is_pooled_or_padded_is_not_divided(
    narrow: str, kind: Kind, asked: dict[str, object]
) -> None:
    with opened(kind, narrow) as client, pytest.raises(RequestTooLarge) as refused:
        client.lookup("words", np.zeros(11, int), **asked)
    assert refused.value.limit == "EMBEDDING_MAX_IDS"


def test_a_row_beyond_the_limit_is_an_error(narrow: str, kind: Kind) -> None:
    with opened(kind, narrow) as client, pytest.raises(RequestTooLarge):
        client.lookup("words", np.zeros((3, 11), int))


def test_several_lookups_are_never_divided(narrow: str, kind: Kind) -> None:
    with opened(kind, narrow) as client, pytest.raises(RequestTooLarge):
        client.lookup_many([{"table": "words", "ids": [1] * 6}, {"table": "words", "ids": [1] * 6}])


def test_a_body_beyond_the_limit_of_the_default_is_divided(tmp_path: Path, kind: Kind) -> None:
    publish(TableStore(tmp_path), "words", ROWS)
    with serving(tmp_path) as http, opened(kind, str(http.base_url)) as client:
        ids = np.random.default_rng(2).integers(0, 50, 600_000)
        assert client.lookup("words", ids).vectors.tobytes() == ROWS[ids].tobytes()


def test_every_answer_is_of_one_version_while_they_come_and_go(tmp_path: Path) -> None:
    """Versions are activated and the ones before deleted, as fast as that goes."""
    publish(TableStore(tmp_path), "words", ROWS)
    stop = threading.Event()
    with (
        serving(tmp_path, admin_token="secret") as http,
        Client(str(http.base_url), limits=FEW, token="secret") as client,
        ThreadPoolExecutor() as pool,
    ):

        def swap() -> int:
            version = 1
            while not stop.is_set():
                version = client.publish("words", ROWS * (version + 1), activate=True).version
                client.delete_version("words", version - 1)
            return version

        swapping = pool.submit(swap)
        ids = np.random.default_rng(3).integers(0, 50, 60)
        versions = set()
        try:
            for _ in range(60):
                try:
                    found = client.lookup("words", ids)
                except VersionNotFound:
                    continue  # six times in a row, it was deleted between two parts
                versions.add(found.version)
                assert found.vectors.tobytes() == (ROWS[ids] * np.float32(found.version)).tobytes()
        finally:
            stop.set()
        assert swapping.result(60) > 3
    assert len(versions) > 1
