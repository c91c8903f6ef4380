from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.errors import Conflict, DamagedVersion, TableNotFound, VersionNotFound
from service.history import Activation, Deletion
from service.store import Switch, TableStore
from tests.world import KERAS_ROWS, publish


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """The table `words` with the inactive versions 1, 2, 3."""
    store = TableStore(tmp_path)
    for _ in range(3):
        publish(store, "words", KERAS_ROWS, activate=False)
    return store


def test_activate_says_what_it_did(store: TableStore) -> None:
    assert store.activate("words", 2) == Switch("words", None, 2)
    assert store.activate("words", 1) == Switch("words", 2, 1)
    assert store.active_version("words") == 1


def test_current_is_one_line(store: TableStore) -> None:
    store.activate("words", 3)
    assert (store.root / "words" / "CURRENT").read_bytes() == b"3\n"


def test_history_names_every_activation_in_order(store: TableStore) -> None:
    begun = datetime.now(UTC)
    store.activate("words", 1, by="ann")
    store.activate("words", 3, by="bob")
    store.rollback("words", by="eve")
    history = store.history("words")
    assert [(e.version, e.previous, e.by) for e in history if isinstance(e, Activation)] == [
        (1, None, "ann"),
        (3, 1, "bob"),
        (1, 3, "eve"),
    ]
    times = [begun, *(event.time for event in history), datetime.now(UTC)]
    assert times == sorted(times)


def test_activating_the_active_version_changes_nothing(store: TableStore) -> None:
    store.activate("words", 1)
    store.activate("words", 2)
    before = store.history("words")
    assert store.activate("words", 2) == Switch("words", 2, 2)
    assert store.history("words") == before
    assert store.rollback("words").active_version == 1


def test_rollback_goes_back_and_twice_swaps_back(store: TableStore) -> None:
    store.activate("words", 1)
    store.activate("words", 3)
    assert store.rollback("words") == Switch("words", 3, 1)
    assert store.rollback("words") == Switch("words", 1, 3)
    assert store.rollback("words") == Switch("words", 3, 1)


@pytest.mark.parametrize("activations", [[], [2], [2, 2]], ids=["none", "one", "one twice"])
def test_rollback_without_an_earlier_activation_is_a_conflict(store: TableStore, activations: list[int]) -> None:
    for version in activations:
        store.activate("words", version)
    with pytest.raises(Conflict, match="no earlier activation"):
        store.rollback("words")
    assert store.active_version("words") == (activations[-1] if activations else None)


def test_rollback_to_a_deleted_version_is_a_conflict_that_names_it(store: TableStore) -> None:
    store.activate("words", 1)
    store.activate("words", 2)
    store.delete_version("words", 1)
    with pytest.raises(Conflict, match="version 1"):
        store.rollback("words")
    assert store.active_version("words") == 2


def test_rollback_to_a_damaged_version_is_refused(store: TableStore) -> None:
    store.activate("words", 1)
    store.activate("words", 2)
    vectors = store.root / "words" / "1" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(DamagedVersion, match=r"vectors\.npy"):
        store.rollback("words")
    assert store.active_version("words") == 2


@pytest.mark.parametrize("version", [4, 0, -1, 10**30])
def test_a_version_that_is_not_there_is_not_activated(store: TableStore, version: int) -> None:
    store.activate("words", 1)
    with pytest.raises(VersionNotFound):
        store.activate("words", version)
    assert store.active_version("words") == 1


def test_deleting_is_written_down(store: TableStore) -> None:
    store.delete_version("words", 2, by="ann")
    assert store.versions("words") == [1, 3]
    (event,) = store.history("words")
    assert isinstance(event, Deletion)
    assert (event.deleted, event.by) == (2, "ann")


def test_the_active_version_is_not_deleted(store: TableStore) -> None:
    store.activate("words", 2)
    with pytest.raises(Conflict, match="active"):
        store.delete_version("words", 2)
    assert store.versions("words") == [1, 2, 3]


