"""Text Embeddings Inference, driven by Hugging Face's own client and by plain requests."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.api.samples import DIM, ROWS
from tests.api.wire import AnyArray
from tests.dialects.test_openai import unit
from tests.importers.test_static_text import expected
from tests.world import serving

NAME = "model2vec_float32"


def embedded(client: httpx.Client, path_: str = "/embed", **asked: Any) -> AnyArray:  # noqa: ANN401
    answer = client.post(path_, json=asked)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json(), np.float32)


@pytest.mark.parametrize("path_", ["/embed", f"/tei/{NAME}/embed"])
def test_texts_by_the_client_of_hugging_face(address: str, path_: str) -> None:
    _, texts, _, wanted = expected(NAME)
    client = InferenceClient(model=f"http://{address}{path_}", token="none")
    found = client.feature_extraction(texts, normalize=True, truncate=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    one = client.feature_extraction(texts[0])
    np.testing.assert_allclose(one, wanted[:1], rtol=1e-5, atol=1e-5)


def test_an_error_by_the_client_of_hugging_face(address: str) -> None:
    client = InferenceClient(model=f"http://{address}/tei/padded/embed", token="none")
    with pytest.raises(HfHubHTTPError) as error:
        client.feature_extraction("a zebra")
    assert error.value.response.status_code == 422
    assert error.value.response.json()["error_type"] == "Validation"


def test_vectors_are_normalised_unless_that_is_switched_off(client: httpx.Client) -> None:
    asked: dict[str, Any] = {"path_": "/tei/plain/embed", "inputs": [[5, 1], [2]]}
    mean = np.array([ROWS[[5, 1]].mean(axis=0, dtype=np.float64), ROWS[2]])
    np.testing.assert_allclose(embedded(client, **asked), unit(mean), rtol=1e-6)
    np.testing.assert_allclose(embedded(client, **asked, normalize=False), mean, rtol=1e-6)
    np.testing.assert_allclose(embedded(client, **asked, dimensions=2), unit(mean[:, :2]), rtol=1e-6)
    np.testing.assert_allclose(embedded(client, **asked, dimensions=2, normalize=False), mean[:, :2], rtol=1e-6)


@pytest.mark.parametrize("inputs", ["zebra", ["zebra"], [6], [[6]]])
def test_all_forms_of_inputs(client: httpx.Client, inputs: object) -> None:
    found = embedded(client, "/tei/padded/embed", inputs=inputs, normalize=False)
    assert found.tobytes() == ROWS[[6]].tobytes()


@pytest.mark.parametrize("name", [NAME, "model2vec_mapped", "sentence_transformers"])
def test_a_vector_for_each_token(client: httpx.Client, name: str) -> None:
    rows, texts, ids, wanted = expected(name)
    answer = client.post(f"/tei/{name}/embed_all", json={"inputs": texts})
    assert [len(each) for each in answer.json()] == list(map(len, ids))
    if name == "sentence_transformers":
        for found, each in zip(answer.json(), ids, strict=True):
            assert np.array(found, np.float32).reshape(-1, rows.shape[1]).tobytes() == rows[each].tobytes()
    for found, vector in zip(answer.json(), wanted, strict=True):
        if found:
            mean = np.array(found).mean(axis=0)
            np.testing.assert_allclose(unit(mean), unit(vector), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("inputs", "ids"), [("river zebra", [[2, 6]]), ([[2, 0, 6], [1]], [[2, 6], [1]])])
def test_what_does_not_count_has_no_vector(client: httpx.Client, inputs: object, ids: list[list[int]]) -> None:
    answer = client.post("/tei/padded/embed_all", json={"inputs": inputs})
    assert [np.array(each, np.float32).tobytes() for each in answer.json()] == [ROWS[each].tobytes() for each in ids]


def test_what_is_served(client: httpx.Client) -> None:
    said = client.get("/info").json()
    assert (said["model_id"], said["model_sha"], said["model_dtype"]) == (NAME, "1", "float32")
    assert said["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (said["max_input_length"], said["max_client_batch_size"]) == (512, 262_144)
    assert client.get("/tei/padded/info").json()["model_id"] == "padded"


WRONG: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 422, "not valid JSON"),
    "no inputs": ({}, 422, "inputs must be a string or an array, not null"),
    "nothing": ({"inputs": []}, 422, "inputs must not be empty"),
    "a field": ({"inputs": "a", "pooling": "max"}, 422, "unknown field 'pooling'"),
    "a flag": ({"inputs": "a", "normalize": 1}, 422, "normalize must be true or false, not an integer"),
    "the left side": (
        {"inputs": "a", "truncate": True, "truncation_direction": "left"},
        422,
        "texts are cut at their end only",
    ),
    "a prompt": ({"inputs": "a", "prompt_name": "query"}, 422, "there are no prompts to choose from"),
    "dimensions": ({"inputs": "a", "dimensions": 0}, 422, "dimensions must be an integer from 1 to"),
}


@pytest.mark.parametrize(("asked", "status", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(client: httpx.Client, asked: Any, status: int, text: str) -> None:  # noqa: ANN401
    answer = client.post("/embed", **({"content": asked} if isinstance(asked, bytes) else {"json": asked}))
    assert (answer.status_code, answer.json()["error_type"]) == (status, "Validation")
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("table", "inputs", "status", "text"),
    [
        ("nothing", "x", 404, "there is no table 'nothing'"),
        ("idle", "x", 503, "no version is active"),
        ("plain", "x", 422, "plain version 1 has no vocabulary"),
        ("plain", [[1], [2, 9]], 422, "id 9 at [1, 1] is not in table plain version 1, which has the ids 0 to 6"),
    ],
)
def test_what_cannot_be_embedded(client: httpx.Client, table: str, inputs: object, status: int, text: str) -> None:
    answer = client.post(f"/tei/{table}/embed", json={"inputs": inputs})
    assert (answer.status_code, text in answer.json()["error"]) == (status, True)


def test_the_only_table_that_reads_texts_needs_no_setting(store_root: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").symlink_to(store_root / "plain")
    (tmp_path / "padded").symlink_to(store_root / "padded")
    with serving(tmp_path) as client:
        assert client.get("/info").json()["model_id"] == "padded"
        assert embedded(client, inputs="zebra", normalize=False).shape == (1, DIM)
    (tmp_path / "default-mask").symlink_to(store_root / NAME)
    with serving(tmp_path) as client:
        answer = client.post("/embed", json={"inputs": "zebra"})
        assert answer.status_code == 422
        assert "these read texts: default-mask, padded; set EMBEDDING_TEI_TABLE" in answer.json()["error"]


@pytest.mark.parametrize("path", ["wire", "front"], indirect=True, scope="session")
def test_a_server_may_be_named_for_a_model(client: httpx.Client, address: str) -> None:
    _, texts, _, wanted = expected(NAME)
    found = InferenceClient(model=f"http://{address}", token="none").feature_extraction(texts[0])
    np.testing.assert_allclose(found, wanted[:1], rtol=1e-5, atol=1e-5)
    assert client.get("/").json()["code"] == "not_found"


@pytest.mark.parametrize("path", ["wire"], indirect=True, scope="session")
def test_a_table_may_be_named_for_a_server(client: httpx.Client, address: str) -> None:
    found = InferenceClient(model=f"http://{address}/tei/padded", token="none").feature_extraction("zebra")
    np.testing.assert_allclose(found, unit(ROWS[[6]]), rtol=1e-6)
    answer = client.post("/tei/padded/typo", json={})
    assert (answer.status_code, list(answer.json())) == (404, ["error", "error_type"])


def test_a_direction_means_nothing_where_nothing_is_cut(client: httpx.Client) -> None:
    for more in ({"truncation_direction": None}, {"truncation_direction": "left", "truncate": False}):
        assert client.post("/tei/padded/embed", json={"inputs": "zebra", **more}).status_code == 200


def test_one_long_text_among_many_short_ones(client: httpx.Client) -> None:
    answer = client.post("/tei/padded/embed_all", json={"inputs": ["river " * 20_000] + ["zebra"] * 5000})
    assert answer.status_code == 200
    assert [len(each) for each in answer.json()[:2]] == [20_000, 1]
    wrong = client.post("/tei/padded/embed_all", json={"inputs": [[2] * 50, [1, 9], [1]]})
    assert "id 9 at [1, 1] is not in table padded" in wrong.json()["error"]
