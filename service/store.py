"""The versions on disk, and the verbs that change them: who locks what, and in which order things are written.

The layout and its guarantees are written down in `model_store/README.md`. The files of a table are
`service/tablefolder.py`'s, what lies inside one version folder is `service/version.py`'s.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from service import durable, history, switchfile
from service.errors import (
    Conflict,
    InvalidRequest,
    InvalidTable,
    LabelNotFound,
    TableNotFound,
    VersionNotFound,
)
from service.history import Activation, Deletion, Event, Unloading
from service.imported import ImportedTable
from service.manifest import Manifest
from service.systemerrors import disk_full
from service.tablefolder import LABEL_NAME, TABLE_NAME, UNLOADED, TableFolder, parse_version
from service.types import TableVersion
from service.version import VersionFolder

__all__ = ["UNLOADED", "Progress", "Pruned", "Switch", "TableStore", "parse_version"]

_PATIENCE: Final = 30.0  # seconds; a change takes a few milliseconds
_LONGEST_LOOK: Final = 10  # readings of all active versions; each finds that a switch came in between

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

    Reading takes no lock. Verbs that change a table hold that table's lock for the moment of the change. What is
    deleted vanishes at once; its files go `grace` later, for servers on other hosts that have them mapped. `sha256` is
    how files are hashed when versions are verified.
    """

    def __init__(
        self, root: Path, grace: timedelta = timedelta(0), sha256: Callable[[Path], str] = durable.sha256
    ) -> None:
        self.root = root
        self.grace = grace
        self._sha256 = sha256

    # What is there

    def tables(self) -> list[str]:
        """The names of all tables that have a version, sorted."""
        if not self.root.is_dir():
            return []
        folders = (path for path in self.root.iterdir() if TABLE_NAME.fullmatch(path.name))
        return sorted(path.name for path in folders if path.is_dir() and self._folder(path.name).may_have_versions())

    def versions(self, table: str) -> list[int]:
        """The versions of `table`, ascending; raises TableNotFound."""
        return self._folder(table).versions()

    def active_version(self, table: str) -> int | None:
        """The version in force, None before the first activation; raises TableNotFound, Conflict."""
        self.versions(table)
        return self._active(table)

    def active_versions(self, tables: Sequence[str]) -> dict[str, int | Conflict | None]:
        """The version in force of each of these tables, all at one instant; for one that cannot be read, the reason.

        UNLOADED stands for none by decision, None for a table that was never active.

        A switch of several tables is seen in all of them or in none. Locks nothing: it reads until two readings
        agree, so that it is right over a network file system as well. Raises Conflict where it cannot be told whether
        a switch of several tables is in force.
        """
        seen = self._look(tables)
        for _ in range(_LONGEST_LOOK):
            again = self._look(tables)
            if _plain(again) == _plain(seen):
                break
            seen = again
        return seen

    def labels(self, table: str) -> dict[str, int]:
        """Label to version; raises TableNotFound, Conflict."""
        self.versions(table)
        return self._folder(table).labels()

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

    def rollback_target(self, table: str) -> int:
        """The version that a rollback activates; raises TableNotFound, and Conflict where there is none."""
        versions = self.versions(table)
        previous = history.before(self._events(table))
        if previous is None:
            raise Conflict(f"table {table!r} has no earlier activation to go back to")
        if previous not in versions:
            raise Conflict(f"version {previous} of table {table!r}, active before, has been deleted")
        return previous

    def version(self, table: TableVersion) -> VersionFolder:
        """The folder of a version; raises TableNotFound, VersionNotFound."""
        if table.version not in self.versions(table.name):
            raise VersionNotFound(table.name, table.version)
        return VersionFolder(table, self._folder(table.name).version_path(table.version))

    def verify(self, table: TableVersion) -> Manifest:
        """Checks every byte of a version; raises VersionNotFound, and DamagedVersion that names the difference."""
        return self.version(table).verify(self._sha256)

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
        with self.staging(table) as staging, disk_full(f"nothing of table {table!r} was published"):
            VersionFolder(TableVersion(table, 0), staging).write(imported, progress)
            durable.sync_folder(self.root)
            with self._locked(table):
                return self._place(table, staging, activate, by)

    @contextmanager
    def staging(self, table: str) -> Iterator[Path]:
        """A folder of the caller's in the store for what may become a version of `table`; gone when this ends.

        Raises InvalidTable for a name that no table can have, InsufficientStorage.
        """
        _check_name(table, TABLE_NAME, "table")
        folder = self._folder(table).path
        if folder.exists() and not folder.is_dir():
            raise InvalidTable(f"{table!r} cannot be a table: the store has a file of this name")
        with ExitStack() as stack:
            with disk_full(f"nothing of table {table!r} was published"):
                _make_root(self.root)
                staging = stack.enter_context(durable.staging_folder(folder))
            yield staging

    def activate(self, table: str, version: int, by: str = "activate") -> Switch:
        """Verifies a version and makes it the one in force.

        Raises TableNotFound, VersionNotFound, and DamagedVersion, after which the old one is in force.
        """
        self.verify(TableVersion(table, version))
        return self.switch({table: version}, by)[0]

    def unload(self, table: str, by: str = "unload") -> int:
        """Has no version in force until the next activation; the one that was. Raises TableNotFound, Conflict."""
        self.versions(table)
        with self._changing(table):
            active = self._active(table)
            if active is None:
                raise Conflict(f"table {table!r} has no active version")
            self._add_event(table, Unloading(unloaded=active, time=datetime.now(UTC), by=by))
            self._folder(table).set_current(UNLOADED)
            return active

    def rollback(self, table: str, by: str = "rollback") -> Switch:
        """Activates the version that was active before; twice swaps back. Raises Conflict where there is none."""
        while True:
            target = self.rollback_target(table)
            self.verify(TableVersion(table, target))
            with self._changing(table):
                # Another activation may have come in between; verifying is too slow to be done in the lock.
                if self.rollback_target(table) == target:
                    return self._commit({table: target}, by)[0]

    def switch(self, targets: Mapping[str, int], by: str, *, back: bool = False) -> list[Switch]:
        """Makes versions that the caller has verified the ones in force, in all of these tables or in none.

        Only if each is what its table would be rolled `back` to, where that is said. Raises TableNotFound,
        VersionNotFound, Conflict, InsufficientStorage.
        """
        for table in targets:
            self.versions(table)
        with self._changing(*targets):
            for table, version in targets.items():
                self.version(TableVersion(table, version))  # it may have been deleted while it was verified
                if back and self.rollback_target(table) != version:
                    raise Conflict(f"another version of table {table!r} was activated in the meantime")
            return self._commit(targets, by)

    def set_label(self, table: str, label: str, version: int) -> None:
        """Makes `label` name a version that verifies; raises InvalidTable, VersionNotFound, DamagedVersion."""
        _check_name(label, LABEL_NAME, "label")
        self.verify(TableVersion(table, version))
        with self._changing(table):
            self.version(TableVersion(table, version))
            folder = self._folder(table)
            folder.set_labels({**folder.labels(), label: version})

    def delete_label(self, table: str, label: str) -> None:
        """Forgets a label; raises TableNotFound, LabelNotFound."""
        self.versions(table)
        with self._changing(table):
            self.labelled(table, label)
            folder = self._folder(table)
            folder.set_labels({name: n for name, n in folder.labels().items() if name != label})

    def delete_version(self, table: str, version: int, by: str = "delete") -> None:
        """Removes a version; raises VersionNotFound, and Conflict while it is active or labelled."""
        chosen = TableVersion(table, version)
        self.version(chosen)
        with self._changing(table):
            self._delete(chosen, by)
        self.remove_deleted(table)

    def prune(self, table: str, keep: int, older_than: timedelta = timedelta(0), by: str = "prune") -> Pruned:
        """Removes versions beyond the newest `keep` that were made longer ago than `older_than`.

        Versions that are active, labelled, or what a rollback would activate always stay. What killed
        processes left is removed too. Raises TableNotFound.
        """
        folder = self._folder(table)
        if not folder.path.is_dir():
            raise TableNotFound(table)
        if keep < 0:
            raise InvalidRequest("keep must not be negative", field="keep")
        self.remove_deleted(table)  # first: on a full disk it makes the room that deleting needs
        with self._changing(table):
            swept = [*durable.sweep(folder.path), *self._sweep_root()]
            removed = self._prunable(table, keep, older_than) if folder.present() else []
            for version in removed:
                self._delete(version, by)
        self.remove_deleted(table)
        return Pruned(tuple(removed), tuple(swept))

    def remove_deleted(self, table: str) -> None:
        """Gives back the disk space of versions whose deletion is longer ago than `grace`."""
        durable.remove_put_aside(self._folder(table).path, self.grace)

    def remove_all_deleted(self) -> None:
        """The same for every table, also those of which every version was deleted."""
        if self.root.is_dir():
            for path in self.root.iterdir():
                if TABLE_NAME.fullmatch(path.name):
                    self.remove_deleted(path.name)

    def sweep(self) -> None:
        """Removes what killed processes left of their publishes and changes, in every table."""
        self.remove_all_deleted()
        for table in self.tables():
            with self._changing(table):
                durable.sweep(self._folder(table).path)

    # Inside a lock

    @contextmanager
    def _changing(self, *tables: str) -> Iterator[None]:
        """`_locked`, with what it means if the disk is full."""
        names = ", ".join(map(repr, sorted(tables)))
        as_it_was = f"table {names} is as it was" if len(tables) == 1 else f"tables {names} are as they were"
        with disk_full(as_it_was), self._locked(*tables):
            yield

    @contextmanager
    def _locked(self, *tables: str) -> Iterator[None]:
        """Holds the locks of these tables, with no switch of dead processes left unfinished.

        A switch of several tables is written in the locks of all of them, and in the store's. So whoever finds one in
        the lock of a table that it names knows that its writer is dead; and nobody changes a table that it names
        without having been here.
        """
        with ExitStack() as locks:
            for table in sorted(set(tables)):  # in one order, so that nobody waits in a circle
                locks.enter_context(self._locked_one(table))
            if switchfile.unfinished(self.root):
                with durable.locked(self.root):
                    self._finish_switch()
            yield

    @contextmanager
    def _locked_one(self, table: str) -> Iterator[None]:
        try:
            with durable.locked(self._folder(table).path, _PATIENCE):
                yield
        except durable.LockedByAnother:
            raise Conflict(f"another process has been changing table {table!r} for {_PATIENCE:g} s") from None

    def _finish_switch(self) -> None:
        """In the store's lock."""
        pending = switchfile.unfinished(self.root)
        if pending:
            durable.sync_folder(self.root)  # its writer may have died before; a loss of power must not leave a half
        for table, version in pending.items():
            folder = self._folder(table)
            if folder.current() != version and folder.path.is_dir():
                folder.set_current(version)
        if pending:
            switchfile.end(self.root)

    def _sweep_root(self) -> list[str]:
        """What died in the middle of beginning a switch."""
        with durable.locked(self.root):
            return durable.sweep(self.root)

    def _place(self, table: str, staging: Path, activate: bool, by: str) -> TableVersion:
        """Gives what was written its number; takes it back if it cannot be activated as well."""
        version = TableVersion(table, self._next_version(table))
        place = self._folder(table).version_path(version.version)
        staging.rename(place)
        try:
            durable.sync_folder(place.parent)
            if activate:
                self._commit({table: version.version}, by)
        except BaseException:  # cleaned up after, and raised on
            if not self._is_active(version):
                place.rename(staging)
            raise
        return version

    def _commit(self, targets: Mapping[str, int], by: str) -> list[Switch]:
        """The histories first, then what is in force: a crash between leaves lines that `history` does not show."""
        switches = [Switch(table, self._active(table), version) for table, version in targets.items()]
        changed = [switch for switch in switches if switch.previous_version != switch.active_version]
        now = datetime.now(UTC)
        for switch in changed:
            self._add_event(
                switch.table,
                Activation(version=switch.active_version, previous=switch.previous_version, time=now, by=by),
            )
        if len(changed) == 1:
            self._folder(changed[0].table).set_current(changed[0].active_version)
        elif changed:
            with durable.locked(self.root):
                self._finish_switch()  # of others, that died
                switchfile.begin(self.root, {switch.table: switch.active_version for switch in changed})
                with suppress(OSError):  # it is in force; the next verb finishes it
                    self._finish_switch()
        return switches

    def _delete(self, chosen: TableVersion, by: str) -> None:
        if chosen.version == self._active(chosen.name):
            raise Conflict(f"{chosen} is active")
        labels = self._folder(chosen.name).labels()
        names = [label for label, version in labels.items() if version == chosen.version]
        if names:
            raise Conflict(f"{chosen} is labelled {', '.join(names)}")
        folder = self.version(chosen).path
        self._add_event(chosen.name, Deletion(deleted=chosen.version, time=datetime.now(UTC), by=by))
        durable.put_aside(folder)

    def _prunable(self, table: str, keep: int, older_than: timedelta) -> list[TableVersion]:
        versions = self.versions(table)
        newest = versions[max(0, len(versions) - keep) :]
        events = self._events(table)
        in_use = (self._active(table), history.latest(events), history.before(events))
        kept = {*newest, *self._folder(table).labels().values(), *in_use}
        candidates = [TableVersion(table, version) for version in versions if version not in kept]
        return [chosen for chosen in candidates if self.version(chosen).age() >= older_than]

    def _next_version(self, table: str) -> int:
        # Also above deleted versions: whoever remembers a number must never get other rows for it.
        return max(self._folder(table).highest_name(), history.highest(self._events(table))) + 1

    def _add_event(self, table: str, event: Event) -> None:
        self._folder(table).set_events([*self._events(table), event])

    # Reading one table

    def _look(self, tables: Iterable[str]) -> dict[str, int | Conflict | None]:
        # In this order: a switch that ends between the two has changed `CURRENT` before.
        pending = switchfile.unfinished(self.root)
        found: dict[str, int | Conflict | None] = {}
        for table in tables:
            try:
                found[table] = pending.get(table) or self._folder(table).current()
            except Conflict as error:
                found[table] = error
        return found

    def _active(self, table: str) -> int | None:
        active = self._look([table])[table]
        if isinstance(active, Conflict):
            raise active
        return active or None

    def _is_active(self, version: TableVersion) -> bool:
        try:
            return self._active(version.name) == version.version
        except Conflict:
            return False

    def _events(self, table: str) -> list[Event]:
        return self._folder(table).events(self._active(table))

    def _folder(self, table: str) -> TableFolder:
        if not TABLE_NAME.fullmatch(table):  # also keeps names from climbing out of the store
            raise TableNotFound(table)
        return TableFolder(table, self.root / table)


def _plain(found: Mapping[str, int | Conflict | None]) -> dict[str, int | str | None]:
    return {table: str(version) if isinstance(version, Conflict) else version for table, version in found.items()}


def _check_name(name: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(name):
        raise InvalidTable(f"{name!r} is not a {what} name: it must match {pattern.pattern}")


def _make_root(root: Path) -> None:
    if not root.exists():
        root.mkdir(parents=True, exist_ok=True)
        durable.sync_folder(root.absolute().parent)
