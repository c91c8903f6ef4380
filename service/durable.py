"""Writing so that a crash at any instant leaves the old state or the new one. Knows no file of the store by name.

Every function returns only when what it did is on disk. The recipe is the usual one: write aside in the same
folder, fsync the file, rename, fsync the folder.
"""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STAGING_PREFIX: Final = ".staging-"
DELETED_PREFIX: Final = ".deleted-"
_BLOCK: Final = 2 << 20
"""Bytes of a huge page. What is written in pieces of this size, each from a multiple of it on, Linux keeps in huge
pages of its cache where the file system can (ext4 since 6.16, XFS, Btrfs). Whoever maps the file gets them too, and a
random row takes a fifth to a third less time (`make bench-large`)."""
_AT_ONCE: Final = 32 * _BLOCK  # the system takes at most 2 GB, and that is no whole number of blocks
_LOCK_POLL: Final = 0.002  # seconds


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Writes a new file; its name is durable once the caller has synced the folder."""
    with HashedFile(path) as file:
        file.write(content)


def replace_file(path: Path, content: bytes) -> None:
    """Gives `path` a new content in one step."""
    aside = path.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
    try:
        write_file(aside, content)
        aside.replace(path)
    except BaseException:  # cleaned up after, and raised on
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal; about 1.4 GB/s."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashedFile:
    """A new file for writing that counts and hashes what passes, and is on disk when it is closed.

    Whatever the sizes of what comes, the system is given whole blocks of `_BLOCK` bytes, each from a multiple of it on.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        """What is not a whole block yet."""
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Appends `data`, which must be a run of bytes."""
        rest = memoryview(data).cast("B")
        self._digest.update(rest)
        self.bytes += len(rest)
        if self._pending:
            missing = _BLOCK - len(self._pending)
            self._pending += rest[:missing]
            rest = rest[missing:]
            if len(self._pending) == _BLOCK:
                self._write_all(self._pending)
                self._pending = bytearray()
        whole = len(rest) - len(rest) % _BLOCK
        self._write_all(rest[:whole])
        self._pending += rest[whole:]

    def _write_all(self, data: bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest[:_AT_ONCE]) :]

    @property
    def sha256(self) -> str:
        """Of all that was written so far, hexadecimal."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._write_all(self._pending)
                os.fsync(self._file.fileno())


class LockedByAnother(Exception):
    """Another process has held a lock all the time."""


@contextmanager
def locked(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Holds the exclusive lock of `folder`; waits for it. It ends with the process, however that ends.

    Raises LockedByAnother after so many `seconds`.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if seconds is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            _lock_within(descriptor, seconds)
        yield
    finally:
        os.close(descriptor)


def _lock_within(descriptor: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise LockedByAnother
        time.sleep(_LOCK_POLL)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, to be renamed away by the caller; removed if it was not.

    It is locked as long as it is in use, so that `sweep` tells it from what a killed process left.
    """
    folder, lock = _new_locked_folder(parent)
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)
            with suppress(OSError):  # not empty: the parent is in use
                parent.rmdir()
        os.close(lock)


def _new_locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # swept in the instant before the lock: take another
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def put_aside(folder: Path) -> None:
    """Makes `folder` vanish in one step; `remove_put_aside` removes its content."""
    aside = folder.with_name(f"{DELETED_PREFIX}{int(time.time())}-{uuid.uuid4().hex}")
    folder.rename(aside)
    sync_folder(aside.parent)


def remove_put_aside(parent: Path, grace: timedelta) -> None:
    """Removes the content of what was put aside in `parent` longer than `grace` ago."""
    oldest = time.time() - grace.total_seconds()
    for path in parent.glob(f"{DELETED_PREFIX}*"):
        since = path.name.removeprefix(DELETED_PREFIX).partition("-")[0]
        if not since.isdecimal() or int(since) <= oldest:
            shutil.rmtree(path, ignore_errors=True)  # another process may be at it as well


def sweep(parent: Path) -> list[str]:
    """Removes what killed processes left in `parent`; returns the names. What is in use stays."""
    return [path.name for path in sorted(parent.glob(f"{STAGING_PREFIX}*")) if _sweep_one(path)]


def _sweep_one(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # its owner has just finished
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True
