"""Folders that model2vec and sentence-transformers saved, against what these libraries said of them."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save, save_file
from tokenizers import Tokenizer

from service.errors import ImportFormatError
from service.imported import ImportedTable, TextModel
from service.importers import FOLDERS, read
from service.importers.detection import detect
from service.importers.options import ImportOptions
from service.importers.transforms import max_norm, unit_norm
from service.manifest import TextSettings
from service.store import TableStore
from service.types import RowArray, RowDtype
from service.version import VersionFolder
from tests.importers.contract import ImporterContract, read_whole, small_pieces
from tests.importers.samples import safetensors_bytes

DATA = Path(__file__).parent.parent / "data"
STATIC = DATA / "static_text"
NAMES = sorted(path.name for path in STATIC.iterdir())
DENSE = "sentence_transformers_dense"
WITH_TEXT = [name for name in NAMES if name != DENSE]
HALF = ("model2vec_float16", "model2vec_mapped_float16")
"""The models that compute in float16 themselves."""
WEIGHTED = ("model2vec_mapped", "model2vec_mapped_float16")


class TestStaticText(ImporterContract):
    format = "static-text"
    has_tokens = True
    rows_file = "model.safetensors"

    def write(self, path: Path, rows: NDArray[np.floating], tokens: Sequence[str]) -> Path:
        path.mkdir()
        (path / "model.safetensors").write_bytes(save({"embeddings": np.ascontiguousarray(rows)}))
        vocabulary = {token: row for row, token in enumerate(tokens[: len(rows)])}
        (path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordLevel", "vocab": vocabulary}}))
        (path / "config.json").write_text(json.dumps({"model_type": "model2vec"}))
        return path

    def truncations(self, data: bytes) -> list[bytes]:
        return [data[:length] for length in range(0, len(data), 7)]


Edit: TypeAlias = Callable[[Path], None]
"""Changes the folder of a model."""


def table_of(folder: Path, options: ImportOptions | None = None) -> ImportedTable:
    name, table = read(folder, options or ImportOptions())
    assert name == "static-text"
    return table


def text_of(folder: Path, options: ImportOptions | None = None) -> TextModel:
    text = table_of(folder, options).text
    assert text is not None
    return text


def published(root: Path, table: ImportedTable) -> VersionFolder:
    store = TableStore(root)
    return store.version(store.publish("words", table))


def expected(name: str) -> tuple[RowArray, list[str], list[list[int]], RowArray]:
    """Rows, texts, the token ids of each and its vector."""
    folder = STATIC / name
    texts, ids = (json.loads((folder / file).read_text(encoding="utf-8")) for file in ("texts.json", "ids.json"))
    return np.load(folder / "rows.npy"), texts, ids, np.load(folder / "texts.npy")


def tokenizer_file(folder: Path) -> Path:
    (found,) = folder.rglob("tokenizer.json")
    return found


# The formula of TextSettings


def token_ids(text: TextModel, sentence: str) -> list[int]:
    assert text.tokenizer is not None
    tokenizer = Tokenizer.from_str(text.tokenizer.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    said = text.settings
    ids = tokenizer.encode(said.prompt + sentence[: said.max_characters], add_special_tokens=False).ids
    return [one for one in ids[: said.max_tokens] if one not in said.dropped_ids]


def vector(text: TextModel, rows: RowArray, ids: list[int]) -> NDArray[np.float64]:
    weights = np.ones(len(rows)) if text.weights is None else text.weights
    total = np.zeros(rows.shape[1], dtype=np.float32)
    for one in ids:
        total += rows[one] * np.float32(weights[one])
    mean = total.astype(np.float64) / max(1, len(ids))
    length = np.sqrt((mean * mean).sum())
    if text.settings.normalize and length > 0:
        mean /= length
    cut: NDArray[np.float64] = mean[: text.settings.dimensions]
    return cut


def vectors(text: TextModel, rows: RowArray, sentences: list[str]) -> NDArray[np.float64]:
    return np.array([vector(text, rows, token_ids(text, sentence)) for sentence in sentences])


# Rows, tokens and texts are those of the libraries


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_what_the_library_has_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, *_ = expected(name)
    assert read_whole(STATIC / name)[0].tobytes() == rows.tobytes()
    small_pieces(monkeypatch, 48)
    assert read_whole(STATIC / name)[0].tobytes() == rows.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_tokenizer(name: str) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file(STATIC / name)))
    _, tokens = read_whole(STATIC / name)
    assert tokens == [tokenizer.id_to_token(row) for row in range(tokenizer.get_vocab_size())]


@pytest.mark.parametrize("name", WITH_TEXT)
def test_a_published_version_tokenises_as_the_library_does(tmp_path: Path, name: str) -> None:
    _, texts, ids, _ = expected(name)
    text = published(tmp_path, table_of(STATIC / name)).text()
    assert text is not None
    assert [token_ids(text, sentence) for sentence in texts] == ids


@pytest.mark.parametrize("name", WITH_TEXT)
def test_a_published_version_gives_the_vectors_of_the_library(tmp_path: Path, name: str) -> None:
    _, texts, _, answers = expected(name)
    folder = published(tmp_path, table_of(STATIC / name))
    text = folder.text()
    assert text is not None
    rows = np.concatenate(list(folder.rows(100)))
    exactness = 1e-3 if name in HALF else 1e-5
    np.testing.assert_allclose(vectors(text, rows, texts), answers, rtol=exactness, atol=exactness)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_a_version_gives_back_tokenizer_weights_and_settings(tmp_path: Path, name: str) -> None:
    given = text_of(STATIC / name)
    found = published(tmp_path, table_of(STATIC / name)).text()
    assert found is not None
    assert found.tokenizer == given.tokenizer == tokenizer_file(STATIC / name).read_bytes()
    assert found.settings == given.settings
    assert (found.weights is None) == (given.weights is None) == (name not in WEIGHTED)
    if found.weights is not None:
        stored = load_file(STATIC / name / "model.safetensors")["weights"]
        assert found.weights.tobytes() == stored.astype(np.float64).tobytes()


SETTINGS = {
    "model2vec_float32": TextSettings(normalize=True, max_characters=1536, max_tokens=512, dropped_ids=[1]),
    "model2vec_int8": TextSettings(normalize=False, max_characters=1536, max_tokens=512, dropped_ids=[1]),
    "model2vec_short": TextSettings(normalize=False, max_characters=12, max_tokens=4, dropped_ids=[1]),
    "model2vec_byte_pairs": TextSettings(normalize=False),
    "model2vec_unigram": TextSettings(normalize=True, dropped_ids=[2]),
    "sentence_transformers": TextSettings(normalize=False),
    "sentence_transformers_normalized": TextSettings(normalize=True, max_tokens=8),
    "sentence_transformers_prompt": TextSettings(normalize=False, prompt="hope to see "),
    "sentence_transformers_subfolder": TextSettings(normalize=True),
}


@pytest.mark.parametrize(("name", "settings"), SETTINGS.items(), ids=SETTINGS.keys())
def test_settings_are_those_of_the_model(name: str, settings: TextSettings) -> None:
    assert text_of(STATIC / name).settings == settings


def test_a_model_with_more_modules_is_a_table_without_text_and_says_why(tmp_path: Path) -> None:
    table = table_of(STATIC / DENSE)
    assert (table.text, table.source["text"]) == (None, "left out: Dense follows the rows")
    folder = published(tmp_path, table)
    assert folder.text() is None
    assert folder.has_vocabulary()


def test_the_origin_says_folder_tensor_and_mapping() -> None:
    assert table_of(STATIC / "model2vec_mapped").source == {
        "folder": "model2vec_mapped",
        "file": "model.safetensors",
        "tensor": "embeddings",
        "mapping": "38 tokens to 9 rows",
        "vocabulary": "tokenizer.json",
    }
    assert table_of(STATIC / "sentence_transformers").source["tensor"] == "embedding.weight"
    assert table_of(STATIC / "model2vec_int8").source["dtype"] == "int8"


def test_special_rows_are_those_of_the_tokenizer() -> None:
    tables = [table_of(STATIC / f"model2vec_{name}") for name in ("float32", "unigram", "byte_pairs")]
    assert [(table.padding_id, table.unk_id) for table in tables] == [(0, 1), (None, 2), (None, None)]


# Which folders these are


@pytest.mark.parametrize("name", NAMES)
def test_a_static_model_is_told_from_other_models(name: str) -> None:
    assert detect(STATIC / name) == "static-text"
    assert "static-text" in FOLDERS


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "huggingface").iterdir()))
def test_other_models_are_no_static_ones(name: str) -> None:
    assert detect(DATA / "huggingface" / name) == "huggingface"


def edited(tmp_path: Path, name: str, *edits: Edit) -> Path:
    folder = shutil.copytree(STATIC / name, tmp_path / name)
    for edit in edits:
        edit(folder)
    return folder


def gone(file: str) -> Edit:
    return lambda folder: (folder / file).unlink()


def content(file: str, data: object) -> Edit:
    """A file's whole content: bytes as they are, anything else as JSON."""
    return lambda folder: void((folder / file).write_bytes(data if isinstance(data, bytes) else dumped(data)))


