"""What a lookup takes and gives: arrays, sequences, tokens, versions, several tables, and what is refused unsent."""

import io
import json
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.client import (
    Client,
    InvalidRequest,
    LabelNotFound,
    Lookup,
    NotReady,
    OutOfVocabulary,
    Retries,
    TableNotFound,
    UnexpectedAnswer,
    VersionNotFound,
    WrongType,
)
from service.client.errors import EmbeddingServiceError
from tests.api.samples import ROWS, TOKENS
from tests.client.both import Asked, Kind, opened
from tests.client.scripted import answer, info, problem, scripted, vectors

Ids: TypeAlias = Any
IDS = np.array([[5, 1, 2], [3, 6, 0]])


def same(found: Lookup, ids: Ids) -> bool:
    return bool(found.vectors.tobytes() == ROWS[np.asarray(ids)].tobytes())


@pytest.mark.parametrize(
    "ids",
    [
        IDS,
        IDS.tolist(),
        tuple(map(tuple, IDS.tolist())),
        list(IDS),
        IDS.astype(np.int32),
        IDS.astype(np.uint8),
        IDS.astype(np.uint64),
        IDS.astype(">i8"),
        np.asfortranarray(IDS),
        np.repeat(IDS, 2, axis=0)[::2],
        [[np.int32(5), 1, 2], [3, np.uint8(6), 0]],
        [range(5, 6), range(1)],
        IDS.astype(object),
    ],
    ids=["int64", "lists", "tuples", "list of arrays", "int32", "uint8", "uint64", "big-endian", "fortran", "strided",
         "scalars", "ranges", "objects"],
)  # fmt: skip
def test_integers_of_every_kind_are_ids(client: Asked, ids: Ids) -> None:
    wanted = [[5], [0]] if isinstance(ids, list) and isinstance(ids[0], range) else IDS
    found = client.lookup("padded", ids)
    assert same(found, wanted)
    assert found.vectors.shape == (*np.shape(wanted), 3)
    assert found.mask.tolist() == (np.asarray(wanted) != 0).tolist()
    assert (found.table, found.version) == ("padded", 1)


def test_an_object_with_an_array_is_one(client: Asked) -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray[Any, Any]:
            return IDS

    assert same(client.lookup("padded", Tensor()), IDS)


@pytest.mark.parametrize(
    "ids", [[[5, 1, 2], [3]], [np.array([5, 1, 2]), np.array([3], np.int32)], ([5, 1, 2], np.array([3]))]
)
def test_a_ragged_batch_is_padded_and_masked(client: Asked, ids: Ids) -> None:
    found = client.lookup("padded", ids)
    assert same(found, [[5, 1, 2], [3, 0, 0]])
    assert found.mask.tolist() == [[True, True, True], [True, False, False]]


def test_a_ragged_batch_is_sent_as_what_the_service_knows(kind: Kind) -> None:
    """Before numpy 2.2 `savez` takes every keyword for an array."""
    rows = vectors(np.zeros((2, 2, 3), dtype=np.float32))
    with scripted(rows, info()) as server, opened(kind, server.url) as client:
        client.lookup("words", [[1, 2], [3]], mask=[[True, False], [True]])
    body = server.requests[0].partition(b"\r\n\r\n")[2]
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        assert sorted(arrays) == ["ids", "mask", "offsets"]
        assert arrays["offsets"].tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("ids", "shape"), [([], (0, 3)), ([[]], (1, 0, 3)), (np.zeros((0, 5), int), (0, 5, 3)), ([[], [1]], (2, 1, 3))]
)
def test_there_may_be_nothing(client: Asked, ids: Ids, shape: tuple[int, ...]) -> None:
    found = client.lookup("padded", ids)
    assert (found.vectors.shape, found.mask.shape) == (shape, shape[:-1])


def test_tokens_give_the_rows_of_their_ids(client: Asked) -> None:
    found = client.lookup("padded", tokens=[[TOKENS[4], TOKENS[0]], [TOKENS[5]]])
    assert same(found, [[4, 0], [5, 0]])
    assert found.mask.tolist() == [[True, False], [True, False]]
    assert client.lookup("padded", tokens=np.array(TOKENS[2:4])).vectors.tobytes() == ROWS[2:4].tobytes()
    assert client.lookup("padded", tokens=[["river"], ["zebra", "river"]], pooling="sum").mask is None


