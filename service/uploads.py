"""What somebody sends to become a version: received into the store's staging, and the table found in it. No HTTP."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from service.archive import is_tar, unpack
from service.errors import Forbidden, ImportFormatError, InvalidRequest, RequestTooLarge
from service.importers import FOLDERS
from service.importers.detection import detect

HASHES: Final[Mapping[str, str]] = {"sha-256": "sha256", "sha-512": "sha512"}
"""The algorithms of `Content-Digest` (RFC 9530) that are verified, by the names that hashlib has for them."""

_COMPANIONS: Final = (
    *(f"{stem}.txt" for stem in ("vocabulary", "vocab", "words", "tokens")),
    *(f"{stem}.json" for stem in ("vocabulary", "vocab", "word_index", "tokenizer")),
)
"""Files of these names have the tokens of a table beside them."""
_Error = TypeVar("_Error", bound=ImportFormatError)


class Received:
    """A file of at most `limit` bytes that is received into the folder `staging`, and hashed on the way."""

    def __init__(self, staging: Path, name: str, limit: int, hashes: Mapping[str, bytes]) -> None:
        self.path = staging / "received"
        self.name = name
        self._limit = limit
        self._expected = hashes
        self._digests: dict[str, Any] = {algorithm: hashlib.new(HASHES[algorithm]) for algorithm in hashes}
        self._file = self.path.open("xb", buffering=0)
        self._bytes = 0

    def write(self, piece: bytes) -> None:
        """Appends a piece; raises RequestTooLarge, and OSError where the disk is full."""
        self._bytes += len(piece)
        if self._bytes > self._limit:
            raise too_large(self._limit)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]
        for digest in self._digests.values():
            digest.update(piece)

    def finish(self) -> None:
        """Closes the file; raises InvalidRequest where it is not what its digest promises, or nothing."""
        self._file.close()
        if not self._bytes:
            raise InvalidRequest("the body is empty; send a table file, a tar of several, or a JSON object with source")
        for algorithm, expected in self._expected.items():
            check_digest(algorithm, expected, self._digests[algorithm].digest())

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        self._file.close()


def check_digest(algorithm: str, expected: bytes, found: bytes) -> None:
    """Raises InvalidRequest where a body does not hash to what its sender promises."""
    if found != expected:
        raise InvalidRequest(
            f"Content-Digest promises {algorithm} {expected.hex()}, the body has {found.hex()}", field="Content-Digest"
        )


def too_large(limit: int, found: int | None = None) -> RequestTooLarge:
    """The error of an upload beyond the limit."""
    return RequestTooLarge("the upload in bytes", "EMBEDDING_MAX_UPLOAD_BYTES", limit, found)


class Files:
    """Where an upload's table and the files beside it are: a folder, and the names in it that may be used.

    Errors name files by what the client called them, never by where they are on this machine.
    """

    def __init__(self, folder: Path, names: list[PurePosixPath], tar: str | None = None) -> None:
        self.folder = folder
        self._names = names
        self._tar = tar

    @classmethod
    def of(cls, received: Received, limit: int) -> "Files":
        """The files of an upload: those of a tar, or the one that was sent."""
        folder = received.path.parent / "files"
        folder.mkdir()
        if is_tar(received.path):
            names = unpack(received.path, received.name, folder, limit)
            received.path.unlink()  # or it would be there three times: in the tar, unpacked, as rows
            return cls(folder, names, received.name)
        place = folder / received.name
        received.path.rename(place)
        return cls(folder, [PurePosixPath(received.name)])

    def beside(self, name: str | None, field: str) -> Path | None:
        """The file of this name; raises InvalidRequest that lists those there are."""
        if name is None:
            return None
        if PurePosixPath(name) not in self._names:
            raise InvalidRequest(f"there is no {name!r}{self._listed()}", field=field)
        return self.folder / name

    def table(self, name: str | None, format_: str | None, used: list[Path | None]) -> Path:
        """The file or the model's folder that has the table; raises InvalidRequest where it is not clear which."""
        if self._tar is None or (name is None and len(self._names) == 1):
            return self.folder / self._names[0]
        if name is not None:
            chosen = PurePosixPath(name)
            if chosen not in self._names and not any(chosen in one.parents for one in self._names):
                raise InvalidRequest(f"there is no {name!r}{self._listed()}", field="file")
            return self.folder / chosen
        top = self._top()
        if format_ in FOLDERS or (format_ is None and _is_model(top)):
            return top
        return self._only_table(used)

    def companion(self, table: Path) -> Path | None:
        """The file with the tokens of the table, where its name says so and no other does."""
        beside = [table.with_name(name) for name in _COMPANIONS if table.with_name(name).is_file()]
        return beside[0] if table.is_file() and len(beside) == 1 and beside[0] != table else None

    def _top(self) -> Path:
        """The folder that has all files, below which there is no other that has."""
        return self.folder / os.path.commonpath([name.parent for name in self._names])

    def _only_table(self, used: list[Path | None]) -> Path:
        files = [self.folder / name for name in self._names]
        left = [path for path in files if path not in used and path.name not in _COMPANIONS]
        indices = [path for path in left if path.name.endswith(".index.json")]
        if len(indices) == 1:
            return indices[0]
        if len(left) != 1:
            raise InvalidRequest(f"which file has the table? say ?file={self._listed()}", field="file")
        return left[0]

    def _listed(self) -> str:
        return f" in {self._tar or 'the upload'}; it has {', '.join(map(str, sorted(self._names)[:20]))}"


def _is_model(folder: Path) -> bool:
    try:
        return detect(folder) in FOLDERS
    except ImportFormatError:
        return False


def allowed_path(folder: Path | None, name: str) -> Path:
    """What `name`, relative or absolute, names below the folder that the operator has allowed.

    Raises Forbidden for everything else, also where a link leads out of the folder.
    """
    if folder is None:
        raise Forbidden("no folder is allowed as a source; set EMBEDDING_IMPORT_FOLDER and start again")
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        path.exists()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError):
        raise Forbidden(f"{name[:200]!r} is not below the folder that is allowed") from None
    if not path.is_relative_to(root) or path == root:
        raise Forbidden(f"{name[:200]!r} is not below the folder that is allowed")
    return path
