import errno
import random
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from service import durable
from service.errors import InsufficientStorage
from service.store import TableStore
from tests.world import KERAS_ROWS, imported, publish

REPOSITORY = Path(__file__).parents[1]
PAGE = 4096
MIB = 1 << 20


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Files


def test_a_file_is_replaced_whole_and_leaves_nothing_aside(tmp_path: Path) -> None:
    durable.replace_file(tmp_path / "CURRENT", b"1\n")
    durable.replace_file(tmp_path / "CURRENT", b"22\n")
    assert (tmp_path / "CURRENT").read_bytes() == b"22\n"
    assert names(tmp_path) == {"CURRENT"}


def test_a_reader_that_has_the_old_file_open_goes_on_reading_it(tmp_path: Path) -> None:
    durable.replace_file(tmp_path / "CURRENT", b"1\n")
    with (tmp_path / "CURRENT").open("rb") as old:
        durable.replace_file(tmp_path / "CURRENT", b"2\n")
        assert old.read() == b"1\n"


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").mkdir()
    with pytest.raises(OSError, match="CURRENT"):
        durable.replace_file(tmp_path / "CURRENT", b"1\n")
    assert names(tmp_path) == {"CURRENT"}


def test_a_new_file_never_overwrites(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "a", b"1")
    with pytest.raises(FileExistsError):
        durable.write_file(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [1],
        [1, 2],
        [3 * MIB],
        [2 * MIB],
        [128, 2 * MIB - 128],
        [128, 2 * MIB - 129, 1, 1],
        [128, 7 * MIB, 0, 5, MIB, MIB],
        [1] * 5 + [133 * MIB],
    ],
    ids=str,
)
def test_a_hashed_file_counts_and_hashes_what_it_wrote(tmp_path: Path, sizes: list[int]) -> None:
    pieces = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    with durable.HashedFile(tmp_path / "a") as file:
        for piece in pieces:
            file.write(piece)
    assert (tmp_path / "a").read_bytes() == b"".join(pieces)
    assert file.bytes == sum(map(len, pieces))
    assert file.sha256 == durable.sha256(tmp_path / "a")


def test_sha256_is_the_one_that_everybody_knows(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert durable.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# Locks and staging


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(50):
            with durable.locked(tmp_path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert (inside, most) == ([0], [1])


def test_a_lock_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), durable.locked(tmp_path):
        raise KeyError
    with durable.locked(tmp_path):
        pass


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    with durable.locked(tmp_path):
        assert names(tmp_path) == set()


def test_a_staging_folder_that_was_renamed_stays(tmp_path: Path) -> None:
    with durable.staging_folder(tmp_path) as staging:
        (staging / "a").write_text("a")
        staging.rename(tmp_path / "1")
    assert names(tmp_path) == {"1"}
    assert names(tmp_path / "1") == {"a"}


def test_a_staging_folder_that_was_not_renamed_is_removed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with durable.staging_folder(tmp_path) as staging:
        (staging / "a").write_text("a")
    assert names(tmp_path) == {"other"}


def test_a_parent_that_was_made_for_a_staging_folder_goes_with_it(tmp_path: Path) -> None:
    with durable.staging_folder(tmp_path / "words") as staging:
        assert staging.parent == tmp_path / "words"
    assert names(tmp_path) == set()


def test_sweep_leaves_what_is_in_use_and_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / ".staging-dead").mkdir()
    (tmp_path / ".staging-file").write_text("aside")
    (tmp_path / "1").mkdir()
    (tmp_path / ".hidden").mkdir()
    with durable.staging_folder(tmp_path) as staging:
        assert durable.sweep(tmp_path) == [".staging-dead", ".staging-file"]
        assert names(tmp_path) == {"1", ".hidden", staging.name}


def test_a_folder_put_aside_has_vanished_and_keeps_its_content_until_the_grace_is_over(tmp_path: Path) -> None:
    (tmp_path / "1" / "deep").mkdir(parents=True)
    (tmp_path / "1" / "deep" / "a").write_text("a")
    durable.put_aside(tmp_path / "1")
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith(".deleted-")
    durable.remove_put_aside(tmp_path, timedelta(hours=1))
    assert (aside / "deep" / "a").read_text() == "a"
    durable.remove_put_aside(tmp_path, timedelta(0))
    assert names(tmp_path) == set()


# A full disk


@contextmanager
def small_disk(folder: Path, pages: int) -> Iterator[Path]:
    """A file system of its own with room for so many pages; skips the test where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small tmpfs cannot be mounted: there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def fill(root: Path, free: int) -> None:
    """Leaves so many pages free."""
    room = shutil.disk_usage(root).free // PAGE
    with (root / "filler").open("wb") as filler:
        filler.write(bytes((room - free) * PAGE))


ROWS = np.ones((3000, 2), dtype=np.float32)  # 6 pages, then a manifest, a history and a CURRENT of one page each


@pytest.mark.parametrize("free", range(14))
def test_a_disk_that_fills_up_during_a_publish_leaves_the_store_as_it_was(tmp_path: Path, free: int) -> None:
    with small_disk(tmp_path / "disk", pages=64) as root:
        store = TableStore(root)
        publish(store, "words", ROWS)
        fill(root, free)
        before = contents(root)
        try:
            published = store.publish("words", imported(ROWS * 2), activate=True)
        except InsufficientStorage:
            assert contents(root) == before
            assert store.versions("words") == [1]
            assert not list(root.glob("words/.staging-*"))
        else:
            assert free >= 8
            assert store.active_version("words") == published.version == 2
            store.verify(published)


def test_a_disk_that_is_full_from_the_start_keeps_no_new_table(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", pages=4) as root:
        with pytest.raises(InsufficientStorage, match="full"):
            publish(TableStore(root), "words", ROWS)
        assert names(root) == set()


VERBS: dict[str, Callable[[TableStore], object]] = {
    "activate": lambda store: store.activate("words", 1),
    "rollback": lambda store: store.rollback("words"),
    "set_label": lambda store: store.set_label("words", "stable", 1),
    "delete_version": lambda store: store.delete_version("words", 3),
    "prune": lambda store: store.prune("words", 0),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_full_disk_says_so_and_changes_nothing(tmp_path: Path, verb: str) -> None:
    with small_disk(tmp_path / "disk", pages=64) as root:
        store = TableStore(root)
        for version in (1, 2, 3):
            publish(store, "words", KERAS_ROWS, activate=version < 3)
        fill(root, 0)
        before = contents(root)
        with pytest.raises(InsufficientStorage):
            VERBS[verb](store)
        assert contents(root) == before


def publish_under_a_limit(root: str) -> None:
    """Publishes where no file may be longer than 10,000 bytes; run in a process of its own."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        publish(TableStore(Path(root)), "words", ROWS)
    except OSError as error:
        sys.exit(0 if error.errno in (errno.EFBIG, errno.ENOSPC, None) else 1)
    sys.exit(2)


def test_a_file_that_may_not_grow_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    before = contents(tmp_path)
    code = f"from tests.test_durable import publish_under_a_limit; publish_under_a_limit({str(tmp_path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == before
    assert names(tmp_path / "words") == {"1", "CURRENT", "history.jsonl"}
