"""One version folder: writing it, checking it, reading it. The names of a version's files are here and nowhere else.

A folder is written once, while it is staging, and never changed after it has got its number.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from service import durable, npyfile
from service.errors import DamagedVersion, InvalidTable
from service.imported import ImportedTable, RowBlock, first_non_finite
from service.manifest import FileRecord, Manifest, describe
from service.types import TableVersion
from service.vocabulary import describe_duplicates

_MANIFEST: Final = "manifest.json"
_VECTORS: Final = "vectors.npy"
_VOCABULARY: Final = "vocabulary.txt"
_KNOWN_FILES: Final = frozenset({_VECTORS, _VOCABULARY})


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """The folder of one version, whether it is being written or has been published."""

    table: TableVersion
    path: Path

    @property
    def vectors(self) -> Path:
        """The file that backends open."""
        return self.path / _VECTORS

    def identity(self) -> tuple[int, int]:
        """Device and inode of the folder: a folder that is put in its place has others. Raises OSError."""
        found = self.path.stat()
        return found.st_dev, found.st_ino

    def write(self, imported: ImportedTable, progress: Callable[[int], None]) -> Manifest:
        """Writes all files of a new version and reads them back; raises InvalidTable."""
        _check_shape(imported)
        _new_manifest(imported, {})  # what it would refuse is found before the rows are written
        files, tokens = _write_rows(self.path, imported, progress)
        if tokens:
            files[_VOCABULARY] = _write_vocabulary(self.path / _VOCABULARY, tokens)
        durable.write_file(self.path / _MANIFEST, _new_manifest(imported, files))
        durable.sync_folder(self.path)
        return self.verify()

    def manifest(self) -> Manifest:
        """What the version says of itself; raises DamagedVersion."""
        try:
            manifest = Manifest.from_json((self.path / _MANIFEST).read_bytes())
        except FileNotFoundError:
            raise DamagedVersion(self.table, f"{_MANIFEST} is missing") from None
        except (OSError, ValueError) as error:
            raise DamagedVersion(self.table, f"{_MANIFEST}: {_reason(error)}") from None
        if _VECTORS not in manifest.files:
            raise DamagedVersion(self.table, f"{_MANIFEST} does not list {_VECTORS}")
        unknown = sorted(manifest.files.keys() - _KNOWN_FILES)
        if unknown:
            raise DamagedVersion(self.table, f"{_MANIFEST} lists {', '.join(map(repr, unknown))}")
        return manifest

    def check(self) -> Manifest:
        """Checks all that can be checked without reading every byte: names, sizes, the header of the rows."""
        manifest = self.manifest()
        for name, record in manifest.files.items():
            self._check_size(name, record)
        try:
            _, rows = npyfile.map_rows(self.vectors)
        except (OSError, ValueError) as error:
            raise DamagedVersion(self.table, f"{_VECTORS}: {_reason(error)}") from None
        if rows.shape != (manifest.num_embeddings, manifest.embedding_dim):
            raise DamagedVersion(
                self.table,
                f"{_VECTORS} is {rows.shape[0]} x {rows.shape[1]}, "
                f"{_MANIFEST} says {manifest.num_embeddings} x {manifest.embedding_dim}",
            )
        return manifest

    def verify(self) -> Manifest:
        """Checks every byte against the manifest; raises DamagedVersion that names the file."""
        manifest = self.check()
        for name, record in manifest.files.items():
            if durable.sha256(self.path / name) != record.sha256:
                raise DamagedVersion(self.table, f"{name} does not have the SHA-256 of {_MANIFEST}")
        self.tokens()
        return manifest

    def has_vocabulary(self) -> bool:
        """Whether tokens can be looked up, by the manifest; raises DamagedVersion."""
        return _VOCABULARY in self.manifest().files

    def tokens(self) -> tuple[str, ...] | None:
        """The token of every id, None for a version without a vocabulary; raises DamagedVersion."""
        manifest = self.manifest()
        if _VOCABULARY not in manifest.files:
            return None
        try:
            tokens = _parse_tokens((self.path / _VOCABULARY).read_bytes().decode())
        except (OSError, ValueError) as error:
            raise DamagedVersion(self.table, f"{_VOCABULARY}: {_reason(error)}") from None
        if len(tokens) != manifest.num_embeddings:
            raise DamagedVersion(
                self.table, f"{_VOCABULARY} has {len(tokens)} tokens for {manifest.num_embeddings} rows"
            )
        return tokens

    def age(self) -> timedelta:
        """How long ago the version was made, by its manifest; zero for one that cannot be read."""
        try:
            return datetime.now(UTC) - self.manifest().created
        except DamagedVersion:
            return timedelta(0)

    def _check_size(self, name: str, record: FileRecord) -> None:
        try:
            found = (self.path / name).stat().st_size
        except FileNotFoundError:
            raise DamagedVersion(self.table, f"{name} is missing") from None
        if found != record.bytes:
            raise DamagedVersion(self.table, f"{name} has {found} bytes, {_MANIFEST} says {record.bytes}")


def _check_shape(imported: ImportedTable) -> None:
    shape = (imported.num_embeddings, imported.embedding_dim)
    if min(shape) < 1:
        raise InvalidTable(f"a table needs at least one row and one column, this one is {shape[0]} x {shape[1]}")


def _reason(error: OSError | ValueError) -> str:
    """Without the path that an OSError quotes: clients are told the reason, and not where the store is."""
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)


def _new_manifest(imported: ImportedTable, files: dict[str, FileRecord]) -> bytes:
    try:
        manifest = Manifest(
            num_embeddings=imported.num_embeddings,
            embedding_dim=imported.embedding_dim,
            padding_id=imported.padding_id,
            unk_id=imported.unk_id,
            on_oov=imported.on_oov,
            files=files,
            source=dict(imported.source),
            created=datetime.now(UTC),
        )
    except ValidationError as error:
        raise InvalidTable(describe(error)) from None
    try:
        return manifest.to_json()
    except ValueError as error:
        raise InvalidTable(f"source cannot be written: {error}") from None


def _write_rows(
    folder: Path, imported: ImportedTable, progress: Callable[[int], None]
) -> tuple[dict[str, FileRecord], list[str]]:
    """Streams the rows into their file; gives the record of it, and the tokens that came with them."""
    shape = (imported.num_embeddings, imported.embedding_dim)
    tokens: list[str] = []
    rows = 0
    with durable.HashedFile(folder / _VECTORS) as file:
        file.write(npyfile.header_bytes(*shape))
        for block in _checked(imported.blocks, shape):
            file.write(block.vectors.data.cast("B"))
            tokens.extend(block.tokens or ())
            rows += len(block.vectors)
            progress(len(block.vectors))
    if rows != shape[0]:
        raise InvalidTable(f"{shape[0]} rows were promised, {rows} came")
    if tokens and len(tokens) != rows:
        raise InvalidTable(f"the vocabulary has {len(tokens)} tokens for {rows} rows")
    return {_VECTORS: FileRecord(bytes=file.bytes, sha256=file.sha256)}, tokens


def _checked(blocks: Iterable[RowBlock], shape: tuple[int, int]) -> Iterator[RowBlock]:
    first = 0
    for block in blocks:
        if block.vectors.ndim != 2 or block.vectors.shape[1] != shape[1]:
            raise InvalidTable(f"rows {first} on have the shape {block.vectors.shape}, not (n, {shape[1]})")
        vectors = np.ascontiguousarray(block.vectors, dtype="<f4")
        bad = first_non_finite(vectors)
        if bad is not None:
            raise InvalidTable(f"row {first + bad[0]}, column {bad[1]} is {vectors[bad]}")
        if len(vectors) > 0:
            yield RowBlock(vectors, block.tokens)
        first += len(vectors)


def _write_vocabulary(path: Path, tokens: Sequence[str]) -> FileRecord:
    if len(set(tokens)) != len(tokens):
        raise InvalidTable(describe_duplicates(tokens))
    with durable.HashedFile(path) as file:
        try:
            file.write("".join(f"{_escape(token)}\n" for token in tokens).encode())
        except UnicodeEncodeError as error:
            raise InvalidTable(f"a token cannot be written as UTF-8: {error}") from None
    return FileRecord(bytes=file.bytes, sha256=file.sha256)


def _escape(token: str) -> str:
    return token.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


_UNESCAPED: Final = {"\\": "\\", "n": "\n", "r": "\r"}


def _unescape(line: str) -> str:
    pieces = iter(line)
    try:
        return "".join(_UNESCAPED[next(pieces)] if piece == "\\" else piece for piece in pieces)
    except (KeyError, StopIteration, RuntimeError):
        raise ValueError(f"the line {line[:80]!r} has a backslash that escapes nothing") from None


def _parse_tokens(text: str) -> tuple[str, ...]:
    if not text.endswith("\n"):
        raise ValueError("the last line is not ended")
    lines = text[:-1].split("\n")
    tokens = tuple(map(_unescape, lines)) if "\\" in text else tuple(lines)
    if len(set(tokens)) != len(tokens):
        raise ValueError(describe_duplicates(tokens))
    return tokens
