import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from service import npyfile
from service.errors import Conflict, TableNotFound, VersionNotFound
from service.history import Deletion
from service.imported import ImportedTable, RowBlock
from service.manifest import Manifest
from service.store import TableStore
from service.types import TableVersion
from tests.world import KERAS_ROWS, publish

REPOSITORY = Path(__file__).parents[2]


def store_with(root: Path, versions: int) -> TableStore:
    """A table `words` with so many versions, none of them active."""
    store = TableStore(root)
    for _ in range(versions):
        publish(store, "words", KERAS_ROWS, activate=False)
    return store


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (0, []),
        (1, [5]),
        (2, [4, 5]),
        (4, [2, 3, 4, 5]),
        (5, [1, 2, 3, 4, 5]),
        (6, [1, 2, 3, 4, 5]),
        (10**9, [*range(1, 6)]),
    ],
    ids=str,
)
def test_prune_keeps_the_newest(tmp_path: Path, keep: int, left: list[int]) -> None:
    store = store_with(tmp_path, 5)
    pruned = store.prune("words", keep)
    present = [] if not store.tables() else store.versions("words")
    assert present == left
    assert [removed.version for removed in pruned.versions] == [n for n in range(1, 6) if n not in left]


@pytest.mark.parametrize("keep", range(9))
@pytest.mark.parametrize("versions", range(1, 5))
def test_prune_never_leaves_fewer_than_it_was_to_keep(tmp_path: Path, versions: int, keep: int) -> None:
    store = store_with(tmp_path, versions)
    assert len(store.prune("words", keep).versions) == max(0, versions - keep)


@pytest.mark.parametrize(
    ("activations", "labels", "left"),
    [
        ([], [], []),
        ([2], [], [2]),
        ([1, 3], [], [1, 3]),
        ([1, 2, 4], [], [2, 4]),
        ([1, 2, 1], [], [1, 2]),
        ([], [1, 5], [1, 5]),
        ([2, 3], [1], [1, 2, 3]),
        ([3, 3], [3], [3]),
    ],
    ids=["nothing", "active", "and before it", "not further back", "swapped", "labelled", "both", "the same"],
)
def test_versions_in_use_stay(
    tmp_path: Path, activations: Sequence[int], labels: Sequence[int], left: list[int]
) -> None:
    store = store_with(tmp_path, 5)
    for version in activations:
        store.activate("words", version)
    for number, version in enumerate(labels):
        store.set_label("words", f"l{number}", version)
    store.prune("words", keep=0)
    present = [] if not store.tables() else store.versions("words")
    assert present == left


def test_a_rollback_works_after_a_prune(tmp_path: Path) -> None:
    store = store_with(tmp_path, 5)
    for version in (2, 4):
        store.activate("words", version)
    store.prune("words", keep=0)
    assert store.rollback("words").active_version == 2


def made(store: TableStore, version: int, created: str) -> None:
    """Changes when a version was made, as its manifest says."""
    path = store.version(TableVersion("words", version)).path / "manifest.json"
    manifest = Manifest.from_json(path.read_bytes()).model_dump_json()
    old = Manifest.from_json(path.read_bytes()).model_dump(mode="json")["created"]
    path.write_text(manifest.replace(old, created))


def test_only_versions_older_than_asked_are_pruned(tmp_path: Path) -> None:
    store = store_with(tmp_path, 4)
    for version, days in [(1, 9), (2, 8), (3, 6)]:
        made(store, version, (datetime.now(UTC) - timedelta(days=days)).isoformat())
    pruned = store.prune("words", keep=1, older_than=timedelta(days=7))
    assert [removed.version for removed in pruned.versions] == [1, 2]
    assert store.versions("words") == [3, 4]


def test_a_version_made_at_a_time_without_a_zone_stops_no_prune(tmp_path: Path) -> None:
    store = store_with(tmp_path, 2)
    made(store, 1, "2020-01-01T00:00:00")
    store.prune("words", keep=1, older_than=timedelta(days=1))
    assert 2 in store.versions("words")


def test_a_version_of_unknown_age_stays_when_an_age_is_asked_for(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3)
    (tmp_path / "words" / "1" / "manifest.json").unlink()
    assert store.prune("words", keep=1, older_than=timedelta(seconds=1)).versions == ()
    assert [removed.version for removed in store.prune("words", keep=1).versions] == [1, 2]


def test_what_is_pruned_is_written_down_and_its_number_is_spent(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3)
    store.prune("words", keep=0, by="ann")
    assert [(e.deleted, e.by) for e in store.history("words") if isinstance(e, Deletion)] == [
        (1, "ann"),
        (2, "ann"),
        (3, "ann"),
    ]
    assert publish(store, "words", KERAS_ROWS).version == 4


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    table = tmp_path / "words"
    (table / ".staging-a").mkdir()
    (table / ".staging-a" / "vectors.npy").write_bytes(b"half")
    (table / ".staging-b").write_text("CURRENT aside")
    assert store.prune("words", keep=1).staging == (".staging-a", ".staging-b")
    assert {path.name for path in table.iterdir()} == {"1"}


