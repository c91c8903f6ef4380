import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from load_tests.running import until
from service import durable
from service.errors import Conflict, InsufficientStorage, ServiceError, TableNotFound, VersionNotFound
from service.history import Activation
from service.store import Switch, TableStore
from service.tablefolder import TableFolder
from service.types import TableVersion
from tests.store.crash_points import OTHER, ROWS, TABLE
from tests.store.test_crash import run_to_death, store_with_two_tables
from tests.test_durable import contents, fill, small_disk
from tests.world import KERAS_ROWS, publish

REPOSITORY = Path(__file__).parents[2]
THIRD = "third"
PAIR = (TABLE, OTHER)


def store_with(root: Path, tables: Sequence[str], versions: int = 3) -> TableStore:
    """Tables of so many versions, of which the first is active."""
    store = TableStore(root)
    for table in tables:
        for version in range(1, versions + 1):
            publish(store, table, KERAS_ROWS, activate=version == 1)
    return store


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """The tables `words`, `users` and `third` with the versions 1, which is active, 2 and 3."""
    return store_with(tmp_path / "store", (*PAIR, THIRD))


def activations(store: TableStore, table: str) -> list[tuple[int, int | None, str]]:
    """Version, previous version and author of each activation."""
    return [(e.version, e.previous, e.by) for e in store.history(table) if isinstance(e, Activation)]


def check_history(store: TableStore, table: str) -> None:
    """The activations are a chain that ends in the active version."""
    chain = activations(store, table)
    assert chain[-1][0] == store.active_version(table)
    assert all(later[1] == earlier[0] for earlier, later in pairwise(chain))


def switch_file(store: TableStore) -> Path:
    return store.root / ".switch.json"


def begin_and_die(store: TableStore, tables: Mapping[str, int]) -> None:
    """Leaves what a process that died right after its commit does, as far as `.switch.json` goes."""
    switch_file(store).write_text(json.dumps({"tables": tables}))


# What a switch does


@pytest.mark.parametrize(
    "targets",
    [{}, {TABLE: 2}, {TABLE: 2, OTHER: 3}, {OTHER: 3, TABLE: 2}, {TABLE: 2, OTHER: 3, THIRD: 2}],
    ids=["none", "one", "two", "two in another order", "three"],
)
def test_a_switch_puts_all_targets_in_force_and_says_so(store: TableStore, targets: dict[str, int]) -> None:
    assert store.switch(targets, "ann") == [Switch(table, 1, version) for table, version in targets.items()]
    expected = {TABLE: 1, OTHER: 1, THIRD: 1} | targets
    assert store.active_versions([*expected]) == expected
    assert {table: store.active_version(table) for table in expected} == expected
    for table, version in expected.items():
        assert (store.root / table / "CURRENT").read_text() == f"{version}\n"
        assert activations(store, table)[1:] == ([(version, 1, "ann")] if table in targets else [])
    assert not switch_file(store).exists()
    assert not list(store.root.rglob(".staging-*"))