def dumped(data: object) -> bytes:
    return json.dumps(data).encode()


def void(_: object) -> None:
    """For a lambda that is called for what it does."""


def value(file: str, *keys: str | int, to: object) -> Edit:
    """Another value at a place of a JSON file, which is made if it is not there."""

    def edit(folder: Path) -> None:
        path = folder / file
        whole: Any = json.loads(path.read_bytes()) if path.exists() else {}
        inner = whole
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        path.write_bytes(dumped(whole))

    return edit


def tensors(**arrays: NDArray[Any] | None) -> Edit:
    """Other tensors in the model's file; None takes one away."""

    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        kept = {**load_file(path), **arrays}
        save_file({name: array for name, array in kept.items() if array is not None}, path)

    return edit


TOLD: dict[str, tuple[str, tuple[Edit, ...], str]] = {
    "model2vec without modules": ("model2vec_float32", (gone("modules.json"),), "static-text"),
    "model2vec without config": ("model2vec_float32", (gone("config.json"),), "static-text"),
    "model2vec without both": ("model2vec_float32", (gone("modules.json"), gone("config.json")), "huggingface"),
    "a transformer first": (
        "sentence_transformers", (value("modules.json", 0, "type", to="a.Transformer"),), "huggingface"
    ),
    "no tokenizer": ("sentence_transformers", (gone("tokenizer.json"),), "huggingface"),
    "a path that climbs": ("sentence_transformers", (value("modules.json", 0, "path", to="../x"),), "static-text"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "edits", "told"), TOLD.values(), ids=TOLD.keys())