def test_a_table_of_which_only_a_killed_publish_is_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "words" / ".staging-a").mkdir(parents=True)
    pruned = TableStore(tmp_path).prune("words", keep=1)
    assert (pruned.versions, pruned.staging) == ((), (".staging-a",))


def test_other_files_of_the_table_stay(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    (tmp_path / "words" / "NOTES").write_text("mine")
    store.prune("words", keep=0)
    assert (tmp_path / "words" / "NOTES").read_text() == "mine"


def test_a_table_that_is_not_there_is_not_pruned(tmp_path: Path) -> None:
    with pytest.raises(TableNotFound):
        TableStore(tmp_path).prune("words", keep=1)


def publish_when_told(root: str) -> None:
    """Publishes, says so after the first block, and goes on at the next line of its input."""

    def blocks() -> Iterator[RowBlock]:
        yield RowBlock(KERAS_ROWS)
        print("staged", flush=True)  # noqa: T201
        sys.stdin.readline()
        yield RowBlock(KERAS_ROWS)

    TableStore(Path(root)).publish("words", ImportedTable(14, 2, blocks()), activate=True)


@contextmanager
def publishing_process(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of a publish."""
    code = f"from tests.store.test_prune import publish_when_told; publish_when_told({str(root)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_staging_folder_of_a_living_process_stays(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    with publishing_process(tmp_path) as process:
        assert store.prune("words", keep=1).staging == ()
        process.communicate("go on\n", timeout=60)
        assert process.returncode == 0
    assert store.active_version("words") == 2
    assert store.verify(TableVersion("words", 2)).num_embeddings == 14


def test_the_staging_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    with publishing_process(tmp_path) as process:
        process.kill()
        process.wait(timeout=60)
    (staged,) = (path.name for path in (tmp_path / "words").glob(".staging-*"))
    assert store.prune("words", keep=1).staging == (staged,)
    assert store.versions("words") == [1]


def test_the_staging_folder_of_a_thread_of_this_process_stays(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    staged, go_on = threading.Event(), threading.Event()

    def blocks() -> Iterator[RowBlock]:
        yield RowBlock(KERAS_ROWS)
        staged.set()
        go_on.wait(60)

    publisher = threading.Thread(target=lambda: store.publish("words", ImportedTable(7, 2, blocks())))
    publisher.start()
    try:
        assert staged.wait(60)
        assert store.prune("words", keep=1).staging == ()
    finally:
        go_on.set()
        publisher.join(timeout=60)
    assert store.versions("words") == [1, 2]


def test_prunes_next_to_publishes_disturb_none_of_them(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    done = threading.Event()
    failures: list[Exception] = []

    def prune_until_done() -> None:
        try:
            while not done.is_set():
                store.prune("words", keep=1)
        except Exception as error:  # noqa: BLE001 - the test fails with it
            failures.append(error)

    pruner = threading.Thread(target=prune_until_done)
    pruner.start()
    try:
        published = [publish(store, "words", KERAS_ROWS).version for _ in range(30)]
    finally:
        done.set()
        pruner.join(timeout=60)
    assert failures == []
    assert published == list(range(2, 32))
    store.prune("words", keep=1)
    assert store.versions("words") == [30, 31]


# A grace period

HOUR = timedelta(hours=1)


def deleted_folders(root: Path) -> list[Path]:
    return sorted((root / "words").glob(".deleted-*"))


def made_old(folder: Path, age: timedelta) -> Path:
    """Writes another time of deletion into the name of a deleted version's folder."""
    then = datetime.now(UTC) - age
    return folder.rename(folder.with_name(f".deleted-{int(then.timestamp())}-{folder.name.rpartition('-')[2]}"))


def test_a_deleted_version_is_gone_at_once_and_its_files_stay_for_the_grace(tmp_path: Path) -> None:
    store_with(tmp_path, 3)
    store = TableStore(tmp_path, grace=HOUR)
    rows = (tmp_path / "words" / "2" / "vectors.npy").read_bytes()
    begun = int(datetime.now(UTC).timestamp())
    store.delete_version("words", 2)
    assert store.versions("words") == [1, 3]
    with pytest.raises(VersionNotFound):
        store.version(TableVersion("words", 2))
    (folder,) = deleted_folders(tmp_path)
    name = re.fullmatch(r"\.deleted-(\d+)-[0-9a-f]{32}", folder.name)
    assert name is not None
    assert begun <= int(name[1]) <= datetime.now(UTC).timestamp()
    assert (folder / "vectors.npy").read_bytes() == rows


CLEARING: dict[str, Callable[[TableStore], object]] = {
    "prune": lambda store: store.prune("words", keep=1),
    "delete_version": lambda store: store.delete_version("words", 2),
    "remove_deleted": lambda store: store.remove_deleted("words"),
}


@pytest.mark.parametrize(
    ("age", "stays"),
    [(timedelta(0), True), (HOUR - timedelta(minutes=1), True), (HOUR, False), (timedelta(days=9999), False)],
    ids=["just deleted", "a minute before its end", "at its end", "long ago"],
)
@pytest.mark.parametrize("verb", CLEARING)
def test_the_files_of_a_deleted_version_go_with_the_first_verb_after_the_grace(
    tmp_path: Path, verb: str, age: timedelta, stays: bool
) -> None:
    store_with(tmp_path, 3)
    store = TableStore(tmp_path, grace=HOUR)
    store.delete_version("words", 1)
    old = made_old(deleted_folders(tmp_path)[0], age)
    CLEARING[verb](store)
    assert old.exists() == stays
    assert len(deleted_folders(tmp_path)) == stays + (verb != "remove_deleted")


def test_without_a_grace_the_files_go_at_once_and_those_of_earlier_deletions_too(tmp_path: Path) -> None:
    store_with(tmp_path, 3)
    TableStore(tmp_path, grace=HOUR).delete_version("words", 1)
    assert len(deleted_folders(tmp_path)) == 1
    TableStore(tmp_path).delete_version("words", 2)
    assert deleted_folders(tmp_path) == []


def test_only_the_table_of_the_verb_is_cleared(tmp_path: Path) -> None:
    store = TableStore(tmp_path, grace=HOUR)
    for table in ("words", "users"):
        publish(store, table, KERAS_ROWS, activate=False)
        publish(store, table, KERAS_ROWS, activate=False)
        store.delete_version(table, 1)
    TableStore(tmp_path).prune("users", keep=1)
    assert len(deleted_folders(tmp_path)) == 1
    assert not list((tmp_path / "users").glob(".deleted-*"))


@pytest.mark.parametrize("grace", [timedelta(0), HOUR], ids=["no grace", "an hour"])
def test_a_mapped_version_stays_readable_after_its_deletion(tmp_path: Path, grace: timedelta) -> None:
    store_with(tmp_path, 2)
    store = TableStore(tmp_path, grace)
    mapped = npyfile.map_rows(store.version(TableVersion("words", 1)).vectors)[1]
    store.delete_version("words", 1)
    assert np.array_equal(mapped, KERAS_ROWS)


@pytest.mark.parametrize("grace", [timedelta(0), HOUR], ids=["no grace", "an hour"])
def test_the_number_of_a_deleted_version_is_never_given_again(tmp_path: Path, grace: timedelta) -> None:
    store = TableStore(tmp_path, grace)
    for version in range(1, 6):
        assert publish(store, "words", KERAS_ROWS, activate=False).version == version
        store.delete_version("words", version)
    assert store.tables() == []
    assert len(deleted_folders(tmp_path)) == (5 if grace else 0)
    assert publish(store, "words", KERAS_ROWS).version == 6


def test_a_rollback_to_a_deleted_version_is_refused_though_its_files_are_there(tmp_path: Path) -> None:
    store = TableStore(tmp_path, grace=HOUR)
    for _ in range(2):
        publish(store, "words", KERAS_ROWS)
    store.delete_version("words", 1)
    with pytest.raises(Conflict, match="has been deleted"):
        store.rollback("words")


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        (".deleted-", False),
        (".deleted-x", False),
        (".deleted-1", False),
        (".deleted--1-a", False),
        (".deleted-1.5-a", False),
        (".deleted-²-a", False),
        (f".deleted-{'9' * 200}-a", True),
        (".deleted", True),
        ("deleted-1-a", True),
        ("1.deleted-1-a", True),
    ],
)
def test_what_only_looks_like_a_deleted_version_stops_no_verb(tmp_path: Path, name: str, stays: bool) -> None:
    store_with(tmp_path, 2)
    (tmp_path / "words" / name / "deep").mkdir(parents=True)
    store = TableStore(tmp_path, grace=HOUR)
    assert store.versions("words") == [1, 2]
    store.delete_version("words", 1)
    store.prune("words", keep=1)
    assert (tmp_path / "words" / name).exists() == stays


def test_a_file_or_a_link_with_the_name_of_a_deleted_version_stays(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    (tmp_path / "words" / ".deleted-1-file").write_text("mine")
    (tmp_path / "words" / ".deleted-1-link").symlink_to(tmp_path / "words" / "1")
    store.prune("words", keep=1)
    assert {path.name for path in deleted_folders(tmp_path)} == {".deleted-1-file", ".deleted-1-link"}
    store.verify(TableVersion("words", 1))


def test_deletions_at_once_give_back_the_space_of_each(tmp_path: Path) -> None:
    store = store_with(tmp_path, 20)
    failures: list[Exception] = []

    def delete(versions: range) -> None:
        try:
            for version in versions:
                store.delete_version("words", version)
        except Exception as error:  # noqa: BLE001 - the test fails with it
            failures.append(error)

    threads = [threading.Thread(target=delete, args=(range(start, 20, 3),)) for start in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert store.versions("words") == [20]
    store.remove_deleted("words")
    assert deleted_folders(tmp_path) == []
