import gc
import weakref
from pathlib import Path

import pytest

from service.errors import NotReady, TableNotFound
from service.loader import load
from service.registry import Entry, LoadedTable, TableRegistry, TableState, failed
from service.store import TableStore
from tests.world import KERAS_ROWS, publish


def loaded(root: Path, name: str = "words") -> LoadedTable:
    """A table of a store, in memory."""
    store = TableStore(root)
    return load(store, publish(store, name, KERAS_ROWS))


def ready(table: LoadedTable) -> Entry:
    identity = table.table.identity
    return Entry(identity.name, identity.version, TableState.READY, table)


def test_a_new_registry_is_empty_and_not_settled() -> None:
    registry = TableRegistry()
    assert dict(registry.entries) == {}
    assert not registry.settled
    assert registry.missing() == []


def test_a_table_that_is_not_known_is_named() -> None:
    with pytest.raises(TableNotFound, match="'words'"):
        TableRegistry().get("words")
    with pytest.raises(TableNotFound, match="'words'"):
        TableRegistry().entry("words")


def test_a_ready_table_is_given(tmp_path: Path) -> None:
    registry, table = TableRegistry(), loaded(tmp_path)
    registry.swap(ready(table))
    assert registry.get("words") is table.table
    assert registry.missing() == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Entry("words", None, TableState.AVAILABLE, reason="no version is active"), "no version is active"),
        (Entry("words", 1, TableState.LOADING), "LOADING"),
        (Entry("words", 1, TableState.UNAVAILABLE, reason="the disk is gone"), "the disk is gone"),
    ],
    ids=["no active version", "loading", "unavailable"],
)
def test_a_table_that_is_not_loaded_is_not_ready_and_says_why(entry: Entry, reason: str) -> None:
    registry = TableRegistry()
    registry.swap(entry)
    with pytest.raises(NotReady, match=reason):
        registry.get("words")


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (TableState.AVAILABLE, False),
        (TableState.LOADING, True),
        (TableState.READY, False),
        (TableState.UNAVAILABLE, True),
    ],
)
def test_readiness_waits_for_tables_that_should_be_served_and_are_not(state: TableState, waits: bool) -> None:
    registry = TableRegistry()
    registry.swap(Entry("words", 1, state))
    assert [entry.name for entry in registry.missing()] == (["words"] if waits else [])


def test_a_snapshot_that_was_taken_does_not_change(tmp_path: Path) -> None:
    registry = TableRegistry()
    registry.swap(ready(loaded(tmp_path)))
    taken = registry.entries
    registry.swap(ready(loaded(tmp_path)))
    assert taken["words"].active_version == 1
    assert registry.entries["words"].active_version == 2
    with pytest.raises(TypeError):
        taken["words"] = registry.entries["words"]  # type: ignore[index]


def test_several_tables_are_swapped_at_once(tmp_path: Path) -> None:
    registry = TableRegistry()
    registry.swap(ready(loaded(tmp_path, "a")), ready(loaded(tmp_path, "b")))
    before = registry.entries
    registry.swap(ready(loaded(tmp_path, "a")), ready(loaded(tmp_path, "b")))
    assert [entry.active_version for entry in before.values()] == [1, 1]
    assert [entry.active_version for entry in registry.entries.values()] == [2, 2]


def test_a_swap_leaves_other_tables_alone(tmp_path: Path) -> None:
    registry = TableRegistry()
    registry.swap(ready(loaded(tmp_path, "a")))
    entry = registry.entry("a")
    registry.swap(ready(loaded(tmp_path, "b")))
    assert registry.entry("a") is entry


def test_a_dropped_table_is_not_known(tmp_path: Path) -> None:
    registry = TableRegistry()
    registry.swap(ready(loaded(tmp_path, "a")), ready(loaded(tmp_path, "b")))
    registry.drop("a")
    registry.drop("never there")
    assert set(registry.entries) == {"b"}


def test_a_replaced_table_dies_with_its_last_reader(tmp_path: Path) -> None:
    registry = TableRegistry()
    registry.swap(ready(loaded(tmp_path)))
    reader = registry.entry("words")
    assert reader.loaded is not None
    old = weakref.ref(reader.loaded.table)
    registry.swap(ready(loaded(tmp_path)))
    assert old() is not None
    del reader
    gc.collect()
    assert old() is None


def test_a_failure_keeps_what_was_served(tmp_path: Path) -> None:
    entry = ready(loaded(tmp_path))
    after = failed(entry, 2, "damaged")
    assert after == Entry("words", 2, TableState.READY, entry.loaded, "damaged")


def test_a_failure_of_the_first_version_is_unavailable() -> None:
    after = failed(Entry("words", None, TableState.AVAILABLE), 1, "damaged")
    assert after == Entry("words", 1, TableState.UNAVAILABLE, None, "damaged")
