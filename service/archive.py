"""Several files in one tar, unpacked into a folder that nothing in it can leave. No links, no devices, no bombs."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from service.errors import ImportFormatError, RequestTooLarge

_MOST_MEMBERS: Final = 1_000
_LONGEST_NAME: Final = 1_000  # bytes
_LONGEST_PART: Final = 255  # bytes, of a name between slashes: no file system takes more
_MAGIC_AT, _MAGIC = 257, b"ustar"
_CHUNK: Final = 1 << 20
_END: Final = bytes(512)


class _Sparing(io.FileIO):
    """The tar as `tarfile` reads it, which takes names and attributes whole, however long they say they are."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= 2 * _CHUNK:
            raise tarfile.ReadError(f"a header has more than {2 * _CHUNK} bytes")
        return super().read(size) or b""


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
        with (
            _Sparing(path) as file,
            tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="strict") as tar,
        ):
            names = [_unpack_one(tar, member, name, into) for member in _files(tar, name, limit)]
            _check_end(tar, file, name)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ImportFormatError | RequestTooLarge):
            raise
        raise ImportFormatError(name, f"the tar cannot be read: {error}") from None
    if not names:
        raise ImportFormatError(name, "the tar has no file")
    return names


def _check_end(tar: tarfile.TarFile, file: io.FileIO, name: str) -> None:
    """`tarfile` takes a header that is cut or damaged for the end of the tar: files behind it would be left out."""
    file.seek(tar.offset)
    if file.read(len(_END)) != _END:
        raise ImportFormatError(name, "the tar ends without its end mark, or a header in it is damaged")


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
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        raise ImportFormatError(name, "the name leads out of the tar", where)
    if len(member.name.encode()) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise ImportFormatError(name, "the name is too long", where)
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