def test_vectors_are_float16_where_that_is_asked_for(client: Asked) -> None:
    for dtype in ("float16", np.float16, np.dtype("float16")):
        assert client.lookup("plain", [1, 2], dtype=dtype).vectors.tobytes() == ROWS[1:3].astype("f2").tobytes()
    assert client.lookup("padded", tokens=["river"], dtype="float16").vectors.dtype == np.float16


def test_versions_and_labels_choose_the_rows(client: Asked) -> None:
    assert [client.lookup("versions", [1], version=n).version for n in (1, 2, 3)] == [1, 2, 3]
    for label, version in (("stable", 1), ("canary", 3)):
        found = client.lookup("versions", [4], label=label)
        assert found.version == version
        assert found.vectors.tobytes() == (ROWS[[4]] * version).tobytes()
    assert client.lookup("versions", [4]).version == 2
    assert client.lookup("idle", [4], version=1).version == 1


def test_one_and_true_are_not_the_same(client: Asked) -> None:
    for wrong in ({"length": True}, {"length": 1.0}):
        with pytest.raises(InvalidRequest):
            client.lookup("plain", [[1]], **wrong)
        assert client.lookup("plain", [[1]], length=1).vectors.shape == (1, 1, 3)
    with pytest.raises(WrongType):
        client.lookup("plain", [1], version=True)
    assert client.lookup("plain", [1], version=1).version == 1


def test_integers_of_numpy_are_integers(client: Asked) -> None:
    for asked in ({"ids": [[1, 2]]}, {"ids": [[1, 2**70]], "on_oov": "zeros"}, {"tokens": [["river"]]}):
        found = client.lookup("padded", **asked, length=np.int64(3), version=np.int64(1))
        assert found.vectors.shape == (1, 3, 3)
    (one,) = client.lookup_many([{"table": "versions", "ids": [1], "version": np.int32(3), "length": np.uint8(2)}])
    assert (one.version, one.vectors.shape) == (3, (2, 3))
    assert client.table("versions", np.int64(3)).version == 3


def test_an_option_that_is_none_is_not_given(client: Asked) -> None:
    assert same(client.lookup("padded", IDS, length=None, on_oov=None, pooling=None, mask=None), IDS)


def test_an_option_that_does_not_exist_is_a_type_error(client: Asked) -> None:
    with pytest.raises(TypeError, match=r"unknown option lenght; there are .*length"):
        client.lookup("padded", IDS, lenght=3)
    with pytest.raises(TypeError, match="lookup 0: unknown option rows"):
        client.lookup_many([{"table": "plain", "ids": [1], "rows": 1}])
    with pytest.raises(TypeError, match="lookup 0 is no dict but str"):
        client.lookup_many(["plain"])
    with pytest.raises(TypeError, match="lookup 0 names no table"):
        client.lookup_many([{"ids": [1]}])


