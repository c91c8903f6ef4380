"""What goes wrong between the store and the workers, and what the steward makes of it."""

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import background, durable
from service import store as store_module
from service.barrier import OneProcess
from service.errors import Conflict, InForce, ServiceError
from service.imported import ImportedTable
from service.registry import TableRegistry
from service.server.asking import AskedWorkers
from service.server.control import Channel
from service.steward import Steward
from service.store import TableStore
from service.watcher import StoreWatcher
from tests.world import KERAS_ROWS, imported, publish


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` with the versions 1 to 3; 2 is active, and 1 was before."""
    opened = TableStore(tmp_path / "store")
    for _ in range(3):
        publish(opened, "words", KERAS_ROWS, activate=False)
    opened.activate("words", 1)
    opened.activate("words", 2)
    return opened


@pytest.fixture
def watcher(store: TableStore) -> Iterator[StoreWatcher]:
    """The one worker, which serves what is active."""
    made = StoreWatcher(store, TableRegistry())
    made.refresh()
    yield made
    made.close()


def steward(store: TableStore, watcher: StoreWatcher) -> Steward:
    return Steward(store, OneProcess(watcher, 1))


def served(watcher: StoreWatcher) -> int:
    return watcher.registry.get("words").identity.version


def test_a_rollback_after_a_foreign_activation_changes_nothing(store: TableStore, watcher: StoreWatcher) -> None:
    class Overtaken(OneProcess):
        async def prepare(self, _: object) -> None:
            store.activate("words", 3)

    with pytest.raises(Conflict, match="another version of table 'words' was activated in the meantime"):
        asyncio.run(Steward(store, Overtaken(watcher, 1)).rollback("words", "me"))
    assert (store.active_version("words"), served(watcher)) == (3, 2)


def test_a_disk_that_fails_after_the_switch_leaves_no_worker_behind(
    store: TableStore, watcher: StoreWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = durable.sync_folder

    def fails_after_current(folder: Path) -> None:
        if (folder / "CURRENT").is_file() and (folder / "CURRENT").read_text() == "3\n":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        sync(folder)

    monkeypatch.setattr(durable, "sync_folder", fails_after_current)
    with pytest.raises(InForce, match="in force all the same"):
        asyncio.run(steward(store, watcher).activate({"words": 3}, "me"))
    assert (store.active_version("words"), served(watcher)) == (3, 3)


def test_a_publish_that_cannot_be_activated_is_taken_back(store: TableStore, watcher: StoreWatcher) -> None:
    class Refusing(OneProcess):
        async def prepare(self, _: object) -> None:
            raise ServiceError("no room")

    with pytest.raises(ServiceError, match=r"^no room$"):
        asyncio.run(publishing(Steward(store, Refusing(watcher, 1))))
    assert store.versions("words") == [1, 2, 3]


def test_one_that_cannot_be_taken_back_says_that_it_stays(store: TableStore, watcher: StoreWatcher) -> None:
    class Labelled(OneProcess):
        async def prepare(self, _: object) -> None:
            store.set_label("words", "used", 4)
            raise ServiceError("no room")

    with pytest.raises(ServiceError, match=r"^no room; words version 4 stays published$"):
        asyncio.run(publishing(Steward(store, Labelled(watcher, 1))))
    assert store.versions("words") == [1, 2, 3, 4]


async def publishing(steward: Steward) -> None:
    def read() -> ImportedTable:
        return imported(KERAS_ROWS)

    await steward.publish("words", read, "me", activate=True)


def test_a_lock_that_another_holds_is_not_waited_for_without_end(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PATIENCE", 0.01)
    with (
        durable.locked(store.root / "words"),
        pytest.raises(Conflict, match=r"another process has been changing table 'words' for 0\.01 s"),
    ):
        store.activate("words", 3)
    assert store.active_version("words") == 2


def test_stewards_do_not_share_the_numbers_of_questions() -> None:
    ours, theirs = Channel.pair()

    async def ask_twice() -> list[int]:
        numbers = []
        for _ in range(2):
            asked = asyncio.ensure_future(AskedWorkers(ours, 1.0).states(["words"]))
            await asyncio.sleep(0)
            message = theirs.receive()
            assert message is not None
            numbers.append(message.question)
            asked.cancel()
        return numbers

    first, second = asyncio.run(ask_twice())
    assert first < second
    ours.close()
    theirs.close()


@pytest.mark.parametrize("least", [0.0, 60.0], ids=["too busy", "idle"])
def test_hashing_in_the_background_gives_what_hashing_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float
) -> None:
    monkeypatch.setattr(background, "_LEAST_SECONDS", least)
    monkeypatch.setattr(background, "_SLOW", 1e12)
    path = tmp_path / "rows"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert background.sha256(path) == durable.sha256(path)


def test_what_cannot_be_read_is_told_without_where_it_is(tmp_path: Path) -> None:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS)
    (store.root / "words" / "CURRENT").unlink()
    (store.root / "words" / "CURRENT").mkdir()
    with pytest.raises(Conflict, match="CURRENT of table 'words' cannot be read: Is a directory") as refused:
        store.active_version("words")
    assert str(tmp_path) not in str(refused.value)
