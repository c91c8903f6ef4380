"""Errors of the client: a class for every code of the service, with the built-in that a caller expects."""

import copy
import pickle

import pytest

from service import client as module
from service.api.errors import KINDS
from service.client import (
    ConnectionFault,
    ConnectionTimeout,
    EmbeddingServiceError,
    Forbidden,
    InternalError,
    InvalidJson,
    NotRepresentable,
    NoUnknownRow,
    NoVocabulary,
    Problem,
    RequestTooLarge,
    Retries,
    Unauthorized,
    UnexpectedAnswer,
    UnknownProblem,
    WrongType,
    errors,
)
from service.client.errors import BY_CODE, digits_of, integer_of, loads
from tests.client.both import Asked, Kind, opened
from tests.client.scripted import SILENCE, answer, problem, scripted

BUILT_IN = {
    "invalid_json": ValueError,
    "unauthorized": PermissionError,
    "forbidden": PermissionError,
    "not_found": LookupError,
    "table_not_found": LookupError,
    "version_not_found": LookupError,
    "label_not_found": LookupError,
    "request_too_large": ValueError,
    "invalid_request": ValueError,
    "out_of_vocabulary": LookupError,
    "no_vocabulary": LookupError,
    "no_unknown_row": LookupError,
    "not_representable": ArithmeticError,
    "timeout": TimeoutError,
    "insufficient_storage": OSError,
}
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EmbeddingServiceError)]


def test_every_code_of_the_service_has_a_class() -> None:
    assert set(BY_CODE) == set(KINDS)


@pytest.mark.parametrize("code", KINDS)
def test_a_problem_becomes_the_class_of_its_code(kind: Kind, code: str) -> None:
    status = KINDS[code].status
    said = problem(code, status, request_id="abc", reason="because")
    with scripted(said) as server, opened(kind, server.url, retries=None) as client, pytest.raises(Problem) as caught:
        client.tables()
    error = caught.value
    assert type(error) is BY_CODE[code]
    assert isinstance(error, BUILT_IN.get(code, Exception))
    assert (error.code, error.status, str(error), error.detail) == (code, status, f"it is {code}", f"it is {code}")
    assert error.members == {"request_id": "abc", "reason": "because"}
    assert error.request_id == "abc"


@pytest.mark.parametrize("kind_of", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_is_exported_said_and_survives_a_copy(kind_of: type[EmbeddingServiceError]) -> None:
    assert getattr(module, kind_of.__name__) is kind_of
    assert kind_of.__name__ in module.__all__
    assert f" {kind_of.__name__} " in str(errors.__doc__).replace("\n", " ")
    error = kind_of("said", 422, {"code": "new", "table": "words"})
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind_of
        assert (str(twin), twin.status, twin.members, twin.code) == ("said", 422, error.members, error.code)


def test_an_unknown_code_is_a_problem_of_its_own(kind: Kind) -> None:
    with scripted(problem("melted", 418)) as server, opened(kind, server.url) as client:
        with pytest.raises(UnknownProblem, match="it is melted") as caught:
            client.tables()
        assert (caught.value.code, caught.value.status) == ("melted", 418)


def test_a_page_of_a_proxy_is_no_problem_of_the_service(kind: Kind) -> None:
    page = answer(502, b"<html>\n <h1>502 Bad Gateway</h1></html>", content_type="text/html", x_request_id="abc")
    with scripted(page) as server, opened(kind, server.url, retries=None) as client:
        with pytest.raises(UnexpectedAnswer, match=r"status 502.*Bad Gateway") as caught:
            client.tables()
        assert (caught.value.code, caught.value.status, caught.value.request_id) == (None, 502, "abc")


def test_no_connection_and_no_answer_have_their_cause(kind: Kind) -> None:
    with scripted(SILENCE) as server, opened(kind, server.url, timeout=0.05, retries=None) as client:
        with pytest.raises(ConnectionTimeout) as late:
            client.lookup("words", [1])
        port = server.port
    assert isinstance(late.value, TimeoutError)
    assert isinstance(late.value, ConnectionError)
    assert type(late.value.__cause__).__name__ == "ReadTimeout"
    said = f"no answer from http://127.0.0.1:{port}: "
    with opened(kind, said[15:-2], retries=None) as client, pytest.raises(ConnectionFault, match=said) as refused:
        client.lookup("words", [1])
    assert not isinstance(refused.value, TimeoutError)
    assert type(refused.value.__cause__).__name__ == "ConnectError"


@pytest.mark.parametrize(
    ("asked", "kind_of"),
    [
        ({"table": "plain", "tokens": ["a"]}, NoVocabulary),
        ({"table": "padded", "tokens": ["\ud800"]}, InvalidJson),
        ({"table": "plain", "ids": [9], "on_oov": "unk"}, NoUnknownRow),
        ({"table": "large", "ids": [[0], [1]], "dtype": "float16"}, NotRepresentable),
    ],
)
def test_the_service_says_it(client: Asked, asked: dict[str, object], kind_of: type[Exception]) -> None:
    with pytest.raises(kind_of):
        client.lookup(**asked)


def test_a_sequence_that_cannot_be_divided_is_too_large(client: Asked) -> None:
    with pytest.raises(RequestTooLarge) as refused:
        client.lookup("plain", [0] * 262_145, pooling="sum")
    assert (refused.value.limit, refused.value.allowed) == ("EMBEDDING_MAX_IDS", 262_144)


def test_the_admin_api_wants_a_token_and_is_off_without_one(url: str, kind: Kind) -> None:
    with opened(kind, url, token="secret") as client, pytest.raises(Forbidden):
        client.rollback("plain")
    said = problem("unauthorized", 401)
    with scripted(said) as server, opened(kind, server.url) as client, pytest.raises(Unauthorized):
        client.rollback("plain")


def test_a_fault_of_the_service_is_not_tried_again(kind: Kind) -> None:
    with scripted(problem("internal", 500, request_id="abc")) as server, opened(kind, server.url) as client:
        with pytest.raises(InternalError) as caught:
            client.lookup("words", [1])
        assert caught.value.request_id == "abc"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "number", [0, -7, 10**4299, 10**4300, -(10**4300), 3**30_000, -(7**20_000) - 1], ids=int.bit_length
)
def test_integers_of_any_size_are_written_and_read(number: int) -> None:
    assert integer_of(digits_of(number)) == number
    assert loads(b'{"id": %b}' % digits_of(number).encode())["id"] == number


def test_wrong_types_are_invalid_requests_too() -> None:
    assert issubclass(WrongType, TypeError)
    assert issubclass(WrongType, ValueError)
    assert Retries() == Retries(deadline=10.0)