def test_a_folder_is_told_by_its_modules_or_its_config(
    tmp_path: Path, name: str, edits: tuple[Edit, ...], told: str
) -> None:
    assert detect(edited(tmp_path, name, *edits)) == told


@pytest.mark.parametrize("data", [{}, b"["], ids=["no list", "no JSON"])
def test_modules_that_cannot_be_read_are_a_refusal_and_no_other_format(tmp_path: Path, data: object) -> None:
    folder = edited(tmp_path, "sentence_transformers", content("modules.json", data))
    with pytest.raises(ImportFormatError) as refused:
        detect(folder)
    assert refused.value.file == str(folder / "modules.json")


# Options


def test_the_first_rows_are_a_table_without_text_and_say_why() -> None:
    options = ImportOptions(rows=9)
    table = table_of(STATIC / "model2vec_float32", options)
    assert (table.text, table.source["text"]) == (None, "left out: not every token has a row")
    rows, tokens = read_whole(STATIC / "model2vec_float32", options)
    assert rows.tobytes() == expected("model2vec_float32")[0][:9].tobytes()
    assert tokens is not None
    assert (len(tokens), tokens[:2]) == (9, ["[PAD]", "[UNK]"])
    assert text_of(STATIC / "model2vec_float32", ImportOptions(rows=38)).settings == SETTINGS["model2vec_float32"]


def test_the_first_rows_are_those_of_the_tokens_where_there_is_a_mapping() -> None:
    rows, _ = read_whole(STATIC / "model2vec_mapped", ImportOptions(rows=20))
    assert rows.tobytes() == expected("model2vec_mapped")[0][:20].tobytes()