def test_a_first_activation_may_be_one_of_a_switch(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    for table in PAIR:
        publish(store, table, KERAS_ROWS, activate=False)
    assert store.active_versions(PAIR) == {TABLE: None, OTHER: None}
    assert store.switch({TABLE: 1, OTHER: 1}, "ann") == [Switch(TABLE, None, 1), Switch(OTHER, None, 1)]
    assert store.active_versions(PAIR) == {TABLE: 1, OTHER: 1}


@pytest.mark.parametrize(
    ("targets", "changed"),
    [
        ({TABLE: 1, OTHER: 1}, []),
        ({TABLE: 1, OTHER: 2}, [OTHER]),
        ({TABLE: 2, OTHER: 1, THIRD: 3}, [TABLE, THIRD]),
    ],
    ids=["all", "one of two", "one of three"],
)
def test_what_is_active_already_is_no_activation(
    store: TableStore, targets: dict[str, int], changed: list[str]
) -> None:
    assert store.switch(targets, "ann") == [Switch(table, 1, version) for table, version in targets.items()]
    assert store.active_versions([*targets]) == targets
    assert [table for table in targets if len(activations(store, table)) == 2] == changed


@pytest.mark.parametrize(
    ("targets", "error"),
    [
        ({TABLE: 2, "nothing": 1}, TableNotFound),
        ({"nothing": 1, TABLE: 2}, TableNotFound),
        ({TABLE: 2, "../store/users": 2}, TableNotFound),
        ({TABLE: 2, OTHER: 4}, VersionNotFound),
        ({OTHER: 4, TABLE: 2}, VersionNotFound),
        ({TABLE: 2, OTHER: 0}, VersionNotFound),
        ({TABLE: 2, OTHER: 3, THIRD: -1}, VersionNotFound),
    ],
    ids=str,
)
def test_a_target_that_is_not_there_changes_nothing_anywhere(
    store: TableStore, targets: dict[str, int], error: type[ServiceError]
) -> None:
    before = contents(store.root)
    with pytest.raises(error):
        store.switch(targets, "ann")
    assert contents(store.root) == before


def test_a_deleted_target_changes_nothing_anywhere(store: TableStore) -> None:
    store.delete_version(OTHER, 2)
    before = contents(store.root)
    with pytest.raises(VersionNotFound):
        store.switch({TABLE: 2, OTHER: 2}, "ann")
    assert contents(store.root) == before


def test_a_rollback_of_one_of_the_tables_leaves_the_others(store: TableStore) -> None:
    store.switch({TABLE: 2, OTHER: 2}, "ann")
    assert store.rollback(OTHER) == Switch(OTHER, 2, 1)
    assert store.active_versions(PAIR) == {TABLE: 2, OTHER: 1}
    assert store.rollback(OTHER) == Switch(OTHER, 1, 2)
    assert store.rollback(TABLE) == Switch(TABLE, 2, 1)
    assert store.active_versions(PAIR) == {TABLE: 1, OTHER: 2}


def test_active_versions_says_what_is_wrong_with_one_table_and_reads_the_others(store: TableStore) -> None:
    (store.root / OTHER / "CURRENT").write_text("two\n")
    found = store.active_versions([TABLE, OTHER, "nothing"])
    assert (found[TABLE], found["nothing"]) == (1, None)
    assert isinstance(found[OTHER], Conflict)
    assert "CURRENT" in str(found[OTHER])


def test_switches_that_overlap_wait_for_each_other_and_not_in_a_circle(store: TableStore) -> None:
    def back_and_forth(tables: Sequence[str]) -> None:
        for version in (2, 3) * 8:
            store.switch(dict.fromkeys(tables, version), "-".join(tables))

    pairs = [(TABLE, OTHER), (OTHER, THIRD), (THIRD, TABLE)]
    threads = [threading.Thread(target=back_and_forth, args=(pair,), daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    until(lambda: not any(thread.is_alive() for thread in threads), seconds=60)
    for table in (*PAIR, THIRD):
        check_history(store, table)
    assert not switch_file(store).exists()


# A crash. `.switch.json` is in force from its rename on; the next verb, on whatever table, finishes it.

OLD, NEW = {TABLE: 2, OTHER: 2}, {TABLE: 3, OTHER: 3}


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A store for each step of a switch of two tables, in which the switch died at that step; the last one lived."""
    folder = tmp_path_factory.mktemp("switch")
    store_with_two_tables(folder / "template")
    publish(TableStore(folder / "template"), THIRD, ROWS)
    publish(TableStore(folder / "template"), THIRD, ROWS, activate=False)
    (folder / "work").mkdir()
    steps = run_to_death("switch", folder / "template", folder / "work")
    assert steps >= 30  # fewer would mean that the hook is blind
    return [folder / "work" / str(step) for step in range(steps + 1)]


def copied(deaths: Sequence[Path], folder: Path) -> Iterator[TableStore]:
    """A copy of each of these stores, in turn."""
    for death in deaths:
        yield TableStore(shutil.copytree(death, folder / death.name))


def test_a_switch_that_is_killed_at_any_step_is_in_force_in_both_tables_or_in_none(deaths: list[Path]) -> None:
    reached = [TableStore(death).active_versions(PAIR) for death in deaths]
    committed = [active == NEW for active in reached].index(True)
    assert reached == [OLD] * committed + [NEW] * (len(deaths) - committed)
    for death, active in zip(deaths, reached, strict=True):
        store = TableStore(death)
        assert {table: store.active_version(table) for table in PAIR} == active
        for table in PAIR:
            check_history(store, table)
            assert store.rollback_target(table) == (1 if active == OLD else 2)


def test_the_switch_file_is_there_from_the_commit_until_both_tables_say_the_same(
    deaths: list[Path], tmp_path: Path
) -> None:
    unfinished = [death for death in deaths if switch_file(TableStore(death)).exists()]
    assert unfinished
    currents = [tuple((death / table / "CURRENT").read_text() for table in PAIR) for death in unfinished]
    assert {("2\n", "2\n"), ("3\n", "2\n"), ("3\n", "3\n")} == set(currents)
    for store in copied(unfinished, tmp_path):
        assert store.active_versions(PAIR) == NEW
        with pytest.raises(Conflict, match="active"):
            store.delete_version(OTHER, 3)


# A verb, and what it changes of `OLD` and of `NEW`.
NEXT_VERBS: dict[str, tuple[Callable[[TableStore], object], dict[str, int], dict[str, int]]] = {
    "a label of the first": (lambda store: store.set_label(TABLE, "canary", 3), {}, {}),
    "an activation of the second": (lambda store: store.activate(OTHER, 1), {OTHER: 1}, {OTHER: 1}),
    "a rollback of the first": (lambda store: store.rollback(TABLE), {TABLE: 1}, {TABLE: 2}),
    "a publish into a third": (lambda store: publish(store, THIRD, KERAS_ROWS), {}, {}),
    "a prune of a third": (lambda store: store.prune(THIRD, keep=0), {}, {}),
    "a switch of one and a third": (
        lambda store: store.switch({OTHER: 1, THIRD: 2}, "next"),
        {OTHER: 1},
        {OTHER: 1},
    ),
}


@pytest.mark.parametrize("case", NEXT_VERBS)
def test_the_next_verb_finishes_the_switch(deaths: list[Path], tmp_path: Path, case: str) -> None:
    verb, after_old, after_new = NEXT_VERBS[case]
    for store in copied(deaths, tmp_path):
        expected = OLD | after_old if store.active_versions(PAIR) == OLD else NEW | after_new
        verb(store)
        assert not switch_file(store).exists()
        assert store.active_versions(PAIR) == expected
        for table, version in expected.items():
            assert (store.root / table / "CURRENT").read_text() == f"{version}\n"
            check_history(store, table)


def test_what_is_activated_after_the_crash_is_never_undone(deaths: list[Path], tmp_path: Path) -> None:
    for store in copied(deaths, tmp_path):
        store.activate(TABLE, 1)
        store.activate(OTHER, 1)
        store.activate(THIRD, 2)
        store.switch({TABLE: 2, THIRD: 1}, "ann")
        for table in PAIR:
            store.prune(table, keep=3)
        assert store.active_versions([*PAIR, THIRD]) == {TABLE: 2, OTHER: 1, THIRD: 1}
        assert not list(store.root.rglob(".s*"))  # neither a switch nor what was staged


def test_prune_removes_a_switch_file_that_was_never_put_in_force(store: TableStore) -> None:
    (store.root / ".staging-a").write_text('{"tables":{"words":2')
    assert store.prune(THIRD, keep=3).staging == (".staging-a",)
    assert not list(store.root.glob(".staging-*"))
    assert store.active_versions(PAIR) == {TABLE: 1, OTHER: 1}


def somebody_waits_for(folder: Path) -> bool:
    """Whether a lock of this folder is waited for; the kernel's list has the inode before the range."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(fields[-3].rpartition(":")[2] == str(folder.stat().st_ino) for fields in waiting)


def test_who_comes_too_late_to_finish_a_switch_undoes_nothing(store: TableStore) -> None:
    begin_and_die(store, {TABLE: 2, OTHER: 2})
    late = threading.Thread(target=lambda: store.activate(THIRD, 2))
    with durable.locked(store.root):  # as one who finishes it, and whose next verb is on one of the two
        late.start()
        until(lambda: somebody_waits_for(store.root))
        for table, version in [(TABLE, 3), (OTHER, 2)]:
            durable.replace_file(store.root / table / "CURRENT", f"{version}\n".encode())
        switch_file(store).unlink()
    late.join(timeout=60)
    assert store.active_versions([*PAIR, THIRD]) == {TABLE: 3, OTHER: 2, THIRD: 2}


def test_a_switch_is_on_disk_before_another_process_finishes_it(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_and_die(store, {TABLE: 2, OTHER: 2})
    sync, synced = durable.sync_folder, list[tuple[Path, list[str]]]()

    def sync_and_note(folder: Path) -> None:
        sync(folder)
        synced.append((folder, [(store.root / table / "CURRENT").read_text() for table in PAIR]))

    monkeypatch.setattr(durable, "sync_folder", sync_and_note)
    store.set_label(THIRD, "stable", 1)
    assert synced[0] == (store.root, ["1\n", "1\n"])
    assert (store.root, ["2\n", "2\n"]) in synced


def test_a_switch_that_names_a_table_whose_folder_was_removed_is_finished_for_the_others(store: TableStore) -> None:
    begin_and_die(store, {TABLE: 2, OTHER: 2})
    shutil.rmtree(store.root / OTHER)
    store.activate(THIRD, 2)
    assert store.tables() == [THIRD, TABLE]
    assert (store.root / TABLE / "CURRENT").read_text() == "2\n"
    assert not switch_file(store).exists()


# Readers


@pytest.mark.parametrize("tables", [PAIR, PAIR[::-1]], ids=["as they are switched", "in the other order"])
@pytest.mark.parametrize("readings", range(1, 5))
def test_a_switch_between_two_readings_is_seen_in_both_tables_or_in_none(
    store: TableStore, monkeypatch: pytest.MonkeyPatch, tables: Sequence[str], readings: int
) -> None:
    read, done = TableFolder.current, list[str]()

    def read_and_switch(folder: TableFolder) -> int | None:
        found = read(folder)
        done.append(folder.name)
        if len(done) == readings:
            TableStore(store.root).switch({TABLE: 2, OTHER: 2}, "ann")
        return found

    monkeypatch.setattr(TableFolder, "current", read_and_switch)
    assert store.active_versions(tables) in ({TABLE: 1, OTHER: 1}, {TABLE: 2, OTHER: 2})
    assert len(done) > readings, "the switch came after the reading"


def read_until_told(root: str) -> None:
    """Reads the active versions of the pair until its input ends; prints how often it saw which."""
    store, counts = TableStore(Path(root)), dict[str, int]()
    told = threading.Thread(target=sys.stdin.read, daemon=True)
    told.start()
    print("reading", flush=True)  # noqa: T201
    while told.is_alive():
        seen = store.active_versions((OTHER, TABLE))
        key = f"{seen[TABLE]} {seen[OTHER]}"
        counts[key] = counts.get(key, 0) + 1
    print(json.dumps(counts))  # noqa: T201


@contextmanager
def reading_process(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that reads the active versions of the pair for as long as its input is open."""
    code = f"from tests.store.test_switch import read_until_told; read_until_told({str(root)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_reader_never_sees_half_of_a_switch(store: TableStore) -> None:
    with reading_process(store.root) as process:
        for version in (2, 1) * 150:
            store.switch({TABLE: version, OTHER: version}, "ann")
        output, _ = process.communicate(timeout=60)
    counts = json.loads(output)
    assert counts.keys() == {"1 1", "2 2"}
    assert min(counts.values()) >= 100, "the reader saw too little to tell"


# A damaged switch file

DAMAGED: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"tables":{"words":2,',
    "no object": b"[]",
    "no field": b"{}",
    "no tables": b'{"tables":{}}',
    "null": b'{"tables":null}',
    "a list": b'{"tables":["words"]}',
    "version 0": b'{"tables":{"words":0,"users":2}}',
    "a negative version": b'{"tables":{"words":-1,"users":2}}',
    "a text": b'{"tables":{"words":"2","users":2}}',
    "a fraction": b'{"tables":{"words":2.0,"users":2}}',
    "true": b'{"tables":{"words":true,"users":2}}',
    "null as a version": b'{"tables":{"words":null,"users":2}}',
    "a version of 19 digits": b'{"tables":{"words":1000000000000000000,"users":2}}',
    "no name of a table": b'{"tables":{"../words":2,"users":2}}',
    "a name with a line end": b'{"tables":{"words\\n":2,"users":2}}',
    "an unknown field": b'{"tables":{"words":2,"users":2},"by":"ann"}',
    "no UTF-8": b'{"tables":{"words\xff":2,"users":2}}',
}

READERS: dict[str, Callable[[TableStore], object]] = {
    "active_version": lambda store: store.active_version(TABLE),
    "active_versions": lambda store: store.active_versions(PAIR),
    "history": lambda store: store.history(TABLE),
}

WRITERS: dict[str, Callable[[TableStore], object]] = {
    "activate": lambda store: store.activate(TABLE, 2),
    "activate in a third table": lambda store: store.activate(THIRD, 2),
    "rollback": lambda store: store.rollback(TABLE),
    "set_label": lambda store: store.set_label(TABLE, "stable", 2),
    "delete_version": lambda store: store.delete_version(TABLE, 3),
    "prune": lambda store: store.prune(TABLE, keep=1),
    "publish": lambda store: publish(store, TABLE, KERAS_ROWS),
    "switch": lambda store: store.switch({TABLE: 3, OTHER: 3}, "ann"),
}


def check_is_refused(store: TableStore, use: Callable[[TableStore], object]) -> None:
    before = contents(store.root)
    with pytest.raises(Conflict, match=r"\.switch\.json"):
        use(store)
    assert contents(store.root) == before


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_switch_file_is_a_conflict_that_names_it(store: TableStore, damage: str) -> None:
    switch_file(store).write_bytes(DAMAGED[damage])
    for use in (READERS["active_versions"], WRITERS["activate"]):
        check_is_refused(store, use)


@pytest.mark.parametrize("use", [*READERS, *WRITERS])
def test_nothing_is_read_or_changed_where_a_switch_may_be_in_force(store: TableStore, use: str) -> None:
    switch_file(store).write_bytes(DAMAGED["half"])
    check_is_refused(store, (READERS | WRITERS)[use])


def test_a_switch_file_that_cannot_be_read_is_a_conflict_that_names_it(store: TableStore) -> None:
    switch_file(store).mkdir()
    for use in (READERS["active_version"], WRITERS["switch"]):
        check_is_refused(store, use)


def test_a_store_whose_damaged_switch_file_was_removed_is_as_its_tables_say(store: TableStore) -> None:
    switch_file(store).write_bytes(DAMAGED["half"])
    switch_file(store).unlink()
    assert store.active_versions(PAIR) == {TABLE: 1, OTHER: 1}
    assert store.switch({TABLE: 2, OTHER: 2}, "ann") == [Switch(TABLE, 1, 2), Switch(OTHER, 1, 2)]


# A full disk


@pytest.mark.parametrize("free", range(7))
@pytest.mark.parametrize("author", ["ann", "a" * 6000], ids=["one page of history", "two pages of history"])
def test_a_disk_that_fills_up_during_a_switch_leaves_both_old_or_both_new(
    tmp_path: Path, author: str, free: int
) -> None:
    with small_disk(tmp_path / "disk", pages=64) as root:
        store = store_with(root, PAIR)
        store.activate(OTHER, 2, by=author)
        before = {table: (store.active_version(table), store.history(table)) for table in PAIR}
        fill(root, free)
        try:
            store.switch({TABLE: 3, OTHER: 3}, "ann")
        except InsufficientStorage:
            assert {table: (store.active_version(table), store.history(table)) for table in PAIR} == before
            assert not switch_file(store).exists()
        else:
            assert free > 0
            assert store.active_versions(PAIR) == {TABLE: 3, OTHER: 3}
        check_a_full_disk_forgets_nothing(store)


def check_a_full_disk_forgets_nothing(store: TableStore) -> None:
    """What was in force when the disk was full is so when it has room again, and is finished by the next verb."""
    active = store.active_versions(PAIR)
    (store.root / "filler").unlink()
    store.set_label(TABLE, "stable", 1)
    assert not switch_file(store).exists()
    for table in PAIR:
        assert (store.root / table / "CURRENT").read_text() == f"{active[table]}\n"
        check_history(store, table)
        store.verify(TableVersion(table, 3))


def test_a_switch_on_a_full_disk_says_that_all_tables_are_as_they_were(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", pages=64) as root:
        store = store_with(root, PAIR)
        fill(root, 0)
        before = contents(root)
        with pytest.raises(InsufficientStorage, match="full; tables 'users', 'words' are as they were"):
            store.switch({TABLE: 3, OTHER: 3}, "ann")
        assert contents(root) == before


def test_a_switch_for_which_the_disk_has_no_more_than_its_own_page_is_in_force_and_finished_later(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", pages=64) as root:
        store = store_with(root, PAIR)
        fill(root, 1)
        assert store.switch({TABLE: 3, OTHER: 2}, "ann") == [Switch(TABLE, 1, 3), Switch(OTHER, 1, 2)]
        assert switch_file(store).exists()
        with pytest.raises(InsufficientStorage, match="'words' is as it was"):
            store.activate(TABLE, 2)
        assert store.active_versions(PAIR) == {TABLE: 3, OTHER: 2}
        check_a_full_disk_forgets_nothing(store)