def test_a_deleted_version_is_gone(store: TableStore) -> None:
    store.delete_version("words", 2)
    with pytest.raises(VersionNotFound):
        store.delete_version("words", 2)
    with pytest.raises(VersionNotFound):
        store.activate("words", 2)


@pytest.mark.parametrize(
    "by", ["ann\nbob", "a\rb", "a\u2028b", "a\u2029b", "a\x85b", "a\x0bb\x0cc", 'a"b\\', "日本 🙂", ""], ids=ascii
)
def test_whoever_activates_is_remembered_as_written(store: TableStore, by: str) -> None:
    store.activate("words", 1, by=by)
    store.delete_version("words", 3, by=by)
    assert [event.by for event in TableStore(store.root).history("words")] == [by, by]


def test_a_line_of_history_that_was_never_committed_is_not_shown(store: TableStore) -> None:
    store.activate("words", 1)
    history = store.root / "words" / "history.jsonl"
    killed_between = history.read_text() + '{"version":2,"previous":1,"time":"2026-01-01T00:00:00Z","by":"killed"}\n'
    history.write_text(killed_between)
    assert [event.by for event in store.history("words")] == ["activate"]
    store.activate("words", 3)
    assert [e.version for e in store.history("words") if isinstance(e, Activation)] == [1, 3]
    assert store.rollback("words").active_version == 1


DAMAGED_CURRENT = ["", "\n", "0\n", "01\n", "-1\n", "1\n2\n", " 1\n", "1 ", "one\n", "1.0\n", "../1\n", "\u0661\n"]


@pytest.mark.parametrize("text", DAMAGED_CURRENT, ids=ascii)
def test_a_damaged_current_is_a_conflict_that_names_it(store: TableStore, text: str) -> None:
    (store.root / "words" / "CURRENT").write_text(text, encoding="utf-8")
    with pytest.raises(Conflict, match="CURRENT"):
        store.active_version("words")


def test_a_current_that_is_not_utf_8_is_a_conflict(store: TableStore) -> None:
    (store.root / "words" / "CURRENT").write_bytes(b"\xff1\n")
    with pytest.raises(Conflict, match="CURRENT"):
        store.active_version("words")


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "",
        "{}",
        "[]",
        '{"version":0,"previous":null,"time":"2026-01-01T00:00:00Z","by":""}',
        '{"version":"1","previous":null,"time":"2026-01-01T00:00:00Z","by":""}',
        '{"version":1,"time":"2026-01-01T00:00:00Z","by":""}',
        '{"version":1,"previous":null,"time":"yesterday","by":""}',
        '{"deleted":1,"previous":1,"time":"2026-01-01T00:00:00Z","by":""}',
    ],
)
def test_a_damaged_history_is_a_conflict_that_names_the_line(store: TableStore, line: str) -> None:
    store.activate("words", 1)
    history = store.root / "words" / "history.jsonl"
    history.write_text(history.read_text() + line + "\n" + history.read_text())
    with pytest.raises(Conflict, match=r"history\.jsonl.*line 2"):
        store.history("words")


READERS = ["active_version", "labels", "history", "versions"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("table", ["nothing", "README.md", "empty"])
def test_a_table_that_is_not_there_is_named_by_every_reader(store: TableStore, reader: str, table: str) -> None:
    (store.root / "README.md").write_text("not a table")
    (store.root / "empty").mkdir()
    with pytest.raises(TableNotFound, match=table):
        getattr(store, reader)(table)


@pytest.mark.parametrize("verb", ["rollback", "activate", "prune"])
def test_a_table_that_is_not_there_is_named_by_every_verb(store: TableStore, verb: str) -> None:
    argument = {"rollback": (), "activate": (1,), "prune": (1,)}[verb]
    with pytest.raises(TableNotFound, match="nothing"):
        getattr(store, verb)("nothing", *argument)
