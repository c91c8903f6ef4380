"""How tables read texts: by their tokenizer, or between white space, as their manifest says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from service.errors import ImportFormatError, InvalidTable, NoVocabulary, OutOfVocabulary, RequestTooLarge
from service.imported import TextModel
from service.importers.options import ImportOptions
from service.importing import Import, TextOptions
from service.layout import Layout
from service.loader import load
from service.manifest import TextSettings
from service.store import TableStore
from service.table import EmbeddingTable
from service.texts import TextReader, leading, normalized
from service.types import IdBatch, TableVersion
from tests.dialects.conftest import STATIC
from tests.world import KERAS_ROWS, KERAS_TOKENS, imported

WORDS = TableVersion("words", 1)


def tokenizer(tokens: tuple[str, ...] = KERAS_TOKENS) -> bytes:
    """A tokenizer of whole words, the last of which stands for those that it does not know."""
    made = Tokenizer(models.WordLevel({token: row for row, token in enumerate(tokens)}, unk_token=tokens[-1]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made.to_str().encode()


def table_of(root: Path, text: TextModel | None, **special: Any) -> EmbeddingTable:  # noqa: ANN401
    store = TableStore(root)
    return load(store, store.publish("words", replace(imported(KERAS_ROWS, KERAS_TOKENS, **special), text=text))).table


def vectors(table: EmbeddingTable, *texts: str) -> list[list[float]]:
    found: list[list[float]] = table.lookup(table.reader.read(texts, table.identity, 1000).request).vectors.tolist()
    return found


def mean(*rows: int) -> Any:  # noqa: ANN401
    return pytest.approx(KERAS_ROWS[list(rows)].mean(axis=0, dtype=np.float64).tolist(), rel=1e-6)


def test_a_tokenizer_whose_ids_are_the_rows(tmp_path: Path) -> None:
    table = table_of(tmp_path, TextModel(tokenizer(), TextSettings(normalize=False)))
    assert vectors(table, "hope to see", "you", "") == [mean(0, 1, 2), mean(3), [0.0, 0.0]]
    assert vectors(table, "hope zzz") == [mean(0, 6)]
    assert table.reader.read(["hope to", "see"], WORDS, 1000).tokens == 3


def test_ids_that_are_left_out_and_texts_that_are_cut(tmp_path: Path) -> None:
    settings = TextSettings(normalize=False, prompt="to ", max_characters=8, max_tokens=3, dropped_ids=[6])
    table = table_of(tmp_path, TextModel(tokenizer(), settings))
    assert vectors(table, "see zzz nice", "hope you", "a b c d") == [mean(1, 2), mean(1, 0, 3), mean(1)]
    assert table.reader.read(["see zzz nice"], WORDS, 1000).tokens == 3


def test_weights_are_over_the_number_of_tokens_as_model2vec_has_it(tmp_path: Path) -> None:
    weights = np.array([2.0, -1.0, 0.5, 0.0, 1.0, 1.0, 1.0])
    table = table_of(tmp_path, TextModel(tokenizer(), TextSettings(normalize=False), weights))
    rows = KERAS_ROWS.astype(np.float64) * weights[:, np.newaxis]
    (found, nothing) = vectors(table, "hope to see", "")
    assert found == pytest.approx((rows[:3].sum(axis=0) / 3).tolist(), rel=1e-6)
    assert nothing == [0.0, 0.0]
    ids = IdBatch(np.array([0, 1, 2, 3, 3]), Layout.ragged([3, 2]))
    of_ids = table.lookup(table.reader.pooled(ids)).vectors.tolist()
    assert of_ids == [found, [0.0, 0.0]]


def test_ids_outside_do_not_count_under_the_rule_that_masks_them(tmp_path: Path) -> None:
    weights = np.array([2.0, -1.0, 0.5, 0.0, 1.0, 1.0, 1.0])
    table = table_of(tmp_path, TextModel(tokenizer(), TextSettings(normalize=False), weights), on_oov="mask")
    ids = IdBatch(np.array([0, 0, 99, -5]), Layout.ragged([1, 3]))
    one, same = table.lookup(table.reader.pooled(ids, on_oov=table.on_oov)).vectors.tolist()
    assert one == same == pytest.approx((KERAS_ROWS[0] * 2.0).tolist(), rel=1e-6)


def test_the_weight_of_what_is_unknown_is_that_of_its_row(tmp_path: Path) -> None:
    weights = np.array([2.0, -1.0, 0.5, 0.0, 1.0, 1.0, 3.0])
    model = TextModel(tokenizer(), TextSettings(normalize=False), weights)
    table = table_of(tmp_path, model, on_oov="unk", unk_id=6)
    ids = IdBatch(np.array([99]), Layout((1,)))
    found = table.lookup(table.reader.pooled(ids, None, table.on_oov, table.unk_id)).vectors.tolist()
    assert found == pytest.approx((KERAS_ROWS[6] * 3.0).tolist(), rel=1e-6)


def test_texts_are_tokenised_some_at_a_time_up_to_a_limit(tmp_path: Path) -> None:
    table = table_of(tmp_path, TextModel(tokenizer(), TextSettings(normalize=False)))
    texts = ["hope to see", "you", "", *["soon " * 30_000] * 4]
    assert table.reader.read(texts, WORDS, 150_000).tokens == 120_004
    with pytest.raises(RequestTooLarge, match="EMBEDDING_MAX_IDS allows 1,000"):
        table.reader.read(texts, WORDS, 1000)


def test_a_model_that_is_not_read_as_a_whole_reads_no_texts(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    imported_ = Import(ImportOptions()).read(STATIC / "sentence_transformers_dense")
    table = load(store, store.publish("dense", imported_)).table
    assert not table.reads_texts
    with pytest.raises(NoVocabulary, match="reads no texts: Dense follows the rows"):
        table.reader.read(["hope"], WORDS, 1000)
    chosen = Import(ImportOptions(), text=TextOptions(pooling="sum")).read(STATIC / "sentence_transformers_dense")
    assert load(store, store.publish("dense", chosen)).table.reads_texts


def test_padding_counts_in_a_text_and_not_among_ids(tmp_path: Path) -> None:
    table = table_of(tmp_path, TextModel(tokenizer(), TextSettings(normalize=False)), padding_id=0)
    assert vectors(table, "hope to") == [mean(0, 1)]
    ids = IdBatch(np.array([0, 1]), Layout((2,)))
    assert table.lookup(table.reader.pooled(ids, table.padding_id)).vectors.tolist() == mean(1)


@pytest.mark.parametrize("pooling", ["sum", "max", "sqrtn", "mean"])
@pytest.mark.parametrize("kind", ["tokenizer.json", "whitespace"])
def test_another_pooling_and_normalisation(tmp_path: Path, pooling: Any, kind: Any) -> None:  # noqa: ANN401
    settings = TextSettings(normalize=True, tokenizer=kind, pooling=pooling)
    table = table_of(tmp_path, TextModel(tokenizer() if kind == "tokenizer.json" else None, settings))
    rows = KERAS_ROWS[[0, 1]].astype(np.float64)
    pooled = rows.max(axis=0) if pooling == "max" else rows.sum(axis=0)
    assert vectors(table, "hope to") == [pytest.approx((pooled / np.sqrt((pooled * pooled).sum())).tolist(), rel=1e-6)]


def test_between_white_space_without_a_tokenizer(tmp_path: Path) -> None:
    table = table_of(tmp_path, None)
    assert vectors(table, " hope\tto\nsee ", "") == [mean(0, 1, 2), [0.0, 0.0]]
    with pytest.raises(OutOfVocabulary) as error:
        vectors(table, "hope", "to zzz")
    assert error.value.errors == [{"index": [1, 1], "token": "zzz"}]


def test_the_rule_of_the_table_is_that_of_its_words(tmp_path: Path) -> None:
    table = table_of(tmp_path, None, on_oov="mask")
    assert vectors(table, "hope zzz to", "zzz") == [mean(0, 1), [0.0, 0.0]]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", json.dumps({"model": {"vocab": {}}}).encode()])
def test_a_tokenizer_that_cannot_be_read_leaves_the_ids_served(tmp_path: Path, content: bytes) -> None:
    table = table_of(tmp_path, TextModel(content, TextSettings(normalize=False)))
    assert not table.reads_texts
    with pytest.raises(NoVocabulary, match="words version 1 reads no texts: its tokenizer"):
        vectors(table, "hope")
    assert table.lookup(table.reader.pooled(IdBatch(np.array([0]), Layout((1,))))).vectors.tolist() == mean(0)


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    reader = TextReader.of(TextModel(tokenizer(), TextSettings(normalize=False)))
    with pytest.raises(NoVocabulary, match=r"pip install 'embedding-table-service\[text\]'"):
        reader.read(["hope"], WORDS, 1000)


def test_leading_dimensions() -> None:
    rows = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 5.0]], dtype=np.float32)
    assert leading(rows, 2).tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    assert normalized(rows).tolist() == [pytest.approx([3 / 13, 4 / 13, 12 / 13]), [0.0, 0.0, 1.0]]
    assert normalized(np.array([[3e38, 3e38]], dtype=np.float32)).tolist() == [pytest.approx([0.5**0.5] * 2)]


# What an import may say


def read(folder: Path, **options: Any) -> TextModel | None:  # noqa: ANN401
    rows = folder / "rows.npy"
    np.save(rows, KERAS_ROWS)
    return Import(ImportOptions(), text=TextOptions(**options)).read(rows).text


def test_an_import_may_name_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer())
    text = read(tmp_path, tokenizer=path, pooling="max", normalize=True)
    assert text == TextModel(tokenizer(), TextSettings(normalize=True, pooling="max"))
    assert read(tmp_path) is None
    assert read(tmp_path, pooling="sum") == TextModel(
        None, TextSettings(normalize=False, tokenizer="whitespace", pooling="sum")
    )


def test_another_tokenizer_brings_its_own_cut_and_nothing_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    made = Tokenizer.from_str(tokenizer().decode())
    made.enable_truncation(3)
    made.save(str(path))
    text = Import(ImportOptions(), text=TextOptions(tokenizer=path)).read(STATIC / "model2vec_float32").text
    assert text is not None
    assert text.settings == TextSettings(normalize=True, max_tokens=3)
    made.enable_truncation(3, direction="left")
    made.save(str(path))
    with pytest.raises(ImportFormatError, match="texts are cut at their beginning"):
        read(tmp_path, tokenizer=path)


def test_a_tokenizer_must_give_rows(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer((*KERAS_TOKENS, "more")))
    with pytest.raises(ImportFormatError, match="its token 'more' has the id 7, there are 7 rows"):
        read(tmp_path, tokenizer=path)
    for content, reason in ((b"{", "not"), (b"{}", "it is empty"), (b'{"model": 1}', "there is no model.vocab")):
        path.write_bytes(content)
        with pytest.raises(ImportFormatError, match=reason):
            read(tmp_path, tokenizer=path)
    with pytest.raises(ImportFormatError, match="there is no such file"):
        read(tmp_path, tokenizer=tmp_path / "nothing.json")


def test_a_static_model_keeps_what_is_not_said_anew() -> None:
    folder = STATIC / "model2vec_mapped"
    before = Import(ImportOptions()).read(folder).text
    text = Import(ImportOptions(), text=TextOptions(pooling="sum")).read(folder).text
    assert before is not None
    assert text is not None
    assert text.settings == before.settings.model_copy(update={"pooling": "sum"})
    assert (text.tokenizer, text.weights is None) == (before.tokenizer, before.weights is None)
    with pytest.raises(InvalidTable, match="its tokens have weights, which have no meaning with pooling 'max'"):
        Import(ImportOptions(), text=TextOptions(pooling="max")).read(folder)
