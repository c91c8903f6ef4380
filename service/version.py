"""One version folder: writing it, checking it, reading it. The names of a version's files are here and nowhere else.

A folder is written once, while it is staging, and never changed after it has got its number.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from pydantic import ValidationError

from service import durable, npyfile, tokenlines
from service.backends import RowFiles
from service.durable import HashedFile
from service.errors import DamagedVersion, InvalidTable
from service.imported import ImportedTable, TextModel
from service.manifest import FileRecord, Manifest, Rounding, describe
from service.reduction import StoredRows
from service.rowwriter import WrittenRows, write_rows
from service.types import RowArray, TableVersion

_MANIFEST: Final = "manifest.json"
_VECTORS: Final = "vectors.npy"
_SCALES: Final = "scales.npy"
_VOCABULARY: Final = "vocabulary.txt"
_TOKENIZER: Final = "tokenizer.json"
_WEIGHTS: Final = "token_weights.npy"
ROW_FILES: Final = (_VECTORS, _SCALES)
_Content = TypeVar("_Content")


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """The folder of one version, whether it is being written or has been published."""

    table: TableVersion
    path: Path

    @property
    def vectors(self) -> Path:
        """The file with the rows."""
        return self.path / _VECTORS

    def identity(self) -> tuple[int, int]:
        """Device and inode of the folder: a folder that is put in its place has others. Raises OSError."""
        found = self.path.stat()
        return found.st_dev, found.st_ino

    # Writing

    def write(self, imported: ImportedTable, progress: Callable[[int], None]) -> Manifest:
        """Writes all files of a new version and reads them back; raises InvalidTable."""
        _check_shape(imported)
        _new_manifest(imported, {}, None)  # what it would refuse is found before the rows are written
        written = write_rows(self.vectors, self.path / _SCALES, imported, progress)
        files = {_VECTORS: _record(written.vectors)}
        if written.scales is not None:
            files[_SCALES] = _record(written.scales)
        if written.tokens:
            files[_VOCABULARY] = self._write_file(_VOCABULARY, _token_lines(written))
        if imported.text is not None:
            files |= self._write_text(imported.text, imported.num_embeddings)
        durable.write_file(self.path / _MANIFEST, _new_manifest(imported, files, _rounding(written)))
        durable.sync_folder(self.path)
        return self.verify()

    def _write_text(self, text: TextModel, rows: int) -> dict[str, FileRecord]:
        files = {} if text.tokenizer is None else {_TOKENIZER: self._write_file(_TOKENIZER, text.tokenizer)}
        if text.weights is not None:
            if text.weights.shape != (rows,) or not np.isfinite(text.weights).all():
                raise InvalidTable(f"the weights of tokens are not {rows} finite numbers")
            weights = npyfile.dump(np.ascontiguousarray(text.weights, dtype="<f8"))
            files[_WEIGHTS] = self._write_file(_WEIGHTS, weights)
        return files

    def _write_file(self, name: str, content: bytes) -> FileRecord:
        with HashedFile(self.path / name) as file:
            file.write(content)
        return _record(file)

    # Checking

    def manifest(self) -> Manifest:
        """What the version says of itself; raises DamagedVersion."""
        try:
            manifest = Manifest.from_json((self.path / _MANIFEST).read_bytes())
        except FileNotFoundError:
            raise DamagedVersion(self.table, f"{_MANIFEST} is missing") from None
        except (OSError, ValueError) as error:
            raise DamagedVersion(self.table, f"{_MANIFEST}: {_reason(error)}") from None
        needed, optional = _belonging(manifest)
        unlisted = sorted(needed - manifest.files.keys())
        if unlisted:
            raise DamagedVersion(self.table, f"{_MANIFEST} does not list {', '.join(unlisted)}")
        unknown = sorted(manifest.files.keys() - needed - optional)
        if unknown:
            raise DamagedVersion(self.table, f"{_MANIFEST} lists {', '.join(map(repr, unknown))}")
        return manifest

    def check(self) -> Manifest:
        """Checks all that can be checked without reading every byte: names, sizes, the headers of the arrays."""
        manifest = self.manifest()
        for name, record in manifest.files.items():
            self._check_size(name, record)
        shape = (manifest.num_embeddings, manifest.embedding_dim)
        _, rows = self._opened(_VECTORS, lambda path: npyfile.map_rows(path, manifest.dtype))
        if rows.shape != shape:
            raise DamagedVersion(
                self.table,
                f"{_VECTORS} is {rows.shape[0]} x {rows.shape[1]}, {_MANIFEST} says {shape[0]} x {shape[1]}",
            )
        if _SCALES in manifest.files:
            self._opened(_SCALES, lambda path: npyfile.map_vector(path, "<f4", shape[0]))
        if _WEIGHTS in manifest.files:
            self._opened(_WEIGHTS, lambda path: npyfile.map_vector(path, "<f8", shape[0]))
        return manifest

    def verify(self, sha256: Callable[[Path], str] = durable.sha256) -> Manifest:
        """Checks every byte against the manifest; raises DamagedVersion that names the file.

        `sha256` gives that of a file, hexadecimal.
        """
        manifest = self.check()
        for name, record in manifest.files.items():
            if self._opened(name, sha256) != record.sha256:
                raise DamagedVersion(self.table, f"{name} does not have the SHA-256 of {_MANIFEST}")
        self.tokens()
        return manifest

    def _opened(self, name: str, read: Callable[[Path], _Content]) -> _Content:
        """What `read` makes of one of the files; raises DamagedVersion that names it."""
        try:
            return read(self.path / name)
        except (OSError, ValueError) as error:
            raise DamagedVersion(self.table, f"{name}: {_reason(error)}") from None

    def _check_size(self, name: str, record: FileRecord) -> None:
        try:
            found = (self.path / name).stat().st_size
        except FileNotFoundError:
            raise DamagedVersion(self.table, f"{name} is missing") from None
        except OSError as error:  # links in a circle, say
            raise DamagedVersion(self.table, f"{name}: {_reason(error)}") from None
        if found != record.bytes:
            raise DamagedVersion(self.table, f"{name} has {found} bytes, {_MANIFEST} says {record.bytes}")

    # Reading

    def row_files(self) -> RowFiles:
        """What backends open; raises DamagedVersion."""
        manifest = self.manifest()
        return RowFiles(self.vectors, manifest.dtype, self.path / _SCALES if _SCALES in manifest.files else None)

    def rows(self, at_once: int) -> Iterator[RowArray]:
        """The float32 rows that lookups give, `at_once` of them at a time; raises DamagedVersion."""
        manifest = self.manifest()
        _, values = self._opened(_VECTORS, lambda path: npyfile.map_rows(path, manifest.dtype))
        scales = None
        if _SCALES in manifest.files:
            _, scales = self._opened(_SCALES, lambda path: npyfile.map_vector(path, "<f4", len(values)))
        for first in range(0, len(values), at_once):
            chosen = slice(first, first + at_once)
            yield StoredRows(values[chosen], None if scales is None else scales[chosen]).widened()

    def has_vocabulary(self) -> bool:
        """Whether tokens can be looked up, by the manifest; raises DamagedVersion."""
        return _VOCABULARY in self.manifest().files

    def tokens(self) -> tuple[str, ...] | None:
        """The token of every id, None for a version without a vocabulary; raises DamagedVersion."""
        manifest = self.manifest()
        if _VOCABULARY not in manifest.files:
            return None
        tokens = self._opened(_VOCABULARY, lambda path: tokenlines.parse(path.read_bytes()))
        if len(tokens) != manifest.num_embeddings:
            raise DamagedVersion(
                self.table, f"{_VOCABULARY} has {len(tokens)} tokens for {manifest.num_embeddings} rows"
            )
        return tokens

    def text(self) -> TextModel | None:
        """What makes this a static text model, None for a version that is none; raises DamagedVersion."""
        manifest = self.manifest()
        if manifest.text is None:
            return None
        has_file = _TOKENIZER in manifest.files
        tokenizer = self._opened(_TOKENIZER, Path.read_bytes) if has_file else None
        if _WEIGHTS not in manifest.files:
            return TextModel(tokenizer, manifest.text)
        rows = manifest.num_embeddings
        _, weights = self._opened(_WEIGHTS, lambda path: npyfile.map_vector(path, "<f8", rows))
        return TextModel(tokenizer, manifest.text, weights)

    def age(self) -> timedelta:
        """How long ago the version was made, by its manifest; zero for one that cannot be read."""
        try:
            return datetime.now(UTC) - self.manifest().created
        except DamagedVersion:
            return timedelta(0)


def _belonging(manifest: Manifest) -> tuple[set[str], set[str]]:
    """The files that a version of this kind must have, and those that it may have."""
    needed, optional = {_VECTORS}, {_VOCABULARY}
    if manifest.dtype == "int8":
        needed.add(_SCALES)
    if manifest.text is not None:
        if manifest.text.tokenizer == _TOKENIZER:
            needed.add(_TOKENIZER)
        optional.add(_WEIGHTS)
    return needed, optional


def _check_shape(imported: ImportedTable) -> None:
    shape = (imported.num_embeddings, imported.embedding_dim)
    if min(shape) < 1:
        raise InvalidTable(f"a table needs at least one row and one column, this one is {shape[0]} x {shape[1]}")


def _reason(error: OSError | ValueError) -> str:
    """Without the path that an OSError quotes: clients are told the reason, and not where the store is."""
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)


def _new_manifest(imported: ImportedTable, files: dict[str, FileRecord], rounding: Rounding | None) -> bytes:
    try:
        manifest = Manifest(
            num_embeddings=imported.num_embeddings,
            embedding_dim=imported.embedding_dim,
            dtype=imported.dtype,
            rounding=rounding,
            padding_id=imported.padding_id,
            unk_id=imported.unk_id,
            on_oov=imported.on_oov,
            text=None if imported.text is None else imported.text.settings,
            no_text=imported.no_text,
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


def _record(file: HashedFile) -> FileRecord:
    return FileRecord(bytes=file.bytes, sha256=file.sha256)


def _rounding(written: WrittenRows) -> Rounding | None:
    error = written.error
    if error is None:
        return None
    return Rounding(max_abs_error=error.largest, mean_abs_error=error.mean, mean_cosine=error.mean_cosine)


def _token_lines(written: WrittenRows) -> bytes:
    try:
        return tokenlines.dump(written.tokens)
    except ValueError as error:
        raise InvalidTable(str(error)) from None
