"""From an upload to vectors of texts: what the admin API is told of texts is what the protocols do."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.test_upload import tar
from tests.api.wire import npy
from tests.test_texts import tokenizer
from tests.world import KERAS_ROWS, KERAS_TOKENS, serving

ADMIN = {"Authorization": "Bearer secret"}
TAR = {
    "rows.npy": npy(KERAS_ROWS),
    "vocabulary.txt": "".join(f"{token}\n" for token in KERAS_TOKENS).encode(),
    "words.json": tokenizer(),
}


def embedded(client: httpx.Client, text: str) -> list[float]:
    answer = client.post("/v1/embeddings", json={"model": "words", "input": text})
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["data"][0]["embedding"]
    return found


def publish(client: httpx.Client, **query: str) -> httpx.Response:
    params = {"activate": "true", "file": "rows.npy", **query}
    return client.post("/v1/admin/tables/words/versions", content=tar(TAR), params=params, headers=ADMIN)


@pytest.mark.parametrize(
    ("query", "text", "wanted"),
    [
        ({}, "hope to", KERAS_ROWS[:2].mean(axis=0)),
        ({"pooling": "sum"}, "hope to", KERAS_ROWS[:2].sum(axis=0)),
        ({"tokenizer": "words.json"}, "hope,zzz", KERAS_ROWS[[0, 6, 6]].mean(axis=0)),
        ({"tokenizer": "words.json", "pooling": "max"}, "hope to", KERAS_ROWS[:2].max(axis=0)),
        ({"normalize_texts": "true"}, "you", KERAS_ROWS[3] / np.linalg.norm(KERAS_ROWS[3])),
    ],
    ids=["nothing said", "pooling", "a tokenizer", "both", "normalised"],
)
def test_an_upload_says_how_texts_are_read(tmp_path: Path, query: dict[str, str], text: str, wanted: Any) -> None:  # noqa: ANN401
    with serving(tmp_path, admin_token="secret") as client:
        assert publish(client, **query).status_code == 201
        assert embedded(client, text) == pytest.approx(wanted.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("query", "field"),
    [({"tokenizer": "none.json"}, "tokenizer"), ({"pooling": "none"}, "pooling"), ({"tokenizer": "rows.npy"}, None)],
)
def test_what_is_wrong_is_refused(tmp_path: Path, query: dict[str, str], field: str | None) -> None:
    with serving(tmp_path, admin_token="secret") as client:
        answer = publish(client, **query)
        assert (answer.status_code, answer.json().get("field")) == (422, field)
        assert str(tmp_path) not in answer.text
