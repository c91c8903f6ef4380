import json
from pathlib import Path

import pytest

from service.errors import Conflict, DamagedVersion, LabelNotFound, TableNotFound, VersionNotFound
from service.store import TableStore
from service.types import TableVersion
from tests.world import KERAS_ROWS, publish


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """The table `words` with the versions 1 and 2, of which 2 is active."""
    store = TableStore(tmp_path)
    for _ in range(2):
        publish(store, "words", KERAS_ROWS)
    return store


def test_a_new_table_has_no_labels(store: TableStore) -> None:
    assert store.labels("words") == {}


def test_a_label_names_its_version(store: TableStore) -> None:
    store.set_label("words", "stable", 1)
    store.set_label("words", "canary", 2)
    assert store.labels("words") == {"stable": 1, "canary": 2}
    assert store.labelled("words", "stable") == TableVersion("words", 1)


def test_a_label_moves(store: TableStore) -> None:
    store.set_label("words", "stable", 1)
    store.set_label("words", "stable", 2)
    assert store.labels("words") == {"stable": 2}


def test_two_labels_may_name_one_version(store: TableStore) -> None:
    store.set_label("words", "a", 1)
    store.set_label("words", "b", 1)
    store.delete_label("words", "a")
    assert store.labels("words") == {"b": 1}


def test_the_file_is_sorted_json(store: TableStore) -> None:
    for label, version in [("z", 1), ("a", 2)]:
        store.set_label("words", label, version)
    text = (store.root / "words" / "labels.json").read_text()
    assert text == '{\n  "a": 2,\n  "z": 1\n}\n'


def test_a_label_that_is_not_there_is_named(store: TableStore) -> None:
    with pytest.raises(LabelNotFound, match="stable"):
        store.labelled("words", "stable")
    with pytest.raises(LabelNotFound, match="stable"):
        store.delete_label("words", "stable")


def test_a_label_of_a_table_that_is_not_there_names_the_table(store: TableStore) -> None:
    with pytest.raises(TableNotFound, match="nothing"):
        store.set_label("nothing", "stable", 1)
    with pytest.raises(TableNotFound, match="nothing"):
        store.delete_label("nothing", "stable")
    with pytest.raises(TableNotFound, match="nothing"):
        store.labelled("nothing", "stable")


def test_a_version_that_is_not_there_is_not_labelled(store: TableStore) -> None:
    with pytest.raises(VersionNotFound):
        store.set_label("words", "stable", 3)
    assert store.labels("words") == {}


def test_a_damaged_version_is_not_labelled(store: TableStore) -> None:
    (store.root / "words" / "1" / "vectors.npy").unlink()
    with pytest.raises(DamagedVersion, match=r"vectors\.npy is missing"):
        store.set_label("words", "stable", 1)
    assert store.labels("words") == {}


def test_a_labelled_version_is_not_deleted_until_the_label_is(store: TableStore) -> None:
    store.set_label("words", "stable", 1)
    with pytest.raises(Conflict, match="labelled stable"):
        store.delete_version("words", 1)
    store.delete_label("words", "stable")
    store.delete_version("words", 1)
    assert store.versions("words") == [2]


def test_labels_leave_the_active_version_and_the_history_alone(store: TableStore) -> None:
    before = store.history("words")
    store.set_label("words", "stable", 1)
    store.delete_label("words", "stable")
    assert store.active_version("words") == 2
    assert store.history("words") == before


DAMAGED_LABELS: dict[str, bytes] = {
    "empty": b"",
    "not json": b"stable: 1",
    "a list": b"[]",
    "null": b"null",
    "cut off": b'{"a": 1',
    "a text": b'{"a": "1"}',
    "zero": b'{"a": 0}',
    "a fraction": b'{"a": 1.5}',
    "a boolean": b'{"a": true}',
    "not utf-8": b'{"\xff": 1}',
}


@pytest.mark.parametrize("content", DAMAGED_LABELS.values(), ids=DAMAGED_LABELS.keys())
def test_damaged_labels_are_a_conflict_that_names_the_file(store: TableStore, content: bytes) -> None:
    (store.root / "words" / "labels.json").write_bytes(content)
    with pytest.raises(Conflict, match=r"labels\.json"):
        store.labels("words")


def test_labels_written_by_other_programs_are_read(store: TableStore) -> None:
    (store.root / "words" / "labels.json").write_text(json.dumps({"stable": 1}))
    assert store.labels("words") == {"stable": 1}
