"""What the client knows of versions, and when it asks again: with the time, and where another server may answer."""

import numpy as np
import pytest

from service.client.facts import KEPT_SECONDS, Facts, KnownFacts
from tests.client.both import Kind, opened
from tests.client.scripted import CLOSE, answer, info, problem, scripted, vectors

FACTS = Facts(0, 7, "error")
ROWS = np.zeros((2, 3), dtype=np.float32)


class Clock:
    """Seconds that go by when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_facts_are_known_for_a_while() -> None:
    clock = Clock()
    known = KnownFacts(clock)
    known.keep("words", 1, 0, FACTS)
    clock.now = KEPT_SECONDS - 1
    assert known.get("words", 1, 0) == FACTS
    clock.now = KEPT_SECONDS
    assert known.get("words", 1, 0) is None


def test_facts_are_those_of_a_version_and_of_the_server_that_told_them() -> None:
    known = KnownFacts(Clock())
    known.keep("words", 1, 0, FACTS)
    assert known.get("words", 2, 0) is None
    assert known.get("other", 1, 0) is None
    assert known.get("words", 1, 1) is None


def test_facts_do_not_grow_without_end() -> None:
    known = KnownFacts(Clock())
    for version in range(5000):
        known.keep("words", version, 0, FACTS)
    assert known.get("words", 0, 0) is None
    assert known.get("words", 4999, 0) == FACTS


@pytest.mark.parametrize(
    "failure", [CLOSE, problem("not_ready", 503, retry_after="0"), answer(502)], ids=["closed", "not ready", "502"]
)
def test_another_server_under_the_address_is_asked_for_its_facts(kind: Kind, failure: bytes) -> None:
    said = [vectors(ROWS), info(padding_id=0), failure, vectors(ROWS), info(padding_id=1)]
    with scripted(*said) as server, opened(kind, server.url) as client:
        assert client.lookup("words", [1, 0]).mask.tolist() == [True, False]
        assert client.lookup("words", [1, 0]).mask.tolist() == [False, True]


def test_the_next_address_is_asked_for_its_facts(kind: Kind) -> None:
    busy = problem("overloaded", 503, retry_after="3600")
    with (
        scripted(vectors(ROWS), info(padding_id=0), busy) as one,
        scripted(vectors(ROWS), info(padding_id=1)) as two,
        opened(kind, [one.url, two.url]) as client,
    ):
        assert client.lookup("words", [1, 0]).mask.tolist() == [True, False]
        assert client.lookup("words", [1, 0]).mask.tolist() == [False, True]


def test_a_server_that_is_busy_is_not_asked_again_for_its_facts(kind: Kind) -> None:
    busy = problem("overloaded", 503, retry_after="0")
    with scripted(vectors(ROWS), info(), busy, vectors(ROWS)) as server, opened(kind, server.url) as client:
        client.lookup("words", [1, 0])
        client.lookup("words", [1, 0])
        assert len(server.requests) == 4
