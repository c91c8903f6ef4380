import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from load_tests.running import until as poll
from service.backends import pages
from service.errors import LabelNotFound, NotReady, TableNotFound, VersionNotFound
from service.opened import Target
from service.registry import Entry, TableRegistry, TableState
from service.store import TableStore
from service.table import EmbeddingTable
from service.types import RowArray, TableVersion
from service.watcher import StoreWatcher
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

ALL = np.arange(7)


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """The table `words` with the versions 1, active, and 2, whose rows are twice those of 1."""
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS, activate=False)
    return store


@contextmanager
def following(store: TableStore, keep_loaded: int = 0) -> Iterator[StoreWatcher]:
    """A watcher after its first pass over the store."""
    watcher = StoreWatcher(store, TableRegistry(), poll_seconds=0.01, keep_loaded=keep_loaded)
    try:
        watcher.refresh()
        yield watcher
    finally:
        watcher.close()


def rows(table: EmbeddingTable) -> RowArray:
    return table.backend.gather(ALL)


def entry(watcher: StoreWatcher, name: str = "words") -> Entry:
    return watcher.registry.entry(name)


def damage(store: TableStore, version: int) -> None:
    """Changes the length of a version's rows, by a new file in the place of the one that may be mapped."""
    vectors = store.version(TableVersion("words", version)).vectors
    content = vectors.read_bytes()
    vectors.unlink()
    vectors.write_bytes(content + b"more")


def repair(store: TableStore, version: int) -> None:
    vectors = store.version(TableVersion("words", version)).vectors
    content = vectors.read_bytes().removesuffix(b"more")
    vectors.unlink()
    vectors.write_bytes(content)


# Active versions


def test_the_first_pass_loads_what_is_active(store: TableStore) -> None:
    with following(store) as watcher:
        assert watcher.registry.settled
        assert (entry(watcher).state, entry(watcher).active_version, entry(watcher).reason) == ("READY", 1, None)
        assert rows(watcher.registry.get("words")).tobytes() == KERAS_ROWS.tobytes()


