"""Versions that are static text models: tokenizer, weights and settings come back, and damage to them is found."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import npyfile
from service.errors import DamagedVersion, InvalidTable
from service.imported import ImportedTable, TextModel
from service.loader import load
from service.manifest import TextSettings
from service.store import TableStore
from service.types import RowDtype, TableVersion
from tests.store.test_verify import Damage, change, flipped, manifest, missing, record, reseal, unlisted
from tests.world import KERAS_ROWS, KERAS_TOKENS, imported

TOKENIZER = "tokenizer.json"
WEIGHTS = "token_weights.npy"
CONTENT = json.dumps({"model": {"vocab": {token: row for row, token in enumerate(KERAS_TOKENS)}}}).encode()
NUMBERS = np.array([0.1, 1 / 3, 1e-300, 0.0, -1.0, 1e300, 5e-324])
FULL = TextSettings(
    normalize=True, prompt="query: ", max_characters=2**40, max_tokens=0, dropped_ids=[6, 0], dimensions=1
)
PLAIN = TextSettings(normalize=False)


def table(text: TextModel | None, dtype: RowDtype = "float32") -> ImportedTable:
    return replace(imported(KERAS_ROWS, KERAS_TOKENS), text=text, dtype=dtype)


MODELS = {
    "all there is": TextModel(CONTENT, FULL, NUMBERS),
    "no weights": TextModel(CONTENT, FULL),
    "the least": TextModel(b"", PLAIN),
    "weights of integers": TextModel(CONTENT, PLAIN, np.arange(7).astype(np.float64)),
    "weights that are not contiguous": TextModel(CONTENT, PLAIN, np.arange(14.0)[::2]),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("text", MODELS.values(), ids=MODELS.keys())
def test_a_version_gives_back_what_makes_it_a_text_model(tmp_path: Path, text: TextModel, dtype: RowDtype) -> None:
    store = TableStore(tmp_path)
    folder = store.version(store.publish("words", table(text, dtype)))
    found = folder.text()
    assert found is not None
    assert (found.tokenizer, found.settings) == (text.tokenizer, text.settings)
    assert (found.weights is None) == (text.weights is None)
    if text.weights is not None:
        assert found.weights is not None
        assert found.weights.dtype == np.float64
        assert found.weights.tobytes() == text.weights.tobytes()
    said = store.verify(TableVersion("words", 1))
    assert said.text == text.settings
    assert (TOKENIZER in said.files, WEIGHTS in said.files) == (True, text.weights is not None)


def test_a_version_that_is_no_text_model_has_none(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    folder = store.version(store.publish("words", table(None)))
    assert (folder.text(), folder.manifest().text) == (None, None)
    assert not {TOKENIZER, WEIGHTS} & {path.name for path in folder.path.iterdir()}


WRONG_WEIGHTS = {
    "too few": np.ones(6),
    "too many": np.ones(8),
    "two axes": np.ones((7, 1)),
    "not a number": np.array([1, 1, 1, 1, 1, 1, np.nan]),
    "infinite": np.array([np.inf, 1, 1, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("weights", WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS.keys())
def test_wrong_weights_are_not_published(tmp_path: Path, weights: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidTable, match="not 7 finite numbers"):
        TableStore(tmp_path).publish("words", table(TextModel(CONTENT, PLAIN, weights)))
    assert list(tmp_path.iterdir()) == []


def weights(array: Any) -> Damage:  # noqa: ANN401
    return reseal(WEIGHTS, lambda _: npyfile.dump(array))


def setting(**fields: object) -> Damage:
    """Other settings of the text."""
    return manifest(text={**FULL.model_dump(), **fields})


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a tokenizer without text": (manifest(text=None), "manifest.json lists 'token_weights.npy', 'tokenizer.json'"),
    "text without a tokenizer": (unlisted(TOKENIZER), "manifest.json does not list tokenizer.json"),
    "the tokenizer missing": (missing(TOKENIZER), "tokenizer.json is missing"),
    "the tokenizer cut off": (change(TOKENIZER, lambda data: data[:-1]), "tokenizer.json has"),
    "a byte of the tokenizer changed": (change(TOKENIZER, flipped(5)), "tokenizer.json does not have the SHA-256"),
    "the weights missing": (missing(WEIGHTS), "token_weights.npy is missing"),
    "a byte of the weights changed": (change(WEIGHTS, flipped(-1)), "token_weights.npy does not have the SHA-256"),
    "too few weights": (weights(NUMBERS[:6]), "token_weights.npy: <f8 of shape (6,) is not a vector of 7 float64"),
    "weights of two axes": (weights(NUMBERS[:, None]), "token_weights.npy: <f8 of shape (7, 1)"),
    "weights of float32": (weights(np.ones(7, "<f4")), "token_weights.npy: <f4 of shape (7,)"),
    "weights in big-endian": (weights(NUMBERS.astype(">f8")), "token_weights.npy: >f8 of shape (7,)"),
    "weights that are no npy": (reseal(WEIGHTS, lambda _: b"1 2 3"), "token_weights.npy: "),
    "settings that are a text": (manifest(text="normalize"), "text"),
    "settings without normalize": (manifest(text={}), "text.normalize"),
    "an unknown setting": (setting(lower=True), "text.lower"),
    "normalize a number": (setting(normalize=1), "text.normalize"),
    "a prompt that is null": (setting(prompt=None), "text.prompt"),
    "max_tokens negative": (setting(max_tokens=-1), "text.max_tokens"),
    "max_characters a fraction": (setting(max_characters=1.5), "text.max_characters"),
    "a dropped id below zero": (setting(dropped_ids=[0, -1]), "text.dropped_ids.1"),
    "no dimensions": (setting(dimensions=0), "text.dimensions"),
}


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[Damage], TableStore]:
    """A store with a damaged version 1 of `words`."""

    def make(damage: Damage) -> TableStore:
        store = TableStore(tmp_path)
        damage(store.version(store.publish("words", table(MODELS["all there is"]))).path)
        return store

    return make


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found_and_named(damaged: Callable[[Damage], TableStore], damage: Damage, named: str) -> None:
    with pytest.raises(DamagedVersion) as verified:
        damaged(damage).verify(TableVersion("words", 1))
    assert named in verified.value.reason


@pytest.mark.parametrize(
    "kind", sorted(DAMAGES.keys() - {"a byte of the tokenizer changed", "a byte of the weights changed"})
)
def test_all_but_changed_bytes_is_found_when_a_version_is_opened(
    damaged: Callable[[Damage], TableStore], kind: str
) -> None:
    damage, named = DAMAGES[kind]
    with pytest.raises(DamagedVersion) as refused:
        load(damaged(damage), TableVersion("words", 1))
    assert named in refused.value.reason


@pytest.mark.parametrize("name", [TOKENIZER, WEIGHTS])
def test_text_is_not_given_without_one_of_its_files(damaged: Callable[[Damage], TableStore], name: str) -> None:
    folder = damaged(missing(name)).version(TableVersion("words", 1))
    with pytest.raises(DamagedVersion, match=f"{name}: No such file"):
        folder.text()


@pytest.mark.parametrize("name", [TOKENIZER, WEIGHTS])
def test_a_table_without_text_does_not_list_files_of_text(tmp_path: Path, name: str) -> None:
    store = TableStore(tmp_path)
    folder = store.version(store.publish("words", table(None)))
    record(name)(folder.path)
    with pytest.raises(DamagedVersion, match=f"manifest.json lists '{name}'"):
        folder.manifest()
