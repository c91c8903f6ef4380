"""The versions on disk, and the verbs that change them. The names of a table's files are here and nowhere else.

The layout and its guarantees are written down in `model_store/README.md`. What lies inside one version folder is
`service/version.py`'s.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from service import durable, history
from service.errors import (
    Conflict,
    InsufficientStorage,
    InvalidRequest,
    InvalidTable,
    LabelNotFound,
    TableNotFound,
    VersionNotFound,
)
from service.history import Activation, Deletion, Event
from service.imported import ImportedTable
from service.labels import dump_labels, parse_labels
from service.manifest import Manifest
from service.types import TableVersion
from service.version import VersionFolder

TABLE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LABEL_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION_NAME: Final = re.compile(r"[1-9][0-9]{0,17}")

_CURRENT: Final = "CURRENT"
_HISTORY: Final = "history.jsonl"
_LABELS: Final = "labels.json"

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of rows that were just written."""


@dataclass(frozen=True, slots=True)
class Switch:
    """What an activation did: equal versions mean that it was active already."""

    table: str
    previous_version: int | None
    active_version: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed: versions, and what killed processes had left."""

    versions: tuple[TableVersion, ...]
    staging: tuple[str, ...]


class TableStore:
    """Tables and their versions below one folder. Several processes may use it at once.

    Reading takes no lock. Verbs that change a table hold that table's lock for the moment of the change.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # What is there

    def tables(self) -> list[str]:
        """The names of all tables that have a version, sorted."""
        if not self.root.is_dir():
            return []
        folders = (path for path in self.root.iterdir() if TABLE_NAME.fullmatch(path.name))
        return sorted(path.name for path in folders if path.is_dir() and _may_have_versions(path))

    def versions(self, table: str) -> list[int]:
        """The versions of `table`, ascending; raises TableNotFound."""
        found = _versions_in(self._folder(table))
        if not found:
            raise TableNotFound(table)
        return found

    def active_version(self, table: str) -> int | None:
        """The version in force, None before the first activation; raises TableNotFound, Conflict."""
        self.versions(table)
        return self._active(table)

    def labels(self, table: str) -> dict[str, int]:
        """Label to version; raises TableNotFound, Conflict."""
        self.versions(table)
        return self._labels(table)

    def labelled(self, table: str, label: str) -> TableVersion:
        """The version that `label` names; raises TableNotFound, LabelNotFound."""
        labels = self.labels(table)
        if label not in labels:
            raise LabelNotFound(table, label)
        return TableVersion(table, labels[label])

    def history(self, table: str) -> list[Event]:
        """Every activation that came into force and every deletion, oldest first; raises TableNotFound, Conflict.

        A table of which every version was deleted still has one.
        """
        events = self._events(table)
        if not events:
            self.versions(table)
        return events

    def version(self, table: TableVersion) -> VersionFolder:
        """The folder of a version; raises TableNotFound, VersionNotFound."""
        if table.version not in self.versions(table.name):
            raise VersionNotFound(table.name, table.version)
        return VersionFolder(table, self._folder(table.name) / str(table.version))

    # Verbs

    def publish(
        self,
        table: str,
        imported: ImportedTable,
        *,
        activate: bool = False,
        by: str = "publish",
        progress: Progress = lambda _: None,
    ) -> TableVersion:
        """Writes a new version and, if asked to, activates it. It is there whole or not at all.

        Raises InvalidTable for a name, rows or a vocabulary that cannot be served, InsufficientStorage, and
        whatever the blocks of `imported` raise.
        """
        _check_name(table, TABLE_NAME, "table")
        folder = self._folder(table)
        if folder.exists() and not folder.is_dir():
            raise InvalidTable(f"{table!r} cannot be a table: the store has a file of this name")
        with _disk_errors(f"nothing of table {table!r} was published"):
            _make_root(self.root)
            with durable.staging_folder(folder) as staging:
                VersionFolder(TableVersion(table, 0), staging).write(imported, progress)
                durable.sync_folder(self.root)
                with durable.locked(folder):
                    return self._place(table, staging, activate, by)

    def activate(self, table: str, version: int, by: str = "activate") -> Switch:
        """Verifies a version and makes it the one in force.

        Raises TableNotFound, VersionNotFound, and DamagedVersion, after which the old one is in force.
        """
        chosen = TableVersion(table, version)
        self.verify(chosen)
        with self._changing(table):
            self.version(chosen)  # again: it may have been deleted while it was verified
            return self._commit(chosen, by)

    def rollback(self, table: str, by: str = "rollback") -> Switch:
        """Activates the version that was active before; twice swaps back. Raises Conflict where there is none."""
        while True:
            chosen = TableVersion(table, self._rollback_target(table))
            self.verify(chosen)
            with self._changing(table):
                # Another activation may have come in between; verifying is too slow to be done in the lock.
                if self._rollback_target(table) == chosen.version:
                    return self._commit(chosen, by)

    def set_label(self, table: str, label: str, version: int) -> None:
        """Makes `label` name a version that verifies; raises InvalidTable, VersionNotFound, DamagedVersion."""
        _check_name(label, LABEL_NAME, "label")
        self.verify(TableVersion(table, version))
        with self._changing(table):
            self.version(TableVersion(table, version))
            self._write_labels(table, {**self._labels(table), label: version})

    def delete_label(self, table: str, label: str) -> None:
        """Forgets a label; raises TableNotFound, LabelNotFound."""
        self.versions(table)
        with self._changing(table):
            self.labelled(table, label)
            self._write_labels(table, {name: n for name, n in self._labels(table).items() if name != label})

    def delete_version(self, table: str, version: int, by: str = "delete") -> None:
        """Removes a version; raises VersionNotFound, and Conflict while it is active or labelled."""
        chosen = TableVersion(table, version)
        self.version(chosen)
        with self._changing(table):
            self._delete(chosen, by)

    def prune(self, table: str, keep: int, older_than: timedelta = timedelta(0), by: str = "prune") -> Pruned:
        """Removes versions beyond the newest `keep` that were made longer ago than `older_than`.

        Versions that are active, labelled, or what a rollback would activate always stay. What killed
        processes left is removed too. Raises TableNotFound.
        """
        folder = self._folder(table)
        if not folder.is_dir():
            raise TableNotFound(table)
        if keep < 0:
            raise InvalidRequest("keep must not be negative", field="keep")
        with self._changing(table):
            swept = durable.sweep(folder)  # first: on a full disk it makes the room that deleting needs
            removed = self._prunable(table, keep, older_than) if _versions_in(folder) else []
            for version in removed:
                self._delete(version, by)
            return Pruned(tuple(removed), tuple(swept))

    def verify(self, table: TableVersion) -> Manifest:
        """Checks every byte of a version; raises VersionNotFound, and DamagedVersion that names the difference."""
        return self.version(table).verify()

    # Inside a lock

    @contextmanager
    def _changing(self, table: str) -> Iterator[None]:
        with _disk_errors(f"table {table!r} is as it was"), durable.locked(self._folder(table)):
            yield

    def _place(self, table: str, staging: Path, activate: bool, by: str) -> TableVersion:
        """Gives what was written its number; takes it back if it cannot be activated as well."""
        version = TableVersion(table, self._next_version(table))
        place = self._folder(table) / str(version.version)
        staging.rename(place)
        try:
            durable.sync_folder(place.parent)
            if activate:
                self._commit(version, by)
        except BaseException:  # cleaned up after, and raised on
            if not self._is_active(version):
                place.rename(staging)
            raise
        return version

    def _commit(self, chosen: TableVersion, by: str) -> Switch:
        """The history first, then `CURRENT`: a crash between leaves a line that `history` does not show."""
        table = chosen.name
        previous = self._active(table)
        if previous != chosen.version:
            now = datetime.now(UTC)
            self._write_history(table, Activation(version=chosen.version, previous=previous, time=now, by=by))
            durable.replace_file(self._folder(table) / _CURRENT, f"{chosen.version}\n".encode())
        return Switch(table, previous, chosen.version)

    def _delete(self, chosen: TableVersion, by: str) -> None:
        if chosen.version == self._active(chosen.name):
            raise Conflict(f"{chosen} is active")
        names = [label for label, version in self._labels(chosen.name).items() if version == chosen.version]
        if names:
            raise Conflict(f"{chosen} is labelled {', '.join(names)}")
        folder = self.version(chosen).path
        self._write_history(chosen.name, Deletion(deleted=chosen.version, time=datetime.now(UTC), by=by))
        durable.remove_folder(folder)

    def _prunable(self, table: str, keep: int, older_than: timedelta) -> list[TableVersion]:
        versions = self.versions(table)
        newest = versions[max(0, len(versions) - keep) :]
        in_use = (self._active(table), history.before(self._events(table)))
        kept = {*newest, *self._labels(table).values(), *in_use}
        candidates = [TableVersion(table, version) for version in versions if version not in kept]
        return [chosen for chosen in candidates if self.version(chosen).age() >= older_than]

    def _rollback_target(self, table: str) -> int:
        versions = self.versions(table)
        previous = history.before(self._events(table))
        if previous is None:
            raise Conflict(f"table {table!r} has no earlier activation to go back to")
        if previous not in versions:
            raise Conflict(f"version {previous} of table {table!r}, active before, has been deleted")
        return previous

    def _next_version(self, table: str) -> int:
        # Also above deleted versions: whoever remembers a number must never get other rows for it.
        present = _versions_in(self._folder(table))
        return max(present[-1] if present else 0, history.highest(self._events(table))) + 1

    def _write_history(self, table: str, event: Event) -> None:
        content = history.dump([*self._events(table), event])
        durable.replace_file(self._folder(table) / _HISTORY, content.encode())

    def _write_labels(self, table: str, labels: dict[str, int]) -> None:
        durable.replace_file(self._folder(table) / _LABELS, dump_labels(labels).encode())

    # Files

    def _active(self, table: str) -> int | None:
        text = self._read(table, _CURRENT)
        if text is None:
            return None
        if not text.endswith("\n") or not _VERSION_NAME.fullmatch(text[:-1]):
            raise Conflict(f"{_CURRENT} of table {table!r} holds {text[:40]!r} instead of a version")
        return int(text)

    def _is_active(self, version: TableVersion) -> bool:
        try:
            return self._active(version.name) == version.version
        except Conflict:
            return False

    def _labels(self, table: str) -> dict[str, int]:
        text = self._read(table, _LABELS)
        try:
            return {} if text is None else parse_labels(text)
        except ValueError as error:
            raise Conflict(f"{_LABELS} of table {table!r} is damaged: {error}") from None

    def _events(self, table: str) -> list[Event]:
        text = self._read(table, _HISTORY)
        try:
            events = [] if text is None else history.parse(text)
        except ValueError as error:
            raise Conflict(f"{_HISTORY} of table {table!r} is damaged: {error}") from None
        return history.committed(events, self._active(table))

    def _folder(self, table: str) -> Path:
        if not TABLE_NAME.fullmatch(table):  # also keeps names from climbing out of the store
            raise TableNotFound(table)
        return self.root / table

    def _read(self, table: str, name: str) -> str | None:
        folder = self._folder(table)
        try:
            return (folder / name).read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Conflict(f"{name} of table {table!r} cannot be read: {error}") from None


def parse_version(text: str) -> int | None:
    """The version that `text` writes in its one canonical form; None for anything else."""
    return int(text) if _VERSION_NAME.fullmatch(text) else None


def _versions_in(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(int(entry.name) for entry in found if _VERSION_NAME.fullmatch(entry.name) and entry.is_dir())


def _may_have_versions(folder: Path) -> bool:
    """A folder that cannot be read is a table too: one that is unavailable, and that must not hide the others."""
    try:
        return bool(_versions_in(folder))
    except OSError:
        return True


def _check_name(name: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(name):
        raise InvalidTable(f"{name!r} is not a {what} name: it must match {pattern.pattern}")


def _make_root(root: Path) -> None:
    if not root.exists():
        root.mkdir(parents=True, exist_ok=True)
        durable.sync_folder(root.absolute().parent)


@contextmanager
def _disk_errors(state: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InsufficientStorage(f"the disk is full; {state}") from error
