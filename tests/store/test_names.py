from pathlib import Path

import pytest

from service.errors import InvalidTable, LabelNotFound, TableNotFound
from service.store import TableStore, parse_version
from tests.world import KERAS_ROWS, publish

BAD_TABLES = [
    "",
    ".",
    "..",
    "../words",
    "words/../words",
    "/etc",
    "words/1",
    "words\\1",
    "words\n",
    "words ",
    " words",
    "-words",
    "_words",
    ".words",
    ".staging-0",
    "wörds",
    "words\x00",
    "wo:rds",
    "\u0661",
    "~",
    "a" * 129,
]
GOOD_TABLES = ["a", "A", "0", "a.b", "a..b", "a-b_c.d", "1", "CURRENT", "a" * 128, "labels.json"]
BAD_LABELS = ["", "A", "Stable", "1a", "_a", "-a", "a.b", "a b", "a\n", "a/b", "../a", "ä", "a" * 65]
GOOD_LABELS = ["a", "stable", "a-b_c", "a1", "a" * 64]


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """A store two folders deep, with a table `words` in it and one of the same name above it."""
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    store = TableStore(tmp_path / "inner")
    publish(store, "words", KERAS_ROWS)
    return store


@pytest.mark.parametrize("name", BAD_TABLES, ids=ascii)
def test_a_bad_table_name_is_not_published(store: TableStore, name: str) -> None:
    before = sorted(path for path in store.root.parent.rglob("*"))
    with pytest.raises(InvalidTable, match="table name"):
        publish(store, name, KERAS_ROWS)
    assert sorted(path for path in store.root.parent.rglob("*")) == before


@pytest.mark.parametrize("name", GOOD_TABLES, ids=ascii)
def test_a_good_table_name_is_published(tmp_path: Path, name: str) -> None:
    store = TableStore(tmp_path)
    publish(store, name, KERAS_ROWS)
    assert store.tables() == [name]
    assert store.active_version(name) == 1


@pytest.mark.parametrize("name", BAD_TABLES, ids=ascii)
@pytest.mark.parametrize("verb", ["versions", "active_version", "labels", "history", "activate", "rollback", "prune"])
def test_no_verb_leaves_the_store_by_a_name(store: TableStore, verb: str, name: str) -> None:
    arguments = {"activate": (1,), "prune": (1,)}.get(verb, ())
    with pytest.raises(TableNotFound):
        getattr(store, verb)(name, *arguments)


@pytest.mark.parametrize("label", BAD_LABELS, ids=ascii)
def test_a_bad_label_is_refused(store: TableStore, label: str) -> None:
    with pytest.raises(InvalidTable, match="label name"):
        store.set_label("words", label, 1)
    with pytest.raises(LabelNotFound):
        store.labelled("words", label)
    assert store.labels("words") == {}


@pytest.mark.parametrize("label", GOOD_LABELS, ids=ascii)
def test_a_good_label_is_taken(store: TableStore, label: str) -> None:
    store.set_label("words", label, 1)
    assert store.labels("words") == {label: 1}


NOT_VERSIONS = ["", "0", "01", "-1", "+1", "1.0", "1e3", " 1", "1 ", "1\n", "one", "0x1", "1_0", "\u0661", "9" * 19]


@pytest.mark.parametrize("text", NOT_VERSIONS, ids=ascii)
def test_a_version_has_one_form(text: str) -> None:
    assert parse_version(text) is None


@pytest.mark.parametrize("text", ["1", "10", "9" * 18])
def test_the_form_of_a_version_is_decimal(text: str) -> None:
    assert parse_version(text) == int(text)


@pytest.mark.parametrize("name", [*NOT_VERSIONS[1:], ".staging-1", "1.old"], ids=ascii)
def test_folders_that_are_not_versions_are_passed_over(store: TableStore, name: str) -> None:
    (store.root / "words" / name).mkdir()
    assert store.versions("words") == [1]