def test_chosen_words_are_a_table_without_text(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("hope\ntable\n")
    options = ImportOptions(select=tmp_path / "words")
    table = table_of(STATIC / "model2vec_float32", options)
    assert (table.text, table.source["text"]) == (None, "left out: the rows were selected")
    assert table.text is None
    all_rows, all_tokens = read_whole(STATIC / "model2vec_float32")
    rows, tokens = read_whole(STATIC / "model2vec_float32", options)
    assert all_tokens is not None
    assert tokens == ["hope", "table"]
    assert rows.tobytes() == all_rows[[all_tokens.index("hope"), all_tokens.index("table")]].tobytes()


def test_a_vocabulary_of_the_users_own_names_the_rows_and_the_text_stays(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("".join(f"word {row}\n" for row in range(38)))
    options = ImportOptions(vocabulary=tmp_path / "words")
    assert read_whole(STATIC / "model2vec_float32", options)[1] == [f"word {row}" for row in range(38)]
    found, given = text_of(STATIC / "model2vec_float32", options), text_of(STATIC / "model2vec_float32")
    assert (found.tokenizer, found.settings) == (given.tokenizer, given.settings)


REFUSED_OPTIONS = {"--transpose": ImportOptions(transpose=True), "--tensor": ImportOptions(tensor="embeddings")}


@pytest.mark.parametrize(("option", "options"), REFUSED_OPTIONS.items(), ids=REFUSED_OPTIONS.keys())
def test_options_of_a_matrix_have_no_meaning(option: str, options: ImportOptions) -> None:
    with pytest.raises(ImportFormatError, match=f"{option} has no meaning") as refused:
        read(STATIC / "model2vec_float32", options)
    assert refused.value.file == str(STATIC / "model2vec_float32")


@pytest.mark.parametrize(
    "options",
    [ImportOptions(normalize=True), ImportOptions(max_norm=0.5), ImportOptions(normalize=True, max_norm=0.5)],
    ids=["normalize", "max_norm", "both"],
)
def test_scaled_rows_leave_the_text_out(tmp_path: Path, options: ImportOptions) -> None:
    table = table_of(STATIC / "sentence_transformers", options)
    assert table.source["text"] == "left out: the rows were scaled"
    folder = published(tmp_path, table)
    rows = (
        unit_norm(expected("sentence_transformers")[0]) if options.normalize else expected("sentence_transformers")[0]
    )
    scaled = rows if options.max_norm is None else max_norm(rows, options.max_norm)
    assert np.concatenate(list(folder.rows(100))).tobytes() == scaled.tobytes()
    assert folder.text() is None


@pytest.mark.parametrize("dtype", ["int8", "float16"])
@pytest.mark.parametrize("name", ["sentence_transformers", "model2vec_mapped"])
def test_rows_in_fewer_bits_keep_the_text_and_vectors_stay_near(tmp_path: Path, name: str, dtype: RowDtype) -> None:
    folder = published(tmp_path, replace(table_of(STATIC / name), dtype=dtype))
    text, rounding = folder.text(), folder.verify().rounding
    assert text is not None
    assert rounding is not None
    _, texts, ids, answers = expected(name)
    assert [token_ids(text, sentence) for sentence in texts] == ids
    apart = np.abs(vectors(text, np.concatenate(list(folder.rows(100))), texts) - answers).max()
    heaviest = 1.0 if text.weights is None else float(np.abs(text.weights).max())
    assert 1e-5 < apart <= rounding.max_abs_error * heaviest + 1e-5


# Settings that the saved models do not have


def test_vectors_are_cut_to_truncate_dim(tmp_path: Path) -> None:
    name = "sentence_transformers_normalized"
    folder = edited(tmp_path, name, value("config_sentence_transformers.json", "truncate_dim", to=4))
    version = published(tmp_path / "store", table_of(folder))
    text = version.text()
    assert text is not None
    assert text.settings == replace_settings(SETTINGS[name], dimensions=4)
    rows, texts, _, answers = expected(name)
    assert version.manifest().embedding_dim == rows.shape[1] == 6
    np.testing.assert_allclose(vectors(text, rows, texts), answers[:, :4], rtol=1e-5, atol=1e-5)


def replace_settings(settings: TextSettings, **fields: object) -> TextSettings:
    return settings.model_copy(update=fields)


CONFIGS: dict[str, tuple[str, Edit, dict[str, object]]] = {
    "no default prompt": (
        "sentence_transformers_prompt",
        value("config_sentence_transformers.json", "default_prompt_name", to=None),
        {"prompt": ""},
    ),
    "another default prompt": (
        "sentence_transformers_prompt",
        value("config_sentence_transformers.json", "default_prompt_name", to="document"),
        {"prompt": ""},
    ),
    "no config": ("sentence_transformers_prompt", gone("config_sentence_transformers.json"), {"prompt": ""}),
    "no truncation": (
        "sentence_transformers_normalized", value("tokenizer.json", "truncation", to=None), {"max_tokens": None}
    ),
    "truncation to nothing": (
        "sentence_transformers_normalized", value("tokenizer.json", "truncation", "max_length", to=0), {"max_tokens": 0}
    ),
    "model2vec of before max_length": (
        "model2vec_short", content("config.json", {"normalize": False}),
        {"max_tokens": 512, "max_characters": 512 * 3},
    ),
    "model2vec without config": (
        "model2vec_short", gone("config.json"), {"max_tokens": 512, "max_characters": 512 * 3}
    ),
    "model2vec overrules the tokenizer's truncation": (
        "model2vec_short", value("tokenizer.json", "truncation", "direction", to="Left"), {}
    ),
    "model2vec, large": (
        "model2vec_short", value("config.json", "max_length", to=2**40),
        {"max_tokens": 2**40, "max_characters": 3 * 2**40},
    ),
    "no token is unknown": (
        "model2vec_short", value("tokenizer.json", "model", "unk_token", to="nothing"), {"dropped_ids": []}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "fields"), CONFIGS.values(), ids=CONFIGS.keys())
def test_settings_follow_the_configuration(tmp_path: Path, name: str, edit: Edit, fields: dict[str, object]) -> None:
    assert text_of(edited(tmp_path, name, edit)).settings == replace_settings(SETTINGS[name], **fields)


def test_texts_that_are_cut_at_their_beginning_are_left_out(tmp_path: Path) -> None:
    left = value("tokenizer.json", "truncation", "direction", to="Left")
    table = table_of(edited(tmp_path, "sentence_transformers_normalized", left))
    assert (table.text, table.source["text"]) == (None, "left out: texts are cut at their beginning")


def test_an_id_without_token_is_a_row_that_no_text_has(tmp_path: Path) -> None:
    folder = edited(tmp_path, "model2vec_short", without_token("table"))
    row = json.loads((STATIC / "model2vec_short" / "tokenizer.json").read_bytes())["model"]["vocab"]["table"]
    rows, tokens = read_whole(folder)
    assert tokens is not None
    assert tokens[row] == f"<row {row}>"
    assert rows.tobytes() == expected("model2vec_short")[0].tobytes()
    assert table_of(folder).source["rows_without_token"] == "1, called <row i>"
    assert token_ids(text_of(folder), "the table") == token_ids(text_of(folder), "the")


def without_token(token: str) -> Edit:
    def edit(folder: Path) -> None:
        whole = json.loads((folder / "tokenizer.json").read_bytes())
        del whole["model"]["vocab"][token]
        (folder / "tokenizer.json").write_bytes(dumped(whole))

    return edit


# What is refused

PLAIN, MAPPED = "model2vec_float32", "model2vec_mapped"
MODEL, TOKENS, CONFIG, MODULES = "model.safetensors", "tokenizer.json", "config.json", "modules.json"
TRANSFORMER, SHORT = "sentence_transformers", "sentence_transformers_normalized"
SETTINGS_FILE = "config_sentence_transformers.json"
TO_ROW = np.arange(38) % 9
WEIGHTS = np.ones(38)


def at(array: NDArray[Any], index: int, number: float) -> NDArray[Any]:
    changed = array.copy()
    changed[index] = number
    return changed


def float8(name: str) -> Edit:
    """A tensor of a dtype that numpy does not have."""
    header = {name: {"dtype": "F8_E4M3", "shape": [38], "data_offsets": [0, 38]}}
    rows = {"embeddings": {"dtype": "F32", "shape": [38, 1], "data_offsets": [38, 190]}}
    return content(MODEL, safetensors_bytes({**header, **rows}, bytes(190)))


def path_of_first(to: object) -> Edit:
    return value(MODULES, 0, "path", to=to)


# The model, what is done to it, and what the error names: the file, the place and a part of the reason.
DAMAGES: dict[str, tuple[str, Edit, str, str | None, str]] = {
    # Rows
    "no rows": (PLAIN, tensors(embeddings=None, other=WEIGHTS), MODEL, None, "neither a tensor 'embeddings'"),
    "no file of rows": (PLAIN, gone(MODEL), MODEL, None, "cannot be read"),
    "rows of one axis": (PLAIN, tensors(embeddings=np.ones(38, "f4")), MODEL, None, "the shape [38]"),
    "rows of three axes": (PLAIN, tensors(embeddings=np.ones((38, 2, 2), "f4")), MODEL, None, "the shape [38, 2, 2]"),
    "mapped rows of one axis": (MAPPED, tensors(embeddings=np.ones(9, "f4")), MODEL, None, "the shape [9]"),
    "a row that is not a number": (
        PLAIN, tensors(embeddings=at(np.ones((38, 6), "f4"), 7, np.nan)), MODEL, "row 7, column 0", "nan",
    ),
    "a mapped row that is infinite": (
        MAPPED, tensors(embeddings=at(np.ones((9, 6), "f4"), 2, np.inf), mapping=TO_ROW), MODEL,
        "row 2, column 0", "inf",
    ),
    # The row of a token
    "mapping too short": (MAPPED, tensors(mapping=TO_ROW[:37]), MODEL, "tensor 'mapping'", "37 int64 are no row for"),
    "mapping empty": (MAPPED, tensors(mapping=TO_ROW[:0]), MODEL, "tensor 'mapping'", "0 int64 are no row for"),
    "mapping out of range": (
        MAPPED, tensors(mapping=at(TO_ROW, 30, 9)), MODEL, "tensor 'mapping', number 30", "no row 9, there are 9",
    ),
    "mapping negative": (
        MAPPED, tensors(mapping=at(TO_ROW, 3, -1)), MODEL, "tensor 'mapping', number 3", "no row -1, there are 9",
    ),
    "mapping huge": (
        MAPPED, tensors(mapping=np.full(38, 2**64 - 1, "u8")), MODEL, "tensor 'mapping', number 0", f"row {2**64 - 1}",
    ),
    "mapping of floats": (MAPPED, tensors(mapping=TO_ROW * 1.0), MODEL, "tensor 'mapping'", "38 float64 are no row"),
    "mapping of booleans": (MAPPED, tensors(mapping=TO_ROW > 3), MODEL, "tensor 'mapping'", "it holds BOOL"),
    "mapping of float8": (PLAIN, float8("mapping"), MODEL, "tensor 'mapping'", "it holds F8_E4M3"),
    "mapping of two axes": (MAPPED, tensors(mapping=TO_ROW[:, None]), MODEL, "tensor 'mapping'", "shape [38, 1]"),
    "mapping of no axis": (MAPPED, tensors(mapping=np.array(3)), MODEL, "tensor 'mapping'", "shape []"),
    # Weights
    "too few weights": (PLAIN, tensors(weights=WEIGHTS[:37]), MODEL, "tensor 'weights'", "37 float64 are no weight"),
    "too many weights": (PLAIN, tensors(weights=np.ones(39)), MODEL, "tensor 'weights'", "39 float64 are no weight"),
    "weights for rows, not tokens": (MAPPED, tensors(weights=WEIGHTS[:9]), MODEL, "tensor 'weights'", "of 38 tokens"),
    "a weight that is not a number": (
        MAPPED, tensors(weights=at(WEIGHTS, 5, np.nan)), MODEL, "tensor 'weights', number 5", "nan is no weight",
    ),
    "a weight that is infinite": (
        MAPPED, tensors(weights=at(WEIGHTS, 37, -np.inf)), MODEL, "tensor 'weights', number 37", "-inf is no weight",
    ),
    "weights of two axes": (PLAIN, tensors(weights=WEIGHTS[:, None]), MODEL, "tensor 'weights'", "shape [38, 1]"),
    "weights of booleans": (PLAIN, tensors(weights=WEIGHTS > 0), MODEL, "tensor 'weights'", "it holds BOOL"),
    "weights of float8": (PLAIN, float8("weights"), MODEL, "tensor 'weights'", "it holds F8_E4M3"),
    # The tokenizer
    "no tokenizer": (PLAIN, gone(TOKENS), TOKENS, None, "there is no such file"),
    "no tokenizer but a vocabulary": (
        PLAIN, lambda folder: void((folder / TOKENS).rename(folder / "vocab.json")), "vocab.json", "vocab.json",
        "has the id",
    ),
    "a tokenizer that is not JSON": (PLAIN, content(TOKENS, b"{"), TOKENS, None, "not JSON"),
    "a tokenizer that is a list": (PLAIN, content(TOKENS, []), TOKENS, None, "not a JSON object"),
    "a tokenizer that is empty": (PLAIN, content(TOKENS, {}), TOKENS, None, "it is empty"),
    "a tokenizer without model": (PLAIN, content(TOKENS, {"version": "1.0"}), TOKENS, None, "no model.vocab"),
    "more ids than rows": (
        PLAIN, tensors(embeddings=np.ones((37, 6), "f4")), MODEL, "tensor 'embeddings'", "the id 37, there are 37 rows",
    ),
    "an id far beyond the rows": (
        TRANSFORMER, value(TOKENS, "model", "vocab", "far", to=2**60), MODEL, "tensor 'embedding.weight'",
        f"'far' has the id {2**60}, there are 40 rows",
    ),
    "an id far beyond a mapping": (
        MAPPED, value(TOKENS, "model", "vocab", "far", to=2**60), MODEL, "tensor 'mapping'", f"of {2**60 + 1} tokens",
    ),
    "an id below zero": (PLAIN, value(TOKENS, "model", "vocab", "far", to=-1), TOKENS, "model.vocab", "the id -1"),
    "an id twice": (PLAIN, value(TOKENS, "model", "vocab", "far", to=9), TOKENS, "model.vocab", "both have the id 9"),
    # Modules
    "modules that are no list": (PLAIN, content(MODULES, {}), MODULES, None, "not a list of objects"),
    "modules that are null": (PLAIN, content(MODULES, None), MODULES, None, "not a list of objects"),
    "modules that are texts": (PLAIN, content(MODULES, ["x"]), MODULES, None, "not a list of objects"),
    "modules that are not JSON": (PLAIN, content(MODULES, b"[{]"), MODULES, None, "not JSON"),
    "a path that climbs": (PLAIN, path_of_first("../x"), MODULES, "entry 0, path", "'../x' is no folder of the model"),
    "a path that climbs and comes back": (
        PLAIN, path_of_first("../model2vec_float32"), MODULES, "entry 0, path", "'../model2vec_float32' is no folder",
    ),
    "the folder above": (PLAIN, path_of_first(".."), MODULES, "entry 0, path", "'..' is no folder of the model"),
    "a path that is absolute": (PLAIN, path_of_first("/"), MODULES, "entry 0, path", "'/' is no folder of the model"),
    "a path with NUL": (PLAIN, path_of_first("a\0b"), MODULES, "entry 0, path", "is no folder"),
    "a path that is not there": (PLAIN, path_of_first("0_Static"), MODULES, "entry 0, path", "is no folder"),
    "a path that is a file": (PLAIN, path_of_first(TOKENS), MODULES, "entry 0, path", "is no folder"),
    "a path that is too long": (PLAIN, path_of_first("x" * 5000), MODULES, "entry 0, path", "is no folder"),
    "a path that is a number": (PLAIN, path_of_first(0), MODULES, "entry 0, path", "0 is no folder of the model"),
    "a path that is null": (PLAIN, path_of_first(None), MODULES, "entry 0, path", "None is no folder of the model"),
    # Configurations
    "a config that is a list": (PLAIN, content(CONFIG, []), CONFIG, None, "not a JSON object"),
    "max_length a text": (PLAIN, value(CONFIG, "max_length", to="x"), CONFIG, "max_length", "'x' is not an integer"),
    "max_length negative": (PLAIN, value(CONFIG, "max_length", to=-1), CONFIG, "max_length", "-1 is not an integer"),
    "max_length true": (PLAIN, value(CONFIG, "max_length", to=True), CONFIG, "max_length", "True is not an integer"),
    "max_length a float": (PLAIN, value(CONFIG, "max_length", to=1e3), CONFIG, "max_length", "1000.0 is not an"),
    "max_length beyond": (PLAIN, value(CONFIG, "max_length", to=10**30), CONFIG, "max_length", "1e+30 is not an"),
    "normalize a text": (PLAIN, value(CONFIG, "normalize", to="yes"), CONFIG, "normalize", "'yes' is neither true nor"),
    "normalize a number": (PLAIN, value(CONFIG, "normalize", to=1), CONFIG, "normalize", "1 is neither true nor false"),
    "normalize null": (PLAIN, value(CONFIG, "normalize", to=None), CONFIG, "normalize", "None is neither true nor"),
    "truncation a number": (SHORT, value(TOKENS, "truncation", to=8), TOKENS, "truncation", "no max_length"),
    "truncation a list": (SHORT, value(TOKENS, "truncation", to=[8]), TOKENS, "truncation", "no max_length"),
    "truncation empty": (SHORT, value(TOKENS, "truncation", to={}), TOKENS, "truncation", "no max_length"),
    "truncation to a text": (
        SHORT, value(TOKENS, "truncation", "max_length", to="8"), TOKENS, "truncation.max_length", "'8' is not an",
    ),
    "truncation to a fraction": (
        SHORT, value(TOKENS, "truncation", "max_length", to=8.0), TOKENS, "truncation.max_length", "8.0 is not an",
    ),
    "truncation to a boolean": (
        SHORT, value(TOKENS, "truncation", "max_length", to=True), TOKENS, "truncation.max_length", "True is not an",
    ),
    "truncation below zero": (
        SHORT, value(TOKENS, "truncation", "max_length", to=-8), TOKENS, "truncation.max_length", "-8 is not an",
    ),
    "truncation in no direction": (
        SHORT, value(TOKENS, "truncation", "direction", to=1), TOKENS, "truncation.direction", "1 is neither",
    ),
    "truncate_dim zero": (
        SHORT, value(SETTINGS_FILE, "truncate_dim", to=0), SETTINGS_FILE, "truncate_dim", "0 is not an integer",
    ),
    "truncate_dim a text": (
        SHORT, value(SETTINGS_FILE, "truncate_dim", to="x"), SETTINGS_FILE, "truncate_dim", "'x' is not an integer",
    ),
    "default prompt missing": (
        SHORT, value(SETTINGS_FILE, "default_prompt_name", to="gone"), SETTINGS_FILE, "prompts", "the prompt 'gone'",
    ),
    "default prompt without prompts": (
        SHORT, content(SETTINGS_FILE, {"default_prompt_name": "query"}), SETTINGS_FILE, "prompts", "the prompt 'query'",
    ),
    "default prompt a number": (
        SHORT, value(SETTINGS_FILE, "default_prompt_name", to=1), SETTINGS_FILE, "prompts", "the prompt 1",
    ),
    "default prompt no text": (
        SHORT, content(SETTINGS_FILE, {"default_prompt_name": "query", "prompts": {"query": 1}}), SETTINGS_FILE,
        "prompts", "the prompt 'query'",
    ),
    "prompts a list": (
        SHORT, content(SETTINGS_FILE, {"default_prompt_name": "query", "prompts": ["query"]}), SETTINGS_FILE,
        "prompts", "the prompt 'query'",
    ),
    "settings that are a list": (SHORT, content(SETTINGS_FILE, []), SETTINGS_FILE, None, "not a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "file", "place", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_refused_with_file_and_place(
    tmp_path: Path, name: str, edit: Edit, file: str, place: str | None, reason: str
) -> None:
    folder = edited(tmp_path, name, edit)
    with pytest.raises(ImportFormatError) as refused:
        read_whole(folder, name="static-text")
    assert (refused.value.file, refused.value.place) == (str(folder / file), place)
    assert reason in refused.value.reason


def test_a_path_that_climbs_is_refused_where_the_format_is_told_by_content_too(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="no folder of the model"):
        read_whole(edited(tmp_path, TRANSFORMER, path_of_first("../x")))


@pytest.mark.parametrize("name", ["model2vec_float32", "sentence_transformers"])
def test_a_truncated_file_of_rows_is_refused(tmp_path: Path, name: str) -> None:
    data = (STATIC / name / MODEL).read_bytes()
    folder = edited(tmp_path, name)
    for length in range(0, len(data), 61):
        (folder / MODEL).write_bytes(data[:length])
        with pytest.raises(ImportFormatError) as refused:
            read_whole(folder, name="static-text")
        assert refused.value.file == str(folder / MODEL)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, PLAIN) / MODEL
    for wrong in (path, tmp_path / "nothing"):
        with pytest.raises(ImportFormatError) as refused:
            read_whole(wrong, name="static-text")
        assert refused.value.file == str(wrong)
    with pytest.raises(ImportFormatError):
        read_whole(tmp_path, name="static-text")
