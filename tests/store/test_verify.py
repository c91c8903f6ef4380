import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.errors import DamagedVersion, VersionNotFound
from service.loader import load
from service.store import TableStore
from service.types import TableVersion
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

Damage: TypeAlias = Callable[[Path], None]
"""Changes the folder of a version."""

VECTORS = "vectors.npy"
VOCABULARY = "vocabulary.txt"
MANIFEST = "manifest.json"
CHOSEN = TableVersion("words", 2)


# Ways to damage a version


def change(name: str, edit: Callable[[bytes], bytes]) -> Damage:
    """Another content of a file, of which the manifest knows nothing."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(edit(path.read_bytes()))

    return damage


def reseal(name: str, edit: Callable[[bytes], bytes]) -> Damage:
    """Another content of a file, with the length and the SHA-256 that the manifest must have for it."""

    def damage(folder: Path) -> None:
        data = edit((folder / name).read_bytes())
        (folder / name).write_bytes(data)
        record = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        said = json.loads((folder / MANIFEST).read_bytes())
        said["files"][name] = record
        (folder / MANIFEST).write_text(json.dumps(said))

    return damage


def manifest(**fields: object) -> Damage:
    """Other values of fields of the manifest."""
    return change(MANIFEST, lambda data: json.dumps({**json.loads(data), **fields}).encode())


def without(field: str) -> Damage:
    """A manifest that lacks a field."""

    def edit(data: bytes) -> bytes:
        said = json.loads(data)
        del said[field]
        return json.dumps(said).encode()

    return change(MANIFEST, edit)


def record(name: str, **fields: object) -> Damage:
    """Other values in the manifest's record of a file, which need not exist."""

    def edit(data: bytes) -> bytes:
        said = json.loads(data)
        said["files"][name] = {**said["files"].get(name, said["files"][VECTORS]), **fields}
        return json.dumps(said).encode()

    return change(MANIFEST, edit)


def unlisted(name: str) -> Damage:
    """A manifest without a record of a file."""

    def edit(data: bytes) -> bytes:
        said = json.loads(data)
        del said["files"][name]
        return json.dumps(said).encode()

    return change(MANIFEST, edit)


