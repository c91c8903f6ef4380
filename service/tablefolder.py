"""One table's folder: which version is in force, its labels, its history. The names of these files are here only.

Nothing here takes a lock: who writes holds the table's (`service/store.py`). What lies inside a version's folder is
`service/version.py`'s.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service import durable, history
from service.errors import Conflict, TableNotFound
from service.history import Event
from service.labels import dump_labels, parse_labels
from service.systemerrors import reason_of

TABLE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LABEL_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION_NAME: Final = re.compile(r"[1-9][0-9]{0,17}")

UNLOADED: Final = 0
"""What stands for the active version where a table was unloaded: none is, and none of before is served on."""
_NONE: Final = "none"
_CURRENT: Final = "CURRENT"
_HISTORY: Final = "history.jsonl"
_LABELS: Final = "labels.json"


def parse_version(text: str) -> int | None:
    """The version that `text` writes in its one canonical form; None for anything else."""
    return int(text) if _VERSION_NAME.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class TableFolder:
    """The folder of one table, which need not be there."""

    name: str
    path: Path

    # Reading

    def version_path(self, version: int) -> Path:
        """The folder of one of the versions, whether it is there or not."""
        return self.path / str(version)

    def present(self) -> list[int]:
        """The versions that are there, ascending. Raises OSError for a folder that cannot be read."""
        if not self.path.is_dir():
            return []
        with os.scandir(self.path) as found:
            return sorted(int(entry.name) for entry in found if parse_version(entry.name) and _is_folder(entry))

    def highest_name(self) -> int:
        """The highest number that is the name of anything here, be it a version or not; 0 for none."""
        if not self.path.is_dir():
            return 0
        return max((parse_version(name) or 0 for name in os.listdir(self.path)), default=0)  # noqa: PTH208  (names, not paths)

    def versions(self) -> list[int]:
        """Those that are there; raises TableNotFound where there is none."""
        found = self.present()
        if not found:
            raise TableNotFound(self.name)
        return found

    def may_have_versions(self) -> bool:
        """A folder that cannot be read is a table too: one that is unavailable, and that must not hide the others."""
        try:
            return bool(self.present())
        except OSError:
            return True

    def current(self) -> int | None:
        """What `CURRENT` names, UNLOADED where it says that there is none, None without one; raises Conflict."""
        text = self._read(_CURRENT)
        if text is None:
            return None
        if text == f"{_NONE}\n":
            return UNLOADED
        version = parse_version(text[:-1]) if text.endswith("\n") else None
        if version is None:
            raise Conflict(f"{_CURRENT} of table {self.name!r} holds {text[:40]!r} instead of a version")
        return version

    def labels(self) -> dict[str, int]:
        """Label to version; raises Conflict."""
        text = self._read(_LABELS)
        try:
            return {} if text is None else parse_labels(text)
        except ValueError as error:
            raise Conflict(f"{_LABELS} of table {self.name!r} is damaged: {error}") from None

    def events(self, active: int | None) -> list[Event]:
        """Every event that came into force, oldest first, if `active` is the version in force; raises Conflict."""
        text = self._read(_HISTORY)
        try:
            events = [] if text is None else history.parse(text)
        except ValueError as error:
            raise Conflict(f"{_HISTORY} of table {self.name!r} is damaged: {error}") from None
        return history.committed(events, active)

    def _read(self, name: str) -> str | None:
        try:
            return (self.path / name).read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Conflict(f"{name} of table {self.name!r} cannot be read: {reason_of(error)}") from None

    # Writing, in the table's lock

    def set_current(self, version: int) -> None:
        """Replaces `CURRENT`; the version may be UNLOADED."""
        durable.replace_file(self.path / _CURRENT, f"{version or _NONE}\n".encode())

    def set_labels(self, labels: Mapping[str, int]) -> None:
        """Replaces all labels."""
        durable.replace_file(self.path / _LABELS, dump_labels(dict(labels)).encode())

    def set_events(self, events: Sequence[Event]) -> None:
        """Replaces the history."""
        durable.replace_file(self.path / _HISTORY, history.dump(events).encode())


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
