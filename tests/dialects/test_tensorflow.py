"""TensorFlow Serving's REST API, asked as users of Keras' `Embedding` ask TensorFlow Serving."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.samples import DIM, EXTREME, ROWS

PREDICT = "/v1/models/plain:predict"
IDS = [[5, 1, 0], [2, 2, 6]]


def predicted(client: httpx.Client, asked: object, path_: str = PREDICT) -> Any:  # noqa: ANN401
    answer = client.post(path_, json=asked)
    assert answer.status_code == 200, answer.text
    (said,) = answer.json().values()
    return np.array(said, np.float32)


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "rows": ({"instances": IDS}, "predictions"),
    "rows by a model's name": ({"instances": [{"embedding_input": each} for each in IDS]}, "predictions"),
    "rows by our name": ({"instances": [{"ids": each} for each in IDS]}, "predictions"),
    "a column": ({"inputs": IDS}, "outputs"),
    "a column by a model's name": ({"inputs": {"input_1": IDS}}, "outputs"),
    "whole fractions, as Keras sends floats": ({"instances": [[5.0, 1.0, 0.0], [2.0, 2, 6.0]]}, "predictions"),
    "a signature": ({"signature_name": "serving_default", "instances": IDS}, "predictions"),
}


@pytest.mark.parametrize(("asked", "key"), FORMS.values(), ids=FORMS.keys())
def test_rows_bit_for_bit(client: httpx.Client, asked: dict[str, Any], key: str) -> None:
    answer = client.post(PREDICT, json=asked)
    assert (answer.status_code, list(answer.json())) == (200, [key])
    assert np.array(answer.json()[key], np.float32).tobytes() == ROWS[IDS].tobytes()


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1), (3, 1, 2), (2, 3)])
def test_any_rank(client: httpx.Client, shape: tuple[int, ...]) -> None:
    ids = np.array(IDS).reshape(shape)
    found = predicted(client, {"instances": ids.tolist()})
    assert found.shape == (*shape, DIM)
    assert found.tobytes() == ROWS[ids].tobytes()


@pytest.mark.parametrize("shape", [(50, 80), (4000,), (1, 4000), (4000, 1), (7, 11, 60)])
@pytest.mark.parametrize("model", ["extreme", "plain"])
def test_large_ones(client: httpx.Client, shape: tuple[int, ...], model: str) -> None:
    rows = EXTREME if model == "extreme" else ROWS
    ids = np.random.default_rng(3).integers(0, len(rows), shape)
    for _ in range(2):
        found = predicted(client, {"instances": ids.tolist()}, f"/v1/models/{model}:predict")
        assert found.tobytes() == rows[ids].tobytes()


@pytest.mark.parametrize("ids", [[], [[]], [[], []]])
def test_no_ids(client: httpx.Client, ids: list[Any]) -> None:
    assert client.post(PREDICT, json={"instances": ids}).json() == {"predictions": ids}


def test_ragged_rows_are_padded_as_the_contract_says(client: httpx.Client) -> None:
    found = predicted(client, {"instances": [[5, 1], [2]]}, "/v1/models/padded:predict")
    assert found.tobytes() == ROWS[[[5, 1], [2, 0]]].tobytes()


def test_tokens(client: httpx.Client) -> None:
    found = predicted(client, {"instances": [["river", "zebra"]]}, "/v1/models/padded:predict")
    assert found.tobytes() == ROWS[[[2, 6]]].tobytes()


@pytest.mark.parametrize(
    ("path_", "times"),
    [("", 2), ("/versions/1", 1), ("/versions/3", 3), ("/labels/stable", 1), ("/labels/canary", 3)],
)
def test_versions_and_labels(client: httpx.Client, path_: str, times: int) -> None:
    found = predicted(client, {"instances": IDS}, f"/v1/models/versions{path_}:predict")
    assert found.tobytes() == (ROWS * times)[IDS].tobytes()


WRONG: dict[str, tuple[Any, str]] = {
    "an array": ([], "the body must be an object, not an array"),
    "nothing": ({}, "either instances or inputs must be given, and not both"),
    "both": ({"instances": [], "inputs": []}, "either instances or inputs must be given, and not both"),
    "an unknown field": ({"instances": [], "x": 1}, "unknown field 'x'"),
    "a string": ({"instances": "x"}, "instances must be an array, not a string"),
    "a number outside": ({"inputs": 9}, "id 9 at [0] is not in table plain"),
    "a fraction": ({"instances": [[1, 1.5]]}, "instances[0][1] must be an integer, not a fraction"),
    "a boolean": ({"instances": [[1, True]]}, "instances[0][1] must be an integer, not a boolean"),
    "another input": ({"instances": [{"a": [1]}, {"b": [1]}]}, "instances[1] does not have the inputs of instances[0]"),
    "a mixture": ({"instances": [[1], {"b": [1]}]}, "instances[0] does not have the inputs of instances[0]"),
    "two inputs": ({"inputs": {"a": [1], "b": [2]}}, "inputs must have one input, of any name, and has 2"),
    "no input": ({"inputs": {}}, "inputs must have one input, of any name, and has 0"),
    "tokens and ids": ({"instances": [["a"], [1]]}, "instances[1][0] must be a string, not an integer"),
    "a signature": ({"instances": [1], "signature_name": 1}, "signature_name must be a string, not an integer"),
    "ids outside": ({"instances": [[5, 7], [-1, 2]]}, "2 are not in table plain version 1, which has the ids 0 to 6"),
    "base64": ({"instances": [{"b64": "eA=="}]}, "instances: values in base64 are not taken"),
    "too deep": ({"instances": json.loads("[" * 900 + "]" * 900)}, "instances is nested more than 32 deep"),
    "fractions too deep": ({"instances": json.loads("[" * 900 + "1.0" + "]" * 900)}, "more than 32 deep"),
    "a float beyond integers": ({"instances": [1e300]}, "instances[0] must be an integer, not a fraction"),
    "an integer beyond 64 bits": ({"instances": [[2**70]]}, f"id {2**70} at [0, 0] is not in table plain version 1"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(client: httpx.Client, asked: Any, text: str) -> None:  # noqa: ANN401
    answer = client.post(PREDICT, json=asked)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert text in answer.json()["error"]


MISSING = {
    "/v1/models/nothing:predict": "there is no table 'nothing'",
    "/v1/models/versions/versions/9:predict": "table 'versions' has no version 9",
    "/v1/models/versions/labels/x:predict": "table 'versions' has no label 'x'",
}


@pytest.mark.parametrize(("path_", "text"), MISSING.items())
def test_what_is_not_there(client: httpx.Client, path_: str, text: str) -> None:
    answer = client.post(path_, json={"instances": IDS})
    assert (answer.status_code, answer.json()) == (404, {"error": text})


def state(version: str, state: str = "AVAILABLE") -> dict[str, Any]:
    said = {"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [said]}


def test_the_state_of_a_model_and_of_its_versions(client: httpx.Client) -> None:
    said = client.get("/v1/models/versions").json()
    assert said["model_version_status"] == state("2")["model_version_status"]
    assert client.get("/v1/models/versions/versions/3").json() == state("3")
    assert client.get("/v1/models/versions/labels/stable").json() == state("1")
    assert client.get("/v1/models/idle").json()["model_version_status"] == []
    assert client.get("/v1/models/versions/versions/9").status_code == 404
    assert client.get("/v1/models/versions/labels/x").status_code == 404


def test_the_signature(client: httpx.Client) -> None:
    said = client.get("/v1/models/versions/versions/3/metadata").json()
    assert said["model_spec"] == {"name": "versions", "signature_name": "", "version": "3"}
    signature = said["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["ids"]["dtype"] == "DT_INT64"
    assert signature["outputs"]["vectors"]["tensor_shape"]["dim"][-1]["size"] == str(DIM)


def test_limits_are_those_of_the_contract(narrow: httpx.Client) -> None:
    answer = narrow.post(PREDICT, json={"instances": [1] * 101})
    assert (answer.status_code, "EMBEDDING_MAX_IDS" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("value", [5, 5.0, {"input_1": 5}])
def test_one_id_alone_is_answered_with_one_row(client: httpx.Client, value: object) -> None:
    assert predicted(client, {"inputs": value}).tobytes() == ROWS[5].tobytes()


def test_one_token_alone(client: httpx.Client) -> None:
    assert predicted(client, {"inputs": "zebra"}, "/v1/models/padded:predict").tobytes() == ROWS[6].tobytes()


def test_a_signature_may_be_null(client: httpx.Client) -> None:
    assert predicted(client, {"inputs": [5], "signature_name": None}).tobytes() == ROWS[[5]].tobytes()


@pytest.mark.parametrize("path", ["wire"], indirect=True, scope="session")
@pytest.mark.parametrize("place", ["", "/versions/1", "/labels/x"])
def test_verbs_that_a_table_does_not_have(client: httpx.Client, place: str) -> None:
    answer = client.post(f"/v1/models/plain{place}:classify", json={})
    assert (answer.status_code, answer.json()) == (404, {"error": "a table has no verb 'classify'; it has predict"})


def test_limits_are_looked_at_before_anything_is_made_of_the_numbers(narrow: httpx.Client) -> None:
    for asked in ({"instances": [[1.0]] * 101}, {"instances": [{"a": 1.0}] * 101}, {"inputs": [1.0] * 101}):
        answer = narrow.post(PREDICT, json=asked)
        assert (answer.status_code, "EMBEDDING_MAX_IDS" in answer.json()["error"]) == (413, True)
