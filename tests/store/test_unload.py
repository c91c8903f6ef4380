"""Tables that were unloaded: no version is in force, by decision, until the next activation."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.errors import Conflict, NotReady, TableNotFound
from service.history import Activation, Event, Unloading, committed
from service.registry import TableRegistry, TableState
from service.store import UNLOADED, TableStore
from service.types import TableVersion
from service.watcher import StoreWatcher
from tests.world import KERAS_ROWS, publish

TABLE = "words"
NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """Version 2 of `words` is active, 1 was before."""
    store = TableStore(tmp_path)
    for _ in range(2):
        publish(store, TABLE, KERAS_ROWS)
    return store


def test_no_version_is_active_by_decision(store: TableStore) -> None:
    assert store.unload(TABLE, "me") == 2
    assert store.active_version(TABLE) is None
    assert store.active_versions([TABLE]) == {TABLE: UNLOADED}
    assert (store.root / TABLE / "CURRENT").read_text() == "none\n"
    last = store.history(TABLE)[-1]
    assert isinstance(last, Unloading)
    assert (last.unloaded, last.by) == (2, "me")


def test_there_must_be_something_to_unload(store: TableStore) -> None:
    store.unload(TABLE)
    before = store.history(TABLE)
    with pytest.raises(Conflict, match="has no active version"):
        store.unload(TABLE)
    with pytest.raises(TableNotFound):
        store.unload("nothing")
    assert store.history(TABLE) == before


def test_what_was_unloaded_and_loaded_again_goes_back_to_what_was_before(store: TableStore) -> None:
    store.unload(TABLE)
    switch = store.activate(TABLE, 2)
    assert (switch.previous_version, switch.active_version) == (None, 2)
    assert [store.rollback(TABLE).active_version for _ in range(3)] == [1, 2, 1]


def test_a_rollback_of_an_unloaded_table_activates_what_was_unloaded(store: TableStore) -> None:
    store.unload(TABLE)
    assert [store.rollback(TABLE).active_version for _ in range(3)] == [2, 1, 2]


def test_a_table_of_one_version_has_only_that_to_go_back_to(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, TABLE, KERAS_ROWS)
    store.unload(TABLE)
    assert store.rollback(TABLE).active_version == 1
    with pytest.raises(Conflict, match="no earlier activation"):
        store.rollback(TABLE)


def test_pruning_keeps_what_was_unloaded(store: TableStore) -> None:
    store.unload(TABLE)
    for _ in range(2):
        publish(store, TABLE, KERAS_ROWS, activate=False)
    assert [version.version for version in store.prune(TABLE, keep=1).versions] == [1, 3]
    assert store.rollback(TABLE).active_version == 2


def test_every_version_of_an_unloaded_table_may_be_deleted_and_no_number_comes_again(store: TableStore) -> None:
    store.unload(TABLE)
    for version in (1, 2):
        store.delete_version(TABLE, version)
    assert publish(store, TABLE, KERAS_ROWS) == TableVersion(TABLE, 3)


def test_a_switch_of_several_tables_takes_an_unloaded_one_back(store: TableStore) -> None:
    publish(store, "item", KERAS_ROWS)
    store.unload(TABLE)
    store.switch({TABLE: 1, "item": 1}, "both")
    assert store.active_versions([TABLE, "item"]) == {TABLE: 1, "item": 1}


def event(text: str) -> Event:
    """`+2` activates version 2, `-2` unloads it."""
    number = int(text[1:])
    if text[0] == "+":
        return Activation(version=number, previous=None, time=NOW, by="test")
    return Unloading(unloaded=number, time=NOW, by="test")


@pytest.mark.parametrize(
    ("written", "active", "in_force"),
    [
        ("+1 -1", None, "+1 -1"),
        ("+1 -1", 1, "+1"),
        ("+1 -1 +2", 2, "+1 -1 +2"),
        ("+1 -1 +2", None, "+1 -1"),
        ("+1 +2 -2", 2, "+1 +2"),
    ],
)
def test_what_never_came_into_force_is_left_out(written: str, active: int | None, in_force: str) -> None:
    events = list(map(event, written.split()))
    assert committed(events, active) == list(map(event, in_force.split()))


def test_a_follower_lets_go_of_what_was_unloaded_and_keeps_what_only_lost_its_file(store: TableStore) -> None:
    registry = TableRegistry()
    watcher = StoreWatcher(store, registry)
    watcher.refresh()
    (store.root / TABLE / "CURRENT").unlink()
    watcher.refresh()
    assert registry.get(TABLE).identity.version == 2
    store.activate(TABLE, 1)
    store.unload(TABLE)
    watcher.refresh()
    assert registry.entry(TABLE).state is TableState.AVAILABLE
    with pytest.raises(NotReady, match="it was unloaded"):
        registry.get(TABLE)
    store.activate(TABLE, 2)
    watcher.refresh()
    assert registry.get(TABLE).identity.version == 2
