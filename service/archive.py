"""Several files in one tar, unpacked into a folder that nothing in it can leave. No links, no devices, no bombs."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from service.errors import ImportFormatError, RequestTooLarge

_MOST_MEMBERS: Final = 1_000
_LONGEST_NAME: Final = 1_000  # characters
_MAGIC_AT, _MAGIC = 257, b"ustar"
_CHUNK: Final = 1 << 20


def is_tar(path: Path) -> bool:
    """Whether the file has the magic number of POSIX or GNU tar."""
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


def unpack(path: Path, name: str, into: Path, limit: int) -> list[PurePosixPath]:
    """Unpacks the tar at `path` into the folder `into`, `limit` bytes at most; the names of its files.

    Raises ImportFormatError that names the tar by `name` and the member that is not taken, RequestTooLarge.
    """
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="strict") as tar:
            return [_unpack_one(tar, member, name, into) for member in _files(tar, name, limit)]
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
        if isinstance(error, ImportFormatError | RequestTooLarge):
            raise
        raise ImportFormatError(name, f"the tar cannot be read: {error}") from None


def _files(tar: tarfile.TarFile, name: str, limit: int) -> Iterator[tarfile.TarInfo]:
    total = 0
    for number, member in enumerate(tar, 1):
        if number > _MOST_MEMBERS:
            raise ImportFormatError(name, f"the tar has more than {_MOST_MEMBERS} members")
        _check_member(member, name)
        total += member.size
        if total > limit:
            raise RequestTooLarge("the files in the tar in bytes", "EMBEDDING_MAX_UPLOAD_BYTES", limit)
        if member.isreg():
            yield member


def _check_member(member: tarfile.TarInfo, name: str) -> None:
    where = f"member {member.name[:100]!a}"
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ImportFormatError(name, f"it is a {_kind(member)}; only plain files and folders are taken", where)
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or "\0" in member.name or len(member.name) > _LONGEST_NAME:
        raise ImportFormatError(name, "the name leads out of the tar", where)
    if member.isreg() and not [part for part in parts if part != "."]:
        raise ImportFormatError(name, "the file has no name", where)


def _kind(member: tarfile.TarInfo) -> str:
    kinds = {"symbolic link": member.issym(), "hard link": member.islnk(), "sparse file": member.issparse()}
    return next((kind for kind, fits in kinds.items() if fits), "device or another special file")


def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, into: Path) -> PurePosixPath:
    target = PurePosixPath(*(part for part in PurePosixPath(member.name).parts if part != "."))
    place = into.joinpath(*target.parts)
    source = tar.extractfile(member)
    assert source is not None  # noqa: S101  (it is a plain file)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
            found = file.tell()
    except (FileExistsError, NotADirectoryError):
        reason = "another member has the same name"
        raise ImportFormatError(name, reason, f"member {member.name[:100]!a}") from None
    if found != member.size:
        raise ImportFormatError(name, "the tar ends in the middle of it", f"member {member.name[:100]!a}")
    return target
