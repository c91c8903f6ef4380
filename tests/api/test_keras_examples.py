"""The worked examples of the Keras literature, through HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, Path_, publish, serving

SOON = ["hope", "to", "see", "you", "soon"]
AGAIN = ["nice", "to", "see", "you", "again"]

# Columns are the objects, as the example has them: a 2 x 4 matrix for `cat dog snake mouse`.
OBJECTS = ("cat", "dog", "snake", "mouse")
COLUMNS = np.array([[0.6, 0.9, -0.4, 0.1], [0.2, 0.3, 0.8, 0.7]], dtype=np.float32)


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory, path: Path_) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("keras")
    store = TableStore(root)
    publish(store, "sentences", KERAS_ROWS, KERAS_TOKENS)
    publish(store, "masked", KERAS_ROWS, KERAS_TOKENS, padding_id=0)
    publish(store, "objects", COLUMNS.T, OBJECTS)
    with serving(root, path) as client:
        yield client


def lookup(client: httpx.Client, table: str, **fields: object) -> dict[str, Any]:
    answer = client.post(f"/v1/tables/{table}/lookup", json=fields)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


NICE = [[0.7, 1.7], [0.1, 4.2], [1.0, 3.1], [0.3, 2.1], [4.1, 2.0]]


@pytest.mark.parametrize("asked", [{"ids": [5, 1, 2, 3, 6]}, {"tokens": AGAIN}], ids=["ids", "tokens"])
def test_nice_to_see_you_again_gives_its_five_vectors(keras: httpx.Client, asked: dict[str, object]) -> None:
    assert lookup(keras, "sentences", **asked)["vectors"] == NICE


def test_both_sentences_in_one_batch(keras: httpx.Client) -> None:
    ids = [[0, 1, 2, 3, 4], [5, 1, 2, 3, 6]]
    words = [SOON, AGAIN]
    by_id, by_token = lookup(keras, "sentences", ids=ids), lookup(keras, "sentences", tokens=words)
    assert by_id == by_token
    assert by_id["vectors"] == [[[1.2, 3.1], [0.1, 4.2], [1.0, 3.1], [0.3, 2.1], [2.2, 1.4]], NICE]
    assert by_id["shape"] == [2, 5, 2]


def test_the_vocabulary_is_in_order_of_first_appearance() -> None:
    assert tuple(dict.fromkeys(SOON + AGAIN)) == KERAS_TOKENS


@pytest.mark.parametrize("asked", [{"ids": [4]}, {"tokens": ["soon"]}], ids=["id", "token"])
def test_soon_is_id_4(keras: httpx.Client, asked: dict[str, object]) -> None:
    assert lookup(keras, "sentences", **asked)["vectors"] == [[2.2, 1.4]]


@pytest.mark.parametrize("asked", [{"ids": [0, 1, 2, 3]}, {"tokens": list(OBJECTS)}], ids=["ids", "tokens"])
def test_a_matrix_whose_columns_are_the_objects_is_served_transposed(
    keras: httpx.Client, asked: dict[str, object]
) -> None:
    assert lookup(keras, "objects", **asked)["vectors"] == [[0.6, 0.2], [0.9, 0.3], [-0.4, 0.8], [0.1, 0.7]]


@pytest.mark.parametrize(("position", "name"), list(enumerate(OBJECTS)))
def test_an_object_is_its_column(keras: httpx.Client, position: int, name: str) -> None:
    vectors = lookup(keras, "objects", tokens=[name])["vectors"]
    assert np.array(vectors, dtype=np.float32).tobytes() == COLUMNS[:, position].tobytes()


@pytest.mark.parametrize("row", range(len(KERAS_ROWS)))
def test_a_one_hot_row_times_the_table_is_the_lookup(keras: httpx.Client, row: int) -> None:
    one_hot = np.eye(len(KERAS_ROWS), dtype=np.float32)[row]
    vectors = np.array(lookup(keras, "sentences", ids=[row])["vectors"], dtype=np.float32)
    assert (one_hot @ KERAS_ROWS).tobytes() == vectors.tobytes()


@pytest.mark.parametrize("column", range(len(OBJECTS)))
def test_the_matrix_times_a_one_hot_column_is_the_lookup(keras: httpx.Client, column: int) -> None:
    one_hot = np.eye(len(OBJECTS), dtype=np.float32)[:, column]
    vectors = np.array(lookup(keras, "objects", ids=[column])["vectors"], dtype=np.float32)
    assert (COLUMNS @ one_hot).tobytes() == vectors.tobytes()


def test_a_one_hot_matrix_times_the_table_is_the_lookup_of_all(keras: httpx.Client) -> None:
    ids = [5, 1, 2, 3, 6, 0, 4, 4]
    vectors = np.array(lookup(keras, "sentences", ids=ids)["vectors"], dtype=np.float32)
    assert (np.eye(7, dtype=np.float32)[ids] @ KERAS_ROWS).tobytes() == vectors.tobytes()


def test_padding_zeros_are_masked_and_keep_row_0_as_stored(keras: httpx.Client) -> None:
    answer = lookup(keras, "masked", ids=[[1, 0, 3, 0, 2, 0, 0]])
    assert answer["mask"] == [[True, False, True, False, True, False, False]]
    stored = [1.2, 3.1]
    assert answer["vectors"] == [[[0.1, 4.2], stored, [0.3, 2.1], stored, [1.0, 3.1], stored, stored]]


def test_without_a_padding_id_nothing_is_masked(keras: httpx.Client) -> None:
    assert lookup(keras, "sentences", ids=[[1, 0, 3, 0, 2, 0, 0]])["mask"] == [[True] * 7]


def test_sequences_are_padded_behind_to_input_length(keras: httpx.Client) -> None:
    answer = lookup(keras, "masked", ids=[[1, 3, 2]], length=7)
    assert answer["mask"] == [[True, True, True, False, False, False, False]]
    assert answer["vectors"] == [[[0.1, 4.2], [0.3, 2.1], [1.0, 3.1], *([[1.2, 3.1]] * 4)]]


@pytest.mark.parametrize(
    ("ids", "length", "shape"),
    [
        ([[5, 1, 2, 3, 6]], None, [1, 10]),
        ([[0, 1, 2, 3, 4], [5, 1, 2, 3, 6]], None, [2, 10]),
        ([[1], [2, 3]], 7, [2, 14]),
    ],
    ids=["one sentence", "two sentences", "padded to 7"],
)
def test_flatten_gives_batch_by_length_times_dim(
    keras: httpx.Client, ids: list[list[int]], length: int | None, shape: list[int]
) -> None:
    fields = {"ids": ids} if length is None else {"ids": ids, "length": length}
    flat, nested = lookup(keras, "masked", **fields, flatten=True), lookup(keras, "masked", **fields)
    assert flat["shape"] == shape
    assert flat["vectors"] == [[number for vector in sequence for number in vector] for sequence in nested["vectors"]]
    assert flat["mask"] == nested["mask"]


def test_the_same_example_through_an_npz_of_one_batch(keras: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "ids.npz"
    np.savez(file, ids=np.array([[1, 0, 3, 0, 2, 0, 0]]))
    answer = keras.post(
        "/v1/tables/masked/lookup", content=file.read_bytes(), headers={"content-type": "application/x-npz"}
    )
    assert answer.json() == lookup(keras, "masked", ids=[[1, 0, 3, 0, 2, 0, 0]])
