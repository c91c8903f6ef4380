"""What users send, and what they take for an answer: every question against the service, and answers made wrong."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import httpx
import numpy as np
import orjson
import pytest

from load_tests.locust_users.checking import Checker
from load_tests.locust_users.drawing import Questions
from load_tests.locust_users.in_force import InForce
from load_tests.locust_users.kinds import KINDS
from load_tests.locust_users.options import Options, lengths, pair
from load_tests.locust_users.question import Question
from load_tests.locust_users.table import Table, TableUnusable
from load_tests.locust_users.told import Answer, WrongAnswer
from load_tests.locust_users.zipf import zipf_ids
from service.store import TableStore
from tests.world import publish, serving

ROWS: Final = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
OPTIONS: Final = Options(
    table="words", ids_per_request=24, zipf=0.5, oov_share=0.5, lengths=(1, 6), wait_ms=0, questions=20, seed=0,
    retry_connects=0, swap_every=0, swap_table=None, swap_versions=None, swap_rows=10, swap_lag=0, token=None,
    max_failure_share=0, max_p99_ms=None,
)  # fmt: skip


@pytest.fixture(scope="module", params=[None, 0], ids=["no padding id", "padding id 0"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = tmp_path_factory.mktemp("store")
    publish(TableStore(store), "words", ROWS, padding_id=request.param)
    publish(TableStore(store), "words", -ROWS, padding_id=request.param, activate=False)
    with serving(store, keep_loaded=1) as served:
        yield served


def described(client: httpx.Client) -> Table:
    return Table.read(str(client.base_url).rstrip("/"), "words")


def answered(client: httpx.Client, question: Question, version: int | None = None) -> Answer:
    path = question.path
    if version is not None:
        path = path.replace("/words/", f"/words/versions/{version}/")
    answer = client.post(path, content=question.body, headers=dict(question.headers))
    return Answer(answer.status_code, dict(answer.headers), answer.content)


@pytest.mark.parametrize("kind", KINDS)
def test_every_question_is_answered_as_it_expects(client: httpx.Client, kind: str) -> None:
    table = described(client)
    questions, checker = Questions.drawn(table, OPTIONS, 0), Checker(table, 0)
    for _ in range(20):
        for source in (questions.within, questions.beyond):
            question = next(source[kind])
            checker.check(question, answered(client, question), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_another_version_are_found(client: httpx.Client, kind: str) -> None:
    table = described(client)
    questions, checker = Questions.drawn(table, OPTIONS, 0), Checker(table, 0)
    learn(client, checker, questions)
    question = next(questions.within[kind])
    checker.check(question, answered(client, question, 1), 0)
    with pytest.raises(WrongAnswer, match=r"had before|headers differ"):
        checker.check(question, as_version(answered(client, question, 2), 1), 0)


def learn(client: httpx.Client, checker: Checker, questions: Questions) -> None:
    for _ in range(20):
        question = next(questions.within["raw flat"])
        checker.check(question, answered(client, question, 1), 0)


def as_version(answer: Answer, version: int) -> Answer:
    """An answer that says it were of another version than it is, wherever it says so."""
    names = {b'"version":2': b'"version":%d' % version, b'"model_version":"2"': b'"model_version":"%d"' % version}
    body = answer.body
    for was, now in names.items():
        body = body.replace(was, now)
    return Answer(answer.status, {**answer.headers, "embedding-version": str(version)}, body)


def in_json(change: Callable[[Any], object]) -> Callable[[Answer], Answer]:
    def changed(answer: Answer) -> Answer:
        said = orjson.loads(answer.body)
        change(said)
        return replace(answer, body=orjson.dumps(said))

    return changed


def in_header(name: str, value: str) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, headers={**answer.headers, name: value})


@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        ("json flat", in_json(lambda said: said["vectors"].pop()), "unreadable"),
        ("json flat", in_json(lambda said: said.update(version=3)), "body and headers differ"),
        ("json flat", in_json(lambda said: said["mask"].__setitem__(0, not said["mask"][0])), "with another mask"),
        ("json flat", in_json(lambda said: said.pop("mask")), "without one"),
        ("json flat", in_header("embedding-table", "others"), "body and headers differ"),
        ("raw flat", in_header("embedding-table", "others"), "of another table"),
        ("raw flat", in_header("embedding-shape", "12,8"), "of another shape"),
        ("raw flat", lambda answer: replace(answer, body=answer.body[:-4]), "unreadable"),
        ("raw batch", lambda answer: replace(answer, body=bytes(len(answer.body))), "rows that differ"),
        ("raw flat", lambda answer: replace(answer, status=503, body=b'{"code":"overloaded"}'), "503 overloaded"),
        ("raw flat", lambda answer: replace(answer, status=502, body=b"<html>"), "502 without a code"),
        ("v2 json", in_json(lambda said: said.update(model_name="others")), "of another table"),
        ("v2 binary", lambda answer: replace(answer, body=answer.body + b" "), "bytes behind"),
        ("v2 binary", in_header("inference-header-content-length", "1"), "unreadable"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_right_is_found(
    client: httpx.Client, kind: str, change: Callable[[Answer], Answer], found: str
) -> None:
    table = described(client)
    questions, checker = Questions.drawn(table, OPTIONS, 0), Checker(table, 0)
    learn(client, checker, questions)
    question = next(questions.within[kind])
    answer = answered(client, question)
    checker.check(question, answer, 0)
    with pytest.raises(WrongAnswer, match=found):
        checker.check(question, change(answer), 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(code="invalid_request"),
        lambda said: said.update(total=said["total"] + 1),
        lambda said: said["errors"][0].update(index=[99]),
        lambda said: said["errors"][0].update(id=0),
        lambda said: said.update(num_embeddings=49),
        lambda said: said.update(table="others"),
    ],
    ids=["code", "total", "index", "id", "rows", "table"],
)
def test_an_error_for_ids_outside_the_table_has_to_be_exact(
    client: httpx.Client, change: Callable[[Any], object]
) -> None:
    table = described(client)
    question = next(Questions.drawn(table, OPTIONS, 0).beyond["json flat"])
    answer = answered(client, question)
    Checker(table, 0).check(question, answer, 0)
    with pytest.raises(WrongAnswer, match="not named as they are"):
        Checker(table, 0).check(question, in_json(change)(answer), 0)


def test_ids_outside_the_table_that_are_answered_with_rows_are_found(client: httpx.Client) -> None:
    table = described(client)
    questions = Questions.drawn(table, OPTIONS, 0)
    answer = answered(client, next(questions.within["raw flat"]))
    with pytest.raises(WrongAnswer, match="ids outside the table: 200"):
        Checker(table, 0).check(next(questions.beyond["raw flat"]), answer, 0)


def test_a_table_that_is_not_there_is_said(client: httpx.Client) -> None:
    with pytest.raises(TableUnusable, match="there is no table 'nobody'"):
        Table.read(str(client.base_url).rstrip("/"), "nobody")


def test_the_same_seed_draws_the_same_questions_and_another_process_others(client: httpx.Client) -> None:
    table = described(client)
    bodies = [next(Questions.drawn(table, OPTIONS, process).within["raw flat"]).body for process in (0, 0, 1)]
    assert bodies[0] == bodies[1] != bodies[2]


# Which version may answer


def test_either_version_may_answer_until_an_activation_has_returned() -> None:
    in_force = InForce()
    assert in_force.allows(7, 0)
    in_force.begins(1, 2)
    assert in_force.allows(1, 0)
    assert in_force.allows(2, 0)
    assert not in_force.allows(3, 0)
    before = 0.0
    in_force.returned(2)
    assert in_force.allows(1, before)
    assert not in_force.allows(1, float("inf"))
    assert in_force.allows(2, float("inf"))


def test_a_lag_lets_the_version_before_answer_a_while() -> None:
    in_force = InForce(lag=3600)
    in_force.begins(1, 2)
    in_force.returned(2)
    ended = next(span.ended for span in in_force._spans if span.version == 1)
    assert in_force.allows(1, ended + 3599)
    assert not in_force.allows(1, ended + 3601)


def test_an_activation_that_failed_leaves_both_possible() -> None:
    in_force = InForce()
    in_force.begins(1, 2)
    in_force.begins(1, 2)
    assert in_force.allows(1, float("inf"))
    in_force.returned(2)
    assert not in_force.allows(1, float("inf"))


# What is drawn, and what is read from the command line


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5])
def test_ids_are_within_the_table_and_small_ones_as_frequent_as_the_law_says(exponent: float) -> None:
    ids = zipf_ids(np.random.default_rng(0), 200_000, 1000, exponent)
    assert ids.min() == 0
    assert ids.max() == 999
    counts = Counter(ids.tolist())
    edges = np.arange(1, 1002, dtype=float)
    whole = np.log(edges) if exponent == 1 else (edges ** (1 - exponent)) / (1 - exponent)
    shares = np.diff(whole) / (whole[-1] - whole[0])
    for rank in (0, 1, 10, 100):
        assert counts[rank] / 200_000 == pytest.approx(shares[rank], rel=0.2)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tiny_tables_have_their_ids(rows: int) -> None:
    assert set(zipf_ids(np.random.default_rng(0), 1000, rows, 1.0).tolist()) == set(range(rows))


def test_lengths_and_versions_are_read_and_others_refused() -> None:
    assert (lengths("8"), lengths("1-16"), pair("1,2")) == ((8, 8), (1, 16), (1, 2))
    for text in ("0-3", "4-2", "x", ""):
        with pytest.raises(ValueError):
            lengths(text)
    for text in ("1", "1,1", "1,x"):
        with pytest.raises(ValueError):
            pair(text)


def test_locust_is_not_imported_here() -> None:
    assert "locust" not in sys.modules, "it changes sockets and threads of the process that imports it"