@pytest.mark.parametrize(("option", "value"), [("length", 0), ("length", True), ("pooling", "median"), ("flatten", 2)])
def test_an_option_that_is_wrong_is_named(client: Asked, option: str, value: object) -> None:
    for asked in ({"ids": [1]}, {"tokens": ["river"]}):
        with pytest.raises(InvalidRequest) as refused:
            client.lookup("padded", **asked, **{option: value})
        assert refused.value.field == option


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"ids": [1, True]}, "ids[1]"),
        ({"ids": [[1], [2, 3.0]]}, "ids[1][1]"),
        ({"ids": [[1], [np.float32(2)]]}, "ids[1][0]"),
        ({"ids": [1, np.True_]}, "ids[1]"),
        ({"ids": ["3"]}, "ids[0]"),
        ({"ids": [None]}, "ids[0]"),
        ({"ids": [[1], 2]}, "ids[1]"),
        ({"ids": [[[1]], [[2], [3]]]}, "ids[1]"),
        ({"ids": np.array([True])}, "ids"),
        ({"ids": np.array([1.0])}, "ids"),
        ({"ids": np.array(["a"])}, "ids"),
        ({"ids": np.array([1, 2.5], dtype=object)}, "ids[1]"),
        ({"ids": [np.array([1.5])]}, "ids[0][0]"),
        ({"ids": np.int64(3)}, "ids"),
        ({"ids": np.array(3)}, "ids"),
        ({"ids": 3}, "ids"),
        ({"ids": "12"}, "ids"),
        ({"ids": {1: 2}}, "ids"),
        ({}, "ids"),
        ({"ids": [1], "tokens": ["a"]}, "ids"),
        ({"tokens": "river"}, "tokens"),
        ({"tokens": ["river", 3]}, "tokens[1]"),
        ({"tokens": [["river"], [b"river"]]}, "tokens[1][0]"),
        ({"ids": [1, 2], "mask": [True]}, "mask"),
        ({"ids": [[1], [2, 3]], "mask": [[True, True], [True]]}, "mask"),
        ({"ids": [1, 2], "mask": [True, 2]}, "mask[1]"),
        ({"ids": [1, 2], "mask": [True, 1.0]}, "mask[1]"),
        ({"ids": [1, 2], "mask": np.array([0.0, 1.0])}, "mask[0]"),
        ({"ids": [1, 2], "weights": [1, -1], "pooling": "sum"}, "weights[1]"),
        ({"ids": [[1, 2]], "weights": [[1.0, float("nan")]], "pooling": "sum"}, "weights[0][1]"),
        ({"ids": [1, 2], "weights": [1, 10**400], "pooling": "sum"}, "weights[1]"),
        ({"ids": [1, 2], "weights": ["1", 2], "pooling": "sum"}, "weights[0]"),
        ({"ids": [1, 2], "weights": [1.0], "pooling": "sum"}, "weights"),
        ({"ids": [1], "dtype": "no dtype at all"}, "dtype"),
        ({"ids": [1], "dtype": ...}, "dtype"),
        ({"ids": [1], "version": 1, "label": "stable"}, "version"),
        ({"ids": [1], "version": "1/lookup?x="}, "version"),
        ({"ids": [1], "version": 1.0}, "version"),
        ({"ids": [1], "length": "3"}, "length"),
        ({"ids": [[1]], "length": 10**30}, "length"),
        ({"tokens": ["river"], "length": 10**4000}, "length"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_named_with_its_place(client: Asked, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.lookup("padded", **asked)
    assert refused.value.field == field
    assert isinstance(refused.value, ValueError)
    assert field.partition("[")[0] in str(refused.value)


def test_a_wrong_type_is_a_type_error_and_sends_nothing(kind: Kind) -> None:
    with scripted(vectors(ROWS)) as server, opened(kind, server.url) as client:
        for ids in ([True], [1.5], np.array([1.5]), np.array([True])):
            with pytest.raises(TypeError):
                client.lookup("words", ids)
        assert server.requests == []


@pytest.mark.parametrize(
    "wide",
    [2**63, -(2**63) - 1, 2**70, 10**4299, -(10**5000) - 7, 10**9000 + 1],
    ids=lambda n: f"{n.bit_length()} bits",
)
def test_an_integer_of_any_size_is_named_exactly(client: Asked, wide: int) -> None:
    with pytest.raises(OutOfVocabulary) as refused:
        client.lookup("padded", [[1, 2], [wide]], mask=[[True, True], [False]])
    assert refused.value.errors == [{"index": [1, 0], "id": wide}]
    with pytest.raises(OutOfVocabulary) as refused:
        client.lookup_many([{"table": "padded", "ids": [wide]}])
    assert refused.value.errors[0]["id"] == wide


def test_a_uint64_beyond_int64_is_named_exactly(client: Asked) -> None:
    with pytest.raises(OutOfVocabulary) as refused:
        client.lookup("padded", np.array([[3, 2**64 - 1]], dtype=np.uint64))
    assert refused.value.errors == [{"index": [0, 1], "id": 2**64 - 1}]


def test_an_integer_beyond_int64_follows_the_rule(client: Asked) -> None:
    found = client.lookup("padded", [3, 2**70], on_oov="mask")
    assert found.vectors.tolist()[1] == [0.0, 0.0, 0.0]
    assert found.mask.tolist() == [True, False]


def test_several_lookups_are_of_one_snapshot(client: Asked) -> None:
    found = client.lookup_many(
        [
            {"table": "padded", "ids": IDS},
            {"table": "versions", "label": "canary", "ids": [[1], [2, 3]]},
            {"table": "padded", "tokens": [["river", "<pad>"]], "flatten": True, "dtype": np.float16},
            {"table": "plain", "ids": [[1, 2]], "pooling": "mean", "weights": [[1, 3]]},
            {"table": "padded", "ids": [[1, 2]], "mask": np.array([[True, False]])},
        ]
    )
    assert same(found[0], IDS)
    assert found[1].vectors.tolist() == [[(ROWS[1] * 3).tolist(), [0.0] * 3], (ROWS[2:4] * 3).tolist()]
    assert found[1].mask.tolist() == [[True, False], [True, True]]
    assert (found[2].vectors.shape, found[2].vectors.dtype, found[2].mask.tolist()) == ((1, 6), "f2", [[True, False]])
    np.testing.assert_allclose(found[3].vectors, [(ROWS[1] + 3 * ROWS[2]) / 4], rtol=1e-5)
    assert found[3].mask is None
    assert found[4].mask.tolist() == [[True, False]]
    assert client.lookup_many([]) == []


def test_an_error_of_several_names_the_lookup(client: Asked) -> None:
    with pytest.raises(OutOfVocabulary) as refused:
        client.lookup_many([{"table": "plain", "ids": [1]}, {"table": "plain", "ids": [[1, 9]]}])
    assert (refused.value.members["lookup"], refused.value.errors[0]["index"]) == (1, [0, 1])
    with pytest.raises(WrongType) as unsent:
        client.lookup_many([{"table": "plain", "ids": [1]}, {"table": "plain", "ids": [True]}])
    assert (unsent.value.members["lookup"], unsent.value.field) == (1, "ids[0]")


@pytest.mark.parametrize(
    ("ask", "kind_of"),
    [
        (lambda c: c.lookup("nowhere", [1]), TableNotFound),
        (lambda c: c.lookup("a/b c?d#e", [1]), EmbeddingServiceError),
        (lambda c: c.lookup("\u00fc", [1]), TableNotFound),
        (lambda c: c.lookup("..", [1]), InvalidRequest),
        (lambda c: c.lookup("", [1]), InvalidRequest),
        (lambda c: c.lookup(3, [1]), WrongType),
        (lambda c: c.lookup("plain", [1], version=9), VersionNotFound),
        (lambda c: c.lookup("\udc80", [1]), InvalidRequest),
        (lambda c: c.lookup("plain", [1], label="nobody"), LabelNotFound),
        (lambda c: c.table("nowhere"), TableNotFound),
        (lambda c: c.table("plain", 9), VersionNotFound),
    ],
)
def test_what_is_not_there_is_said(client: Asked, ask: Callable[[Asked], Any], kind_of: type[Exception]) -> None:
    with pytest.raises(kind_of):
        ask(client)


def test_a_table_without_an_active_version_is_not_ready(url: str, kind: Kind) -> None:
    with opened(kind, url, retries=None) as client, pytest.raises(NotReady) as refused:
        client.lookup("idle", [1])
    assert refused.value.retry_after == 1.0


def test_tables_are_described(client: Asked) -> None:
    tables = {table.name: table for table in client.tables()}
    assert tables["padded"] == client.table("padded")
    padded = tables["padded"]
    assert (padded.num_embeddings, padded.embedding_dim, padded.padding_id, padded.unk_id) == (7, 3, 0, 1)
    assert padded.has_vocabulary
    assert client.table("versions", 3).version == 3
    assert client.table("versions").active_version == 2


def test_a_probe_tells_of_this_moment(client: Asked, kind: Kind) -> None:
    assert client.live() is True
    assert client.ready()
    missing = b'{"status":"not_ready","missing":[{"table":"words","state":"LOADING","reason":null}]}'
    with scripted(answer(503, missing, content_type="application/json")) as server, opened(kind, server.url) as other:
        readiness = other.ready()
        assert not readiness
        assert [(each.table, each.state) for each in readiness.missing] == [("words", "LOADING")]
        assert other.live() is False
        assert len(server.requests) == 2
        port = server.port
    with opened(kind, f"http://127.0.0.1:{port}") as nobody:
        assert nobody.live() is False


# Masks


def test_the_facts_of_a_version_are_asked_for_once(kind: Kind) -> None:
    rows = ROWS[[1, 0]]
    with (
        scripted(vectors(rows), info(padding_id=0), vectors(rows), vectors(rows, 2), info(2), vectors(rows)) as server,
        opened(kind, server.url) as client,
    ):
        masks = [client.lookup("words", [1, 0]).mask.tolist() for _ in range(4)]
    assert masks == [[True, False], [True, False], [True, True], [True, False]]
    assert [line.split(" ")[1].removeprefix("/v1/tables/words") for line in server.lines()] == [
        "/lookup", "/versions/1", "/lookup", "/lookup", "/versions/2", "/lookup",
    ]  # fmt: skip


def test_a_mask_comes_from_the_service_where_the_version_is_gone_already(kind: Kind) -> None:
    gone = problem("version_not_found", 404, table="words", version=1)
    with_mask = npz(vectors=ROWS[[3, 2]] * 2, mask=np.array([False, True]))
    told = answer(200, with_mask, embedding_table="words", embedding_version="2")
    with scripted(vectors(ROWS[[3, 2]]), gone, told) as server, opened(kind, server.url) as client:
        found = client.lookup("words", [3, 2])
    assert (found.version, found.mask.tolist()) == (2, [False, True])
    assert found.vectors.tobytes() == (ROWS[[3, 2]] * 2).tobytes()
    assert b"accept: application/x-npz" in server.requests[2].lower()


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called `allow_pickle`
    return file.getvalue()


@pytest.mark.parametrize(
    "said",
    [
        answer(200, b"<html>welcome</html>", content_type="text/html"),
        answer(200, b"123", embedding_table="words", embedding_version="1", embedding_shape="1,3",
               embedding_dtype="float32"),
        answer(302, b"", location="http://127.0.0.1:1/"),
        answer(404, b"<html>nginx</html>", content_type="text/html"),
        answer(404, b"{", content_type="application/problem+json"),
        answer(404, b"[]", content_type="application/problem+json"),
    ],
)  # fmt: skip
def test_an_answer_of_another_program_is_told_apart(kind: Kind, said: bytes) -> None:
    with scripted(said) as server, opened(kind, server.url) as client, pytest.raises(UnexpectedAnswer) as told:
        client.lookup("words", [1])
    assert told.value.status == int(said.split(b" ")[1])


@pytest.mark.parametrize("shape", ["-1,1", "1,-1", "2,1", "1,1,1,2", "2", "-2"])
def test_an_answer_of_another_shape_than_the_ids_is_refused(kind: Kind, shape: str) -> None:
    said = answer(200, bytes(8), embedding_table="words", embedding_version="1", embedding_shape=shape,
                  embedding_dtype="float32")  # fmt: skip
    with scripted(said, info()) as server, opened(kind, server.url) as client:
        for options in ({}, {"pooling": "sum"}):
            with pytest.raises(UnexpectedAnswer, match="shape"):
                client.lookup("words", [[1]], **options)
        assert len(server.requests) == 2


def test_an_answer_in_json_of_another_shape_is_refused(kind: Kind) -> None:
    content = {"vectors": "AAAAAAAAAAA=", "dtype": "float32", "shape": [2, 1], "table": "words", "version": 1}
    one, many = (answer(200, json.dumps(said).encode()) for said in (content, {"results": [content]}))
    with scripted(one, many) as server, opened(kind, server.url) as client:
        with pytest.raises(UnexpectedAnswer, match="shape"):
            client.lookup("words", tokens=["a"])
        with pytest.raises(UnexpectedAnswer, match="shape"):
            client.lookup_many([{"table": "words", "tokens": ["a"]}])


@pytest.mark.parametrize("said", [b"{}", b'{"tables":3}', b'{"tables":[3]}', b'{"tables":[{}]}', b"[]"])
def test_an_answer_that_leaves_out_what_it_should_tell_is_refused(kind: Kind, said: bytes) -> None:
    asked: list[tuple[str, list[object]]] = [
        ("tables", []),
        ("table", ["words"]),
        ("ready", []),
        ("admin_tables", []),
        ("admin_table", ["words"]),
        ("activate", ["words", 1]),
        ("activate_all", [{"words": 1}]),
        ("label", ["words", "stable", 1]),
        ("prune", ["words"]),
        ("publish", ["words", ROWS]),
    ]
    with scripted(answer(200, said)) as server, opened(kind, server.url, token="secret") as client:
        for verb, arguments in asked:
            with pytest.raises(UnexpectedAnswer):
                getattr(client, verb)(*arguments)


def test_tokens_are_told_apart_from_another_programs_answer(kind: Kind) -> None:
    for said in (b"<html>", b"[]", b"{}", b'{"vectors":"AAAA","dtype":"float32","shape":[9],"table":"t","version":1}'):
        with scripted(answer(200, said)) as server, opened(kind, server.url) as client:
            with pytest.raises(UnexpectedAnswer):
                client.lookup("words", tokens=["a"])
            with pytest.raises(UnexpectedAnswer):
                client.lookup_many([{"table": "words", "tokens": ["a"]}])


def test_headers_go_with_every_request_and_the_token_with_admin_verbs_only(kind: Kind) -> None:
    rows = vectors(ROWS[[1]])
    with (
        scripted(rows, info(), answer(204)) as server,
        opened(kind, server.url + "/proxied/", token="secret", headers={"X-Team": "search"}) as client,
    ):
        client.lookup("words", [1])
        client.delete_label("words", "stable")
    assert [line.split(" ")[1] for line in server.lines()] == [
        "/proxied/v1/tables/words/lookup", "/proxied/v1/tables/words/versions/1",
        "/proxied/v1/admin/tables/words/labels/stable",
    ]  # fmt: skip
    heads = [request.lower() for request in server.requests]
    assert all(b"x-team: search" in head for head in heads)
    assert [b"authorization: bearer secret" in head for head in heads] == [False, False, True]


def test_fields_are_the_same_in_small_and_capital_letters(kind: Kind) -> None:
    headers = {"authorization": "Basic abc", "user-agent": "search", "X-Team": "one", "x-team": "two"}
    with (
        scripted(vectors(ROWS[[1]]), info(), answer(204)) as server,
        opened(kind, server.url, token="secret", headers=headers) as client,
    ):
        client.lookup("words", [1])
        client.delete_label("words", "stable")
    for request, authorization in zip(server.requests, ("Basic abc", "Basic abc", "Bearer secret"), strict=True):
        lines = [line.partition(": ") for line in request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]]
        for name, value in (("authorization", authorization), ("user-agent", "search"), ("x-team", "two")):
            assert [said for field, _, said in lines if field.lower() == name] == [value]


@pytest.mark.parametrize("name", ["Host", "accept", "Content-Type", "content-length", "Transfer-Encoding"])
def test_fields_of_each_request_are_not_for_all(name: str) -> None:
    with pytest.raises(ValueError, match=f"the field {name} is set by the client"):
        Client("http://localhost:8000", headers={name: "x"})


@pytest.mark.parametrize("asked", [{"base_url": "http://bob:hunter2@host:8000"}, {"admin_url": "http://hunter2@host"}])
def test_credentials_in_an_address_are_refused_and_not_shown(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the address of 'host' has credentials") as refused:
        Client(**{"base_url": "http://host", **asked})
    assert "hunter2" not in str(refused.value)


def test_the_client_says_what_it_takes() -> None:
    wrongs: tuple[Any, ...] = ([], "ftp://host", "host:8000", "http://host?x=1", "http://[::1")
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"must be an address|is not like|is like"):
            Client(wrong)
    with pytest.raises(ValueError, match="negative"):
        Retries(deadline=-1)
