import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from service import npyfile
from service.history import Activation, Deletion, Unloading
from service.store import TableStore
from service.types import TableVersion
from tests.store.crash_points import NEW_ROWS, OTHER, ROWS, TABLE, TOKENS, VERBS
from tests.world import publish

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader sees of a table."""

    versions: tuple[int, ...]
    active: int | None
    labels: tuple[tuple[str, int], ...]


def seen(root: Path) -> Seen:
    store = TableStore(root)
    if TABLE not in store.tables():
        return Seen((), None, ())
    labels = tuple(sorted(store.labels(TABLE).items()))
    return Seen(tuple(store.versions(TABLE)), store.active_version(TABLE), labels)


def empty_store(root: Path) -> None:
    root.mkdir()


def store_with_three_versions(root: Path) -> None:
    """Version 2 is active, 1 was before and is labelled, 3 is neither."""
    store = TableStore(root)
    for version in (1, 2, 3):
        publish(store, TABLE, ROWS + version, TOKENS, activate=version < 3)
    store.set_label(TABLE, "stable", 1)


def store_with_two_tables(root: Path) -> None:
    """Both with versions as `store_with_three_versions` has them."""
    store_with_three_versions(root)
    for version in (1, 2, 3):
        publish(TableStore(root), OTHER, ROWS + version, TOKENS, activate=version < 3)


def store_with_six_versions(root: Path) -> None:
    """Of six versions, 3, 4 and 5 can be pruned."""
    store_with_three_versions(root)
    for version in (4, 5, 6):
        publish(TableStore(root), TABLE, ROWS + version, TOKENS, activate=False)


OLD = Seen((1, 2, 3), 2, (("stable", 1),))
SIX = Seen((1, 2, 3, 4, 5, 6), 2, (("stable", 1),))

# The verb, the store it runs in, and every state that its death may leave, in the order of their coming about.
CASES = {
    "publish into an empty store": ("publish", empty_store, [Seen((), None, ()), Seen((1,), None, ())]),
    "publish and activate in an empty store": (
        "publish_and_activate",
        empty_store,
        [Seen((), None, ()), Seen((1,), None, ()), Seen((1,), 1, ())],
    ),
    "publish": ("publish", store_with_three_versions, [OLD, Seen((1, 2, 3, 4), 2, OLD.labels)]),
    "publish and activate": (
        "publish_and_activate",
        store_with_three_versions,
        [OLD, Seen((1, 2, 3, 4), 2, OLD.labels), Seen((1, 2, 3, 4), 4, OLD.labels)],
    ),
    "activate": ("activate", store_with_three_versions, [OLD, Seen(OLD.versions, 3, OLD.labels)]),
    "rollback": ("rollback", store_with_three_versions, [OLD, Seen(OLD.versions, 1, OLD.labels)]),
    "unload": ("unload", store_with_three_versions, [OLD, Seen(OLD.versions, None, OLD.labels)]),
    "switch two tables": ("switch", store_with_two_tables, [OLD, Seen(OLD.versions, 3, OLD.labels)]),
    "delete a version": ("delete_version", store_with_three_versions, [OLD, Seen((1, 2), 2, OLD.labels)]),
    "set a label": ("set_label", store_with_three_versions, [OLD, Seen((1, 2, 3), 2, (("canary", 3), ("stable", 1)))]),
    "delete a label": ("delete_label", store_with_three_versions, [OLD, Seen((1, 2, 3), 2, ())]),
    "prune": (
        "prune",
        store_with_six_versions,
        [
            SIX,
            Seen((1, 2, 4, 5, 6), 2, SIX.labels),
            Seen((1, 2, 5, 6), 2, SIX.labels),
            Seen((1, 2, 6), 2, SIX.labels),
        ],
    ),
}

# Fewer steps than these would mean that the hook is blind: each verb writes, syncs and renames at least so often.
LEAST_STEPS = {"publish": 12, "publish_and_activate": 20, "switch": 30, "set_label": 6, "delete_label": 5, "prune": 30}


def rows_of(version: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The rows that a version of these stores has."""
    return ROWS + np.float32(version)


def check_versions(root: Path, before: Seen) -> None:
    """Every listed version verifies, and holds the rows it was given."""
    store = TableStore(root)
    for version in seen(root).versions:
        chosen = TableVersion(TABLE, version)
        store.verify(chosen)
        expected = rows_of(version) if version in before.versions else NEW_ROWS
        assert np.array_equal(npyfile.map_rows(store.version(chosen).vectors)[1], expected)
        assert store.version(chosen).tokens() == TOKENS


def check_history(root: Path) -> None:
    """The history is a chain of activations that ends in the active version; what is missing was written down."""
    now = seen(root)
    if not now.versions:
        return
    history = TableStore(root).history(TABLE)
    changes = [event for event in history if isinstance(event, Activation | Unloading)]
    after = [event.version if isinstance(event, Activation) else None for event in changes]
    assert (after[-1] if after else None) == now.active
    before = [event.previous if isinstance(event, Activation) else event.unloaded for event in changes]
    assert before[1:] == after[:-1]
    deleted = {event.deleted for event in history if isinstance(event, Deletion)}
    assert set(range(1, max(now.versions) + 1)) - set(now.versions) <= deleted


def check_life_goes_on(root: Path, before: Seen) -> None:
    """The next publish gets a number never given before, and prune leaves nothing of the dead."""
    store, now = TableStore(root), seen(root)
    publish(store, TABLE, ROWS, TOKENS)
    new = store.active_version(TABLE)
    assert new is not None
    assert new > max((*now.versions, *before.versions), default=0)
    store.activate(TABLE, new)
    for table in store.tables():
        store.prune(table, keep=len(store.versions(table)))
    assert seen(root).versions == (*now.versions, new)
    assert not list(root.glob("**/.staging-*"))
    known = {"CURRENT", "history.jsonl", "labels.json", *map(str, (*now.versions, new))}
    assert {path.name for path in (root / TABLE).iterdir()} <= known


@pytest.mark.parametrize("case", CASES)
def test_a_verb_that_is_killed_at_any_step_leaves_a_whole_store(tmp_path: Path, case: str) -> None:
    verb, make, states = CASES[case]
    make(tmp_path / "template")
    before = seen(tmp_path / "template")
    assert before == states[0]
    (tmp_path / "work").mkdir()
    steps = run_to_death(verb, tmp_path / "template", tmp_path / "work")
    assert steps >= LEAST_STEPS.get(verb, 10)
    reached = [states.index(seen(tmp_path / "work" / str(step))) for step in range(steps + 1)]
    assert reached == sorted(reached), "a later death left an earlier state"
    assert set(reached) == set(range(len(states))), "a state that must come about did not"
    assert reached[-1] == len(states) - 1
    for step in range(steps + 1):
        root = tmp_path / "work" / str(step)
        check_versions(root, before)
        check_history(root)
        check_life_goes_on(root, before)


def run_to_death(verb: str, template: Path, work: Path) -> int:
    """Has the verb killed at each of its steps, a store each; gives the number of steps."""
    command = [sys.executable, "-m", "tests.store.crash_points", verb, str(template), str(work)]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert isinstance(steps, int)
    return steps


def test_every_verb_of_the_store_that_writes_is_killed() -> None:
    assert {verb for verb, _, _ in CASES.values()} == VERBS.keys()