def test_rows_are_read_without_pauses_until_the_first_pass_ends_and_with_them_from_then_on(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(pages, "time", SimpleNamespace(sleep=pauses.append))
    with following(store) as watcher:
        assert pauses == []
        store.activate("words", 2)
        watcher.refresh()
        assert len(pauses) == 1


def test_an_empty_store_is_settled(tmp_path: Path) -> None:
    with following(TableStore(tmp_path / "nothing")) as watcher:
        assert watcher.registry.settled
        assert dict(watcher.registry.entries) == {}


def test_an_activation_is_followed(store: TableStore) -> None:
    with following(store) as watcher:
        store.activate("words", 2)
        watcher.refresh()
        assert entry(watcher).active_version == 2
        assert np.array_equal(rows(watcher.registry.get("words")), KERAS_ROWS * 2)


def test_a_table_that_was_taken_before_a_swap_goes_on(store: TableStore) -> None:
    with following(store) as watcher:
        taken = watcher.registry.get("words")
        store.activate("words", 2)
        watcher.refresh()
        shutil.rmtree(store.root / "words" / "1")
        assert np.array_equal(rows(taken), KERAS_ROWS)


def test_a_pass_without_a_change_changes_nothing(store: TableStore) -> None:
    publish(store, "idle", KERAS_ROWS, activate=False)
    with following(store) as watcher:
        before = watcher.registry.entries
        watcher.refresh()
        assert watcher.registry.entries is before


def test_a_new_table_appears_and_a_removed_one_goes(store: TableStore) -> None:
    with following(store) as watcher:
        publish(store, "new", KERAS_ROWS)
        shutil.rmtree(store.root / "words")
        watcher.refresh()
        assert set(watcher.registry.entries) == {"new"}


def test_a_table_without_an_active_version_is_available_and_not_ready(store: TableStore) -> None:
    publish(store, "idle", KERAS_ROWS, activate=False)
    with following(store) as watcher:
        assert (entry(watcher, "idle").state, entry(watcher, "idle").active_version) == ("AVAILABLE", None)
        with pytest.raises(NotReady, match="no version is active"):
            watcher.registry.get("idle")
        assert watcher.registry.missing() == []


# Tables that cannot be loaded


def test_a_damaged_table_is_unavailable_with_the_reason_and_the_others_serve(store: TableStore) -> None:
    publish(store, "a", KERAS_ROWS)
    publish(store, "z", KERAS_ROWS)
    damage(store, 1)
    with following(store) as watcher:
        assert entry(watcher).state == "UNAVAILABLE"
        with pytest.raises(NotReady, match=r"vectors\.npy has 188 bytes"):
            watcher.registry.get("words")
        assert [other.state for other in (entry(watcher, "a"), entry(watcher, "z"))] == ["READY", "READY"]
        assert watcher.registry.settled


def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one_serving(store: TableStore) -> None:
    with following(store) as watcher:
        store.activate("words", 2)
        damage(store, 2)
        watcher.refresh()
        assert (entry(watcher).state, entry(watcher).active_version) == ("READY", 2)
        assert "vectors.npy" in (entry(watcher).reason or "")
        assert watcher.registry.get("words").identity.version == 1


def test_the_reason_goes_when_the_store_goes_back_to_what_is_served(store: TableStore) -> None:
    with following(store) as watcher:
        store.activate("words", 2)
        damage(store, 2)
        watcher.refresh()
        store.rollback("words")
        watcher.refresh()
        now = entry(watcher)
        assert (now.state, now.active_version, now.reason) == ("READY", 1, None)


def test_the_reason_goes_when_current_can_be_read_again(store: TableStore) -> None:
    current = store.root / "words" / "CURRENT"
    with following(store) as watcher:
        current.write_text("one\n")
        watcher.refresh()
        assert "CURRENT" in (entry(watcher).reason or "")
        assert watcher.registry.get("words").identity.version == 1
        current.write_text("1\n")
        watcher.refresh()
        now = entry(watcher)
        assert (now.state, now.active_version, now.reason) == ("READY", 1, None)


def test_another_activation_is_loaded_at_once_after_a_failure(store: TableStore) -> None:
    damage(store, 1)
    with following(store) as watcher:
        assert entry(watcher).state is TableState.UNAVAILABLE
        store.activate("words", 2)
        watcher.refresh()
        assert (entry(watcher).state, entry(watcher).reason) == ("READY", None)


def test_a_version_that_failed_is_not_read_again_at_every_pass(store: TableStore) -> None:
    damage(store, 1)
    with following(store) as watcher:
        repair(store, 1)
        before = watcher.registry.entries
        watcher.refresh()
        assert watcher.registry.entries is before


@pytest.mark.parametrize("file", ["CURRENT", "1/manifest.json", "1/vectors.npy", "1/vocabulary.txt"])
def test_a_folder_in_the_place_of_a_file_stops_no_other_table(store: TableStore, file: str) -> None:
    path = store.root / "words" / file
    path.unlink()
    path.mkdir()
    publish(store, "zebra", KERAS_ROWS)
    with following(store) as watcher:
        assert entry(watcher, "zebra").state is TableState.READY
        assert entry(watcher).state is TableState.UNAVAILABLE
        assert entry(watcher).reason
        assert watcher.registry.settled


def test_a_current_that_names_no_version_is_unavailable(store: TableStore) -> None:
    (store.root / "words" / "CURRENT").write_text("9\n")
    with following(store) as watcher:
        assert entry(watcher).state is TableState.UNAVAILABLE
        assert "no version 9" in (entry(watcher).reason or "")


def test_a_table_that_may_not_be_read_is_unavailable_and_the_others_are_served() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    root = Path(tempfile.mkdtemp())
    try:
        root.chmod(0o755)
        store = TableStore(root)
        publish(store, "closed", KERAS_ROWS)
        publish(store, "words", KERAS_ROWS)
        (root / "closed").chmod(0)
        pid = os.fork()
        if pid == 0:
            os._exit(_states_as_nobody(store))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        shutil.rmtree(root)


def _states_as_nobody(store: TableStore) -> int:
    os.setuid(65534)
    with following(store) as watcher:
        states = {name: found.state for name, found in watcher.registry.entries.items()}
    return 0 if states == {"closed": TableState.UNAVAILABLE, "words": TableState.READY} else 1


# Other versions


async def older(watcher: StoreWatcher, version: TableVersion) -> EmbeddingTable:
    return await resolved(watcher, Target(version.name, version.version))


async def labelled(watcher: StoreWatcher, name: str, label: str) -> EmbeddingTable:
    return await resolved(watcher, Target(name, label=label))


async def resolved(watcher: StoreWatcher, target: Target) -> EmbeddingTable:
    return (await watcher.opened.resolve([target], watcher.registry.entries))[target]


def test_another_version_is_opened_when_it_is_asked_for(store: TableStore) -> None:
    async def ask(watcher: StoreWatcher) -> EmbeddingTable:
        assert not watcher.opened.is_open(TableVersion("words", 2))
        return await older(watcher, TableVersion("words", 2))

    with following(store) as watcher:
        table = asyncio.run(ask(watcher))
        assert table.identity == TableVersion("words", 2)
        assert np.array_equal(rows(table), KERAS_ROWS * 2)


@pytest.mark.parametrize(("keep_loaded", "open_after"), [(0, []), (1, [4]), (2, [3, 4]), (9, [2, 3, 4])])
def test_as_many_other_versions_stay_open_as_were_asked_for(
    store: TableStore, keep_loaded: int, open_after: list[int]
) -> None:
    for _ in range(2):
        publish(store, "words", KERAS_ROWS, activate=False)

    async def ask(watcher: StoreWatcher) -> None:
        for version in (2, 3, 4):
            await older(watcher, TableVersion("words", version))

    with following(store, keep_loaded) as watcher:
        asyncio.run(ask(watcher))
        # The thread that opened the last one may hold it for an instant longer than the one who asked.
        poll(lambda: [n for n in (2, 3, 4) if watcher.opened.is_open(TableVersion("words", n))] == open_after)
        assert watcher.opened.is_open(TableVersion("words", 1))


def test_the_version_used_longest_ago_is_closed_first(store: TableStore) -> None:
    publish(store, "words", KERAS_ROWS, activate=False)
    publish(store, "words", KERAS_ROWS, activate=False)

    async def ask(watcher: StoreWatcher) -> None:
        for version in (2, 3, 2, 4):
            await older(watcher, TableVersion("words", version))

    with following(store, keep_loaded=2) as watcher:
        asyncio.run(ask(watcher))
        poll(lambda: [n for n in (2, 3, 4) if watcher.opened.is_open(TableVersion("words", n))] == [2, 4])


def test_a_version_in_use_is_opened_once(store: TableStore) -> None:
    async def ask(watcher: StoreWatcher) -> tuple[EmbeddingTable, EmbeddingTable]:
        return await older(watcher, TableVersion("words", 2)), await older(watcher, TableVersion("words", 2))

    with following(store, keep_loaded=1) as watcher:
        first, second = asyncio.run(ask(watcher))
        assert first is second


def test_a_deleted_version_is_not_served_from_memory(store: TableStore) -> None:
    async def ask(watcher: StoreWatcher) -> None:
        await older(watcher, TableVersion("words", 2))
        store.delete_version("words", 2)
        with pytest.raises(VersionNotFound):
            await older(watcher, TableVersion("words", 2))

    with following(store, keep_loaded=3) as watcher:
        asyncio.run(ask(watcher))


@pytest.mark.parametrize(
    ("version", "error"),
    [(TableVersion("words", 9), VersionNotFound), (TableVersion("nothing", 1), TableNotFound)],
    ids=str,
)
def test_a_version_that_is_not_there_is_named(store: TableStore, version: TableVersion, error: type[Exception]) -> None:
    async def ask(watcher: StoreWatcher) -> None:
        with pytest.raises(error, match=version.name):
            await older(watcher, version)

    with following(store) as watcher:
        asyncio.run(ask(watcher))


def test_another_version_that_is_damaged_is_not_ready(store: TableStore) -> None:
    damage(store, 2)

    async def ask(watcher: StoreWatcher) -> None:
        with pytest.raises(NotReady, match=r"vectors\.npy"):
            await older(watcher, TableVersion("words", 2))

    with following(store) as watcher:
        asyncio.run(ask(watcher))


def test_a_label_is_followed_to_its_version(store: TableStore) -> None:
    async def ask(watcher: StoreWatcher) -> list[int]:
        found = []
        for version in (1, 2):
            store.set_label("words", "stable", version)
            found.append((await labelled(watcher, "words", "stable")).identity.version)
        with pytest.raises(LabelNotFound):
            await labelled(watcher, "words", "canary")
        return found

    with following(store) as watcher:
        assert asyncio.run(ask(watcher)) == [1, 2]


@pytest.mark.parametrize("name", ["nothing", "README.md"])
def test_a_label_of_a_table_that_is_not_there_names_the_table(store: TableStore, name: str) -> None:
    (store.root / "README.md").write_text("the format")

    async def ask(watcher: StoreWatcher) -> None:
        with pytest.raises(TableNotFound, match=name):
            await labelled(watcher, name, "stable")

    with following(store) as watcher:
        asyncio.run(ask(watcher))


def test_what_is_served_is_not_opened_again(store: TableStore) -> None:
    with following(store) as watcher:
        active = watcher.registry.get("words")
        assert asyncio.run(older(watcher, TableVersion("words", 1))) is active
        assert asyncio.run(resolved(watcher, Target("words"))) is active


def test_a_version_named_several_times_in_a_request_is_opened_once(store: TableStore) -> None:
    store.set_label("words", "next", 2)
    targets = [Target("words", 2), Target("words", label="next"), Target("words")]

    async def ask(watcher: StoreWatcher) -> dict[Target, EmbeddingTable]:
        return await watcher.opened.resolve(targets, watcher.registry.entries)

    with following(store, keep_loaded=0) as watcher:
        found = asyncio.run(ask(watcher))
        assert found[targets[0]] is found[targets[1]]
        assert found[targets[2]] is watcher.registry.get("words")


def test_another_folder_under_the_same_number_is_opened_anew(store: TableStore) -> None:
    publish(store, "other", KERAS_ROWS * 3)
    with following(store) as watcher:
        (store.root / "words" / "1").rename(store.root / "gone")
        (store.root / "other" / "1").rename(store.root / "words" / "1")
        watcher.refresh()
        assert np.array_equal(rows(watcher.registry.get("words")), KERAS_ROWS * 3)


def test_a_store_that_is_out_of_reach_leaves_what_is_loaded(store: TableStore) -> None:
    with following(store) as watcher:
        store.root.rename(store.root.with_name("away"))
        watcher.refresh()
        assert np.array_equal(rows(watcher.registry.get("words")), KERAS_ROWS)


# Following on and on


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the registry is plain data, and tells nobody
        await asyncio.sleep(0)


def test_a_running_watcher_follows_an_activation_by_another_process(store: TableStore) -> None:
    async def follow(watcher: StoreWatcher) -> None:
        running = asyncio.create_task(watcher.run())
        try:
            async with asyncio.timeout(30):
                await until(lambda: watcher.registry.settled)
                TableStore(store.root).activate("words", 2)
                await until(lambda: watcher.registry.get("words").identity.version == 2)
        finally:
            running.cancel()

    watcher = StoreWatcher(store, TableRegistry(), poll_seconds=0.01)
    try:
        asyncio.run(follow(watcher))
    finally:
        watcher.close()


def test_a_running_watcher_outlives_a_header_that_lies(store: TableStore) -> None:
    vectors = store.version(TableVersion("words", 2)).vectors
    content = vectors.read_bytes()
    store.activate("words", 2)
    vectors.unlink()
    vectors.write_bytes(content[:10] + b"{'descr': (".ljust(117) + b"\n" + content[128:])

    async def follow(watcher: StoreWatcher) -> None:
        running = asyncio.create_task(watcher.run())
        try:
            async with asyncio.timeout(30):
                await until(lambda: running.done() or watcher.registry.settled)
            assert not running.done(), running.exception()
            assert entry(watcher).state is TableState.UNAVAILABLE
        finally:
            running.cancel()

    watcher = StoreWatcher(store, TableRegistry(), poll_seconds=0.01)
    try:
        asyncio.run(follow(watcher))
    finally:
        watcher.close()