def missing(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def folder_instead(name: str) -> Damage:
    """A folder where a file should be."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def header(text: str) -> Damage:
    """Another npy header over the same data; `text` is padded to 118 bytes."""
    padded = text.encode().ljust(117) + b"\n"
    return reseal(VECTORS, lambda data: b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data[128:])


def array(rows: np.ndarray[Any, Any]) -> Damage:
    """Another array as the rows."""
    file = io.BytesIO()
    np.save(file, rows)
    return reseal(VECTORS, lambda _: file.getvalue())


def vocabulary(content: bytes) -> Damage:
    return reseal(VOCABULARY, lambda _: content)


def flipped(at: int) -> Callable[[bytes], bytes]:
    """Changes one bit of the byte at a position."""

    def edit(data: bytes) -> bytes:
        index = at % len(data)
        return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]

    return edit


def described(descr: str, shape: str = "(7, 2)", order: str = "False") -> Damage:
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")


LINES = "".join(f"{word}\n" for word in KERAS_TOKENS).encode()

# What is done to the version, and what the reason must name.
DAMAGES: dict[str, tuple[Damage, str]] = {
    # The rows, changed after they were written
    "rows truncated": (change(VECTORS, lambda data: data[:-1]), "vectors.npy has 183 bytes"),
    "rows truncated in the header": (change(VECTORS, lambda data: data[:100]), VECTORS),
    "rows empty": (change(VECTORS, lambda _: b""), VECTORS),
    "rows grown": (change(VECTORS, lambda data: data + b"\0"), "vectors.npy has 185 bytes"),
    "rows grown by a row": (change(VECTORS, lambda data: data + data[-8:]), VECTORS),
    "rows missing": (missing(VECTORS), "vectors.npy is missing"),
    "rows a folder": (folder_instead(VECTORS), VECTORS),
    "first data byte flipped": (change(VECTORS, flipped(128)), "vectors.npy does not have the SHA-256"),
    "last byte flipped": (change(VECTORS, flipped(-1)), "vectors.npy does not have the SHA-256"),
    "magic flipped": (change(VECTORS, flipped(0)), VECTORS),
    "header padding flipped": (change(VECTORS, flipped(120)), VECTORS),
    "rows all zero": (change(VECTORS, lambda data: data[:128] + bytes(56)), VECTORS),
    "rows swapped": (change(VECTORS, lambda data: data[:128] + data[-8:] + data[136:-8] + data[128:136]), VECTORS),
    # The rows, with checksums that agree
    "no npy file": (reseal(VECTORS, lambda data: b"x" * len(data)), VECTORS),
    "npy version 9": (reseal(VECTORS, lambda data: data[:6] + b"\x09\x00" + data[8:]), VECTORS),
    "header longer than the file": (reseal(VECTORS, lambda data: data[:8] + b"\xff\xff" + data[10:]), VECTORS),
    "shape larger than the data": (described("'<f4'", "(8, 2)"), "promises 64 bytes"),
    "shape smaller than the data": (described("'<f4'", "(6, 2)"), "promises 48 bytes"),
    "shape transposed": (described("'<f4'", "(2, 7)"), "2 x 7"),
    "shape of one axis": (described("'<f4'", "(14,)"), VECTORS),
    "shape of three axes": (described("'<f4'", "(7, 2, 1)"), VECTORS),
    "shape negative": (described("'<f4'", "(-7, -2)"), VECTORS),
    "shape of booleans": (described("'<f4'", "(True, 14)"), VECTORS),
    "shape huge": (described("'<f4'", "(4611686018427387904, 4)"), VECTORS),
    "fortran order": (described("'<f4'", order="True"), VECTORS),
    "big-endian": (described("'>f4'"), VECTORS),
    "float16": (array(KERAS_ROWS.astype(np.float16)), VECTORS),
    "float64": (array(KERAS_ROWS.astype(np.float64)), VECTORS),
    "int32 of the same length": (described("'<i4'"), VECTORS),
    "complex": (described("'<c8'", "(7, 1)"), VECTORS),
    "raw bytes": (described("'|V4'"), VECTORS),
    "object": (described("'|O'"), VECTORS),
    "structured": (described("[('a', '<f4'), ('b', '<f4')]", "(7,)"), VECTORS),
    "structured object": (described("[('a', '|O')]", "(7,)"), VECTORS),
    "header not closed": (header("{'descr': ("), VECTORS),
    "header with an open text": (header("{'descr': '<f4"), VECTORS),
    "header badly indented": (header("  {'descr':1\n 2"), VECTORS),
    "header of an empty tuple": (described("()"), VECTORS),
    "header of a one-tuple": (described("('<f4',)"), VECTORS),
    "header without shape": (header("{'descr': '<f4', 'fortran_order': False, }"), VECTORS),
    "header a list": (header("['<f4', False, (7, 2)]"), VECTORS),
    "header code": (header("__import__('os').getpid()"), VECTORS),
    "header empty": (header(""), VECTORS),
    "header of zero bytes": (header("\0\0\0"), VECTORS),
    # The vocabulary
    "vocabulary missing": (missing(VOCABULARY), "vocabulary.txt is missing"),
    "vocabulary truncated": (change(VOCABULARY, lambda data: data[:-1]), VOCABULARY),
    "vocabulary grown": (change(VOCABULARY, lambda data: data + b"more\n"), VOCABULARY),
    "vocabulary flipped": (change(VOCABULARY, flipped(0)), "vocabulary.txt does not have the SHA-256"),
    "vocabulary a folder": (folder_instead(VOCABULARY), VOCABULARY),
    "too few lines": (vocabulary(LINES.removesuffix(b"again\n")), "vocabulary.txt has 6 tokens for 7 rows"),
    "too many lines": (vocabulary(LINES + b"more\n"), "vocabulary.txt has 8 tokens for 7 rows"),
    "no lines": (vocabulary(b""), VOCABULARY),
    "one blank line": (vocabulary(b"\n"), VOCABULARY),
    "lines ended by CR": (vocabulary(LINES.replace(b"\n", b"\r")), VOCABULARY),
    "a line twice": (vocabulary(LINES.replace(b"soon", b"hope")), "'hope' (ids 0, 4)"),
    "an escaped line twice": (vocabulary(LINES.replace(b"soon", b"a\\\\").replace(b"nice", b"a\\\\")), VOCABULARY),
    "last line not ended": (vocabulary(LINES[:-1]), "vocabulary.txt: the last line is not ended"),
    "unknown escape": (vocabulary(LINES.replace(b"soon", b"so\\on")), "so\\\\on"),
    "backslash at the end": (vocabulary(LINES.replace(b"soon", b"soon\\")), VOCABULARY),
    "bad UTF-8": (vocabulary(LINES.replace(b"soon", b"s\xff\xfen")), VOCABULARY),
    "surrogate in UTF-8": (vocabulary(LINES.replace(b"soon", b"\xed\xa0\x80")), VOCABULARY),
    "cut UTF-8": (vocabulary(LINES.replace(b"soon", b"so\xc3")), VOCABULARY),
    "UTF-16": (vocabulary(LINES.decode().encode("utf-16")), VOCABULARY),
    # The manifest as a file
    "manifest missing": (missing(MANIFEST), "manifest.json is missing"),
    "manifest a folder": (folder_instead(MANIFEST), MANIFEST),
    "manifest empty": (change(MANIFEST, lambda _: b""), MANIFEST),
    "manifest cut off": (change(MANIFEST, lambda data: data[: len(data) // 2]), MANIFEST),
    "manifest with more": (change(MANIFEST, lambda data: data + b"{}"), MANIFEST),
    "manifest not JSON": (change(MANIFEST, lambda _: b"format: 1\n"), MANIFEST),
    "manifest not UTF-8": (change(MANIFEST, lambda data: data.replace(b"error", b"err\xffr")), MANIFEST),
    "manifest a list": (change(MANIFEST, lambda data: b"[" + data + b"]"), MANIFEST),
    "manifest null": (change(MANIFEST, lambda _: b"null"), MANIFEST),
    "manifest nested deep": (change(MANIFEST, lambda _: b"[" * 20_000), MANIFEST),
    # Its fields
    "format 2": (manifest(format=2), "format"),
    "format text": (manifest(format="1"), "format"),
    "field unknown": (manifest(scales=[1.0]), "scales"),
    "num_embeddings missing": (without("num_embeddings"), "num_embeddings"),
    "embedding_dim missing": (without("embedding_dim"), "embedding_dim"),
    "files missing": (without("files"), "files"),
    "created missing": (without("created"), "created"),
    "num_embeddings zero": (manifest(num_embeddings=0), "num_embeddings"),
    "num_embeddings text": (manifest(num_embeddings="7"), "num_embeddings"),
    "num_embeddings fraction": (manifest(num_embeddings=7.0), "num_embeddings"),
    "num_embeddings boolean": (manifest(num_embeddings=True), "num_embeddings"),
    "num_embeddings other": (manifest(num_embeddings=8), "manifest.json says 8 x 2"),
    "embedding_dim other": (manifest(embedding_dim=3), "manifest.json says 7 x 3"),
    "dtype other": (manifest(dtype="float64"), "dtype"),
    "padding_id beyond": (manifest(padding_id=7), "padding_id 7 is not a row"),
    "padding_id negative": (manifest(padding_id=-1), "padding_id"),
    "padding_id fraction": (manifest(padding_id=0.5), "padding_id"),
    "padding_id boolean": (manifest(padding_id=False), "padding_id"),
    "unk_id beyond": (manifest(unk_id=7), "unk_id 7 is not a row"),
    "unk_id huge": (manifest(unk_id=2**70), "unk_id"),
    "on_oov unknown": (manifest(on_oov="wrap"), "on_oov"),
    "on_oov unk without unk_id": (manifest(on_oov="unk"), "unk_id"),
    "created no time": (manifest(created="yesterday"), "created"),
    "created a number": (manifest(created=0), "created"),
    "created without a zone": (manifest(created="2026-01-01T00:00:00"), "created"),
    "source a text": (manifest(source="glove"), "source"),
    "files a list": (manifest(files=[VECTORS]), "files"),
    "files empty": (manifest(files={}), "manifest.json does not list vectors.npy"),
    "rows not listed": (unlisted(VECTORS), "manifest.json does not list vectors.npy"),
    "a file above": (record("../1/vectors.npy"), "'../1/vectors.npy'"),
    "an absolute file": (record("/etc/passwd"), "'/etc/passwd'"),
    "a file not known": (record("scales.npy"), "'scales.npy'"),
    "itself": (record(MANIFEST), "'manifest.json'"),
    "an empty name": (record(""), "''"),
    "rows by another name": (record("./vectors.npy"), "'./vectors.npy'"),
    "a vocabulary that is another": (record("Vocabulary.txt"), "'Vocabulary.txt'"),
    "sha256 other": (record(VECTORS, sha256="0" * 64), "vectors.npy does not have the SHA-256"),
    "sha256 short": (record(VECTORS, sha256="0" * 63), "sha256"),
    "sha256 upper case": (record(VECTORS, sha256="A" * 64), "sha256"),
    "sha256 null": (record(VECTORS, sha256=None), "sha256"),
    "bytes other": (record(VECTORS, bytes=180), "manifest.json says 180"),
    "bytes negative": (record(VECTORS, bytes=-1), "bytes"),
    "bytes text": (record(VECTORS, bytes="184"), "bytes"),
    "record with more": (record(VECTORS, md5="x"), "md5"),
}


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """The table `words` with the versions 1, active, and 2."""
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS, activate=False)
    return store


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_version_is_refused_by_name_and_the_old_one_stays(
    store: TableStore, damage: Damage, named: str
) -> None:
    damage(store.version(CHOSEN).path)
    with pytest.raises(DamagedVersion) as verified:
        store.verify(CHOSEN)
    with pytest.raises(DamagedVersion):
        store.activate("words", 2)
    with pytest.raises(DamagedVersion):
        store.set_label("words", "stable", 2)
    assert named in verified.value.reason
    assert any(name in verified.value.reason for name in (VECTORS, VOCABULARY, MANIFEST))
    assert verified.value.table == CHOSEN
    assert (store.active_version("words"), store.labels("words")) == (1, {})
    assert store.verify(TableVersion("words", 1)).num_embeddings == 7


CAUGHT_BY_CHECKSUM = {
    "first data byte flipped",
    "last byte flipped",
    "header padding flipped",
    "rows all zero",
    "rows swapped",
    "vocabulary flipped",
    "sha256 other",
}


@pytest.mark.parametrize("kind", sorted(DAMAGES.keys() - CAUGHT_BY_CHECKSUM))
def test_all_other_damage_is_refused_when_a_version_is_opened(store: TableStore, kind: str) -> None:
    DAMAGES[kind][0](store.version(CHOSEN).path)
    with pytest.raises(DamagedVersion):
        load(store, CHOSEN)


def test_a_version_that_is_a_file_is_damaged_or_none(store: TableStore) -> None:
    folder = store.version(CHOSEN).path
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    with pytest.raises((DamagedVersion, VersionNotFound)):
        store.verify(CHOSEN)
    with pytest.raises((DamagedVersion, VersionNotFound)):
        store.activate("words", 2)


def test_a_version_that_leads_nowhere_is_damaged_or_none(store: TableStore) -> None:
    folder = store.version(CHOSEN).path
    shutil.rmtree(folder)
    folder.symlink_to(folder.with_name("gone"))
    with pytest.raises((DamagedVersion, VersionNotFound)):
        store.verify(CHOSEN)


def test_an_empty_version_folder_is_damaged(store: TableStore) -> None:
    folder = store.version(CHOSEN).path
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(DamagedVersion, match=r"manifest\.json is missing"):
        store.verify(CHOSEN)


def test_a_manifest_of_another_version_is_damage_where_the_files_differ(store: TableStore) -> None:
    other = publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS, activate=False)
    shutil.copy(store.version(other).path / MANIFEST, store.version(CHOSEN).path / MANIFEST)
    with pytest.raises(DamagedVersion, match=r"vectors\.npy does not have the SHA-256"):
        store.verify(CHOSEN)


def test_other_files_in_a_version_folder_are_passed_over(store: TableStore) -> None:
    (store.version(CHOSEN).path / "NOTES").write_text("mine")
    store.activate("words", 2)
    assert store.active_version("words") == 2


def test_files_that_were_copied_by_another_program_verify(store: TableStore) -> None:
    shutil.copytree(store.version(CHOSEN).path, store.root / "words" / "7", copy_function=shutil.copyfile)
    assert store.activate("words", 7).active_version == 7
    assert publish(store, "words", KERAS_ROWS).version == 8


def test_vocabulary_lines_may_hold_any_other_character(store: TableStore) -> None:
    vocabulary(LINES.replace(b"soon", "so\u2028on\r".encode()))(store.version(CHOSEN).path)
    store.verify(CHOSEN)
    tokens = store.version(CHOSEN).tokens()
    assert tokens is not None
    assert tokens[4] == "so\u2028on\r"


def test_nothing_is_unpickled(store: TableStore, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    file = io.BytesIO()
    np.save(file, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    reseal(VECTORS, lambda _: file.getvalue())(store.version(CHOSEN).path)
    with pytest.raises(DamagedVersion, match="never loaded"):
        store.verify(CHOSEN)
    assert not (tmp_path / "exploded").exists()
