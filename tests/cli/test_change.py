from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.store import TableStore
from service.types import TableVersion
from tests.cli.command import command, default_store, done
from tests.world import KERAS_ROWS, publish


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` with the versions 1 to 4, of which 2 was active before 3."""
    opened = default_store(tmp_path)
    for _ in range(4):
        publish(opened, "words", KERAS_ROWS, activate=False)
    opened.activate("words", 2)
    opened.activate("words", 3)
    return opened


def test_activate_makes_a_version_the_one_in_force(store: TableStore, tmp_path: Path) -> None:
    said = done(tmp_path, "activate", "words", 4, "--json").json()
    assert said == {"table": "words", "previous_version": 3, "active_version": 4}
    assert store.active_version("words") == 4
    assert store.history("words")[-1].by == "activate by tester"
    assert done(tmp_path, "activate", "words", 1).out == "words: version 1 is active (before: 4)\n"


def test_activating_the_active_version_changes_nothing(store: TableStore, tmp_path: Path) -> None:
    history = store.history("words")
    assert done(tmp_path, "activate", "words", 3).out == "words: version 3 was active already\n"
    assert store.history("words") == history


def test_rollback_goes_back_and_twice_swaps_back(store: TableStore, tmp_path: Path) -> None:
    said = done(tmp_path, "rollback", "words", "--json").json()
    assert said == {"table": "words", "previous_version": 3, "active_version": 2}
    assert store.active_version("words") == 2
    assert done(tmp_path, "rollback", "words").out == "words: version 3 is active (before: 2)\n"
    assert store.history("words")[-1].by == "rollback by tester"


def test_a_label_is_given_moved_and_forgotten(store: TableStore, tmp_path: Path) -> None:
    said = done(tmp_path, "label", "words", "stable", 1, "--json").json()
    assert said == {"table": "words", "label": "stable", "version": 1}
    assert store.labels("words") == {"stable": 1}
    assert done(tmp_path, "label", "words", "stable", 4).out == "words: stable names version 4\n"
    assert store.labels("words") == {"stable": 4}
    said = done(tmp_path, "label", "words", "stable", "--delete", "--json").json()
    assert said == {"table": "words", "label": "stable", "version": None}
    assert store.labels("words") == {}


def test_prune_keeps_the_newest_and_what_is_in_use(store: TableStore, tmp_path: Path) -> None:
    for _ in range(2):
        publish(store, "words", KERAS_ROWS, activate=False)
    store.set_label("words", "stable", 1)
    (store.root / "words" / ".staging-killed").mkdir()
    said = done(tmp_path, "prune", "words", "--keep", 1, "--json").json()
    assert said == {"removed": {"words": {"versions": [4, 5], "staging": [".staging-killed"]}}}
    assert store.versions("words") == [1, 2, 3, 6]
    assert done(tmp_path, "prune", "words", "--keep", 0).out == "words: versions removed: 6\n"


def test_prune_without_a_table_prunes_all_and_keeps_two(store: TableStore, tmp_path: Path) -> None:
    for _ in range(4):
        publish(store, "other", KERAS_ROWS)
    said = done(tmp_path, "prune", "--json").json()
    assert {name: removed["versions"] for name, removed in said["removed"].items()} == {"other": [1, 2], "words": [1]}
    assert store.versions("other") == [3, 4]
    assert store.versions("words") == [2, 3, 4]


def test_prune_leaves_what_is_younger_than_it_is_told(store: TableStore, tmp_path: Path) -> None:
    manifest = store.root / "words" / "1" / "manifest.json"
    young = store.version(TableVersion("words", 1)).manifest().created
    old = datetime.now(UTC) - timedelta(days=2)
    said = done(tmp_path, "prune", "words", "--keep", 0, "--older-than-days", 1, "--json").json()
    assert said["removed"]["words"]["versions"] == []
    manifest.write_text(manifest.read_text().replace(young.isoformat()[:10], old.isoformat()[:10]))
    said = done(tmp_path, "prune", "words", "--keep", 0, "--older-than-days", 0.5, "--json").json()
    assert said["removed"]["words"]["versions"] == [1]


def test_a_version_that_was_pruned_leaves_nothing_to_roll_back_to(tmp_path: Path) -> None:
    store = default_store(tmp_path)
    publish(store, "words", KERAS_ROWS)
    done(tmp_path, "prune", "--keep", 0)
    assert store.versions("words") == [1]
    assert command(tmp_path, "rollback", "words").code == 4
