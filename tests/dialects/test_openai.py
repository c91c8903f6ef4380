"""OpenAI's embeddings, driven by OpenAI's own client."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from tests.api.samples import DIM, ROWS
from tests.api.wire import AnyArray
from tests.dialects.conftest import MODELS
from tests.importers.test_static_text import HALF, expected


@pytest.fixture
def server(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors(answer: openai.types.CreateEmbeddingResponse) -> AnyArray:
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return np.array([each.embedding for each in answer.data], dtype=np.float32)


def unit(rows: AnyArray) -> AnyArray:
    wide = rows.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    divided: AnyArray = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return divided


# Texts


@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("_dense")])
def test_texts_have_the_vectors_that_their_library_gave_them(server: OpenAI, name: str) -> None:
    _, texts, ids, wanted = expected(name)
    answer = server.embeddings.create(model=name, input=texts)
    tolerance = 1e-3 if name in HALF else 1e-5  # they add up hundreds of rows in float32
    np.testing.assert_allclose(vectors(answer), wanted, rtol=tolerance, atol=tolerance)
    assert answer.usage.prompt_tokens >= sum(map(len, ids))  # those that are left out are counted, too
    assert (answer.model, answer.object) == (name, "list")


@pytest.mark.parametrize("name", ["model2vec_float32", "model2vec_mapped"])
def test_ids_have_the_vectors_of_their_texts(server: OpenAI, name: str) -> None:
    _, texts, ids, wanted = expected(name)
    chosen = [place for place, each in enumerate(ids) if each and 0 not in each]  # padding does not count among ids
    answer = server.embeddings.create(model=name, input=[ids[place] for place in chosen])
    np.testing.assert_allclose(vectors(answer), wanted[chosen], rtol=1e-5, atol=1e-5)
    assert answer.usage.prompt_tokens == sum(len(ids[place]) for place in chosen)
    assert texts


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_both_encodings_hold_the_same_numbers(server: OpenAI, encoding: Any) -> None:  # noqa: ANN401
    texts = ["a river", "the bank of the river"]
    default = vectors(server.embeddings.create(model="model2vec_float32", input=texts))
    answer = server.embeddings.create(model="model2vec_float32", input=texts, encoding_format=encoding)
    found = [each.embedding for each in answer.data]
    if encoding == "base64":  # which the client decodes only where it asks for it by itself
        found = [np.frombuffer(base64.b64decode(str(each)), "<f4").tolist() for each in found]
    assert np.array(found, np.float32).tobytes() == default.tobytes()


def test_words_between_white_space_where_a_table_has_no_tokenizer(server: OpenAI) -> None:
    answer = server.embeddings.create(model="padded", input=["river  \u00fcber\n", "zebra", ""])
    wanted = [ROWS[[2, 3]].mean(axis=0, dtype=np.float64), ROWS[6], np.zeros(DIM)]
    np.testing.assert_allclose(vectors(answer), np.array(wanted), rtol=1e-5, atol=1e-5)
    assert answer.usage.prompt_tokens == 3


# The four forms


def test_one_text(server: OpenAI) -> None:
    (one,) = server.embeddings.create(model="padded", input="zebra").data
    assert np.array(one.embedding, np.float32).tobytes() == ROWS[6].tobytes()


def test_ids_are_one_sequence(server: OpenAI) -> None:
    answer = server.embeddings.create(model="plain", input=[5, 1])
    assert len(answer.data) == 1
    np.testing.assert_allclose(vectors(answer)[0], ROWS[[5, 1]].mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert answer.usage.total_tokens == 2


def test_sequences_of_ids(server: OpenAI) -> None:
    answer = server.embeddings.create(model="plain", input=[[5, 1], [2]])
    wanted = [ROWS[[5, 1]].mean(axis=0, dtype=np.float64), ROWS[2]]
    np.testing.assert_allclose(vectors(answer), np.array(wanted), rtol=1e-6)


def test_padding_does_not_count_among_ids(server: OpenAI) -> None:
    answer = server.embeddings.create(model="padded", input=[[5, 0, 0], [0]])
    assert vectors(answer).tobytes() == np.array([ROWS[5], np.zeros(DIM, np.float32)]).tobytes()


@pytest.mark.parametrize("dimensions", [1, 2, DIM])
def test_dimensions_are_the_leading_ones_normalised_again(server: OpenAI, dimensions: int) -> None:
    answer = server.embeddings.create(model="plain", input=[[5], [1]], dimensions=dimensions)
    np.testing.assert_allclose(vectors(answer), unit(ROWS[[5, 1], :dimensions]), rtol=1e-6, atol=1e-7)


def test_many_texts_beside_the_event_loop(server: OpenAI) -> None:
    _, texts, _, wanted = expected("model2vec_float32")
    answer = server.embeddings.create(model="model2vec_float32", input=texts * 50)
    np.testing.assert_allclose(vectors(answer), np.tile(wanted, (50, 1)), rtol=1e-5, atol=1e-5)


# Models


def test_models(server: OpenAI) -> None:
    names = [model.id for model in server.models.list()]
    assert {"plain", "padded", "model2vec_float32"} <= set(names)
    assert "idle" not in names
    one = server.models.retrieve("plain")
    assert (one.id, one.object, one.owned_by) == ("plain", "model", "embedding-table-service")
    assert one.created > 1_700_000_000
    with pytest.raises(openai.NotFoundError):
        server.models.retrieve("nothing")


def test_one_object_has_the_keys_of_both_protocols(client: httpx.Client) -> None:
    said = client.get("/v1/models/plain").json()
    assert list(said) == ["id", "object", "created", "owned_by", "model_version_status"]


# Errors

REFUSED: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str | None, str, str]] = {
    "an unknown model": (
        {"model": "nothing", "input": "x"}, openai.NotFoundError, "model", "model_not_found", "no table 'nothing'"
    ),
    "no active version": (
        {"model": "idle", "input": [1]}, openai.InternalServerError, None, "not_ready", "no version is active"
    ),
    "a model that is not read as a whole": (
        {"model": "sentence_transformers_dense", "input": "x"}, openai.BadRequestError, None, "no_vocabulary",
        "reads no texts: Dense follows the rows",
    ),
    "a word outside": (
        {"model": "padded", "input": ["river", "a zebra"]}, openai.BadRequestError, None, "out_of_vocabulary",
        "token 'a' at [1, 0] is not in table padded version 1, which has the ids 0 to 6",
    ),
    "an id outside": (
        {"model": "plain", "input": [1, 7]}, openai.BadRequestError, None, "out_of_vocabulary",
        "id 7 at [1] is not in table plain version 1, which has the ids 0 to 6",
    ),
    "a negative id of a batch": (
        {"model": "plain", "input": [[1], [2, -1]]}, openai.BadRequestError, None, "out_of_vocabulary", "id -1 at [1"
    ),
    "texts without a vocabulary": (
        {"model": "plain", "input": "x"}, openai.BadRequestError, None, "no_vocabulary", "has no vocabulary"
    ),
    "nothing": ({"model": "plain", "input": []}, openai.BadRequestError, "input", "invalid_request", "not be empty"),
    "dimensions beyond": (
        {"model": "plain", "input": [1], "dimensions": 4}, openai.BadRequestError, "dimensions", "invalid_request",
        "dimensions must be an integer from 1 to 3",
    ),
    "an encoding": (
        {"model": "plain", "input": [1], "encoding_format": "hex"}, openai.BadRequestError, "encoding_format",
        "invalid_request", "must be one of float, base64",
    ),
    "a field": (
        {"model": "plain", "input": [1], "extra_body": {"pooling": "sum"}}, openai.BadRequestError, "pooling",
        "invalid_request", "unknown field 'pooling'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "kind", "param", "code", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_errors_are_those_of_openai(
    server: OpenAI, asked: dict[str, Any], kind: type[openai.APIStatusError], param: str | None, code: str, text: str
) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        server.embeddings.create(**asked)
    assert type(error.value) is kind
    assert (error.value.code, error.value.param) == (code, param)
    assert text in error.value.message


WRONG: dict[str, tuple[Any, str]] = {
    "an array": ([], "the body must be an object, not an array"),
    "no model": ({"input": "x"}, "model must be a string"),
    "no input": ({"model": "plain"}, "input must be a string or an array, not null"),
    "an object": ({"model": "plain", "input": {}}, "input must be a string or an array, not an object"),
    "a fraction": ({"model": "plain", "input": [1.5]}, "must be an integer, not a fraction"),
    "a mixture": ({"model": "padded", "input": ["river", 1]}, "input[1] must be a string, not an integer"),
    "too deep": ({"model": "plain", "input": [[[1]]]}, "input is nested deeper than sequences of ids"),
    "a boolean in a sequence": (
        {"model": "plain", "input": [[1], [True]]},
        "input[1][0] must be an integer, not a boolean",
    ),
    "dimensions a fraction": ({"model": "plain", "input": [1], "dimensions": 1.5}, "dimensions must be an integer"),
}


@pytest.mark.parametrize(("asked", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(client: httpx.Client, asked: Any, text: str) -> None:  # noqa: ANN401
    answer = client.post("/v1/embeddings", json=asked)
    said = answer.json()["error"]
    assert (answer.status_code, said["type"]) == (400, "invalid_request_error")
    assert text in said["message"]


@pytest.mark.parametrize("text", ['"\\ud800"', '["a", "b\\udc00"]'])
def test_half_a_surrogate_pair(client: httpx.Client, text: str) -> None:
    body = f'{{"model": "model2vec_float32", "input": {text}, "user": 1e999}}'  # which the faster parser refuses
    answer = client.post("/v1/embeddings", content=body)
    assert (answer.status_code, "has half a surrogate pair" in answer.text) == (400, True)


def test_a_body_that_is_no_json(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", content=b"{")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_limits_are_those_of_the_contract(narrow: httpx.Client) -> None:
    for asked in ({"model": "plain", "input": [1] * 101}, {"model": "padded", "input": ["river"] * 101}):
        answer = narrow.post("/v1/embeddings", json=asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    answer = narrow.post("/v1/embeddings", content=json.dumps({"model": "padded", "input": "x" * 70_000}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_more_characters_than_tokens_could_have_are_refused_before_they_are_read(narrow: httpx.Client) -> None:
    asked = {"model": "sentence_transformers", "input": "x" * 801}
    answer = narrow.post("/v1/embeddings", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "characters of the texts (8 for each token): 801" in answer.json()["error"]["message"]
    asked = {"model": "model2vec_short", "input": "x" * 801}  # which cuts texts itself
    assert narrow.post("/v1/embeddings", json=asked).status_code == 200


def test_a_field_name_that_json_cannot_write(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", content='{"model": "plain", "input": [1], "\\ud800e999": 1}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "\\ud800e999")


@pytest.mark.parametrize("path", ["wire"], indirect=True, scope="session")
@pytest.mark.parametrize("address_", ["/v1/embeddings/", "/v1/models/a/b"])
def test_addresses_at_which_nothing_is(client: httpx.Client, address_: str) -> None:
    answer = client.post(address_, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
