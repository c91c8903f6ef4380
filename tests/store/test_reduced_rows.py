"""Versions whose rows are float16, or int8 with scales: what is written, what is said of it, what is found out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from service import npyfile
from service.errors import DamagedVersion, InvalidTable
from service.imported import ImportedTable, RowBlock
from service.loader import load
from service.manifest import Rounding
from service.reduction import REDUCTIONS, RoundingError
from service.store import TableStore
from service.types import RowArray, RowDtype, TableVersion
from service.version import VersionFolder
from tests.store.test_verify import Damage, change, flipped, manifest, missing, record, reseal, unlisted
from tests.world import KERAS_TOKENS, imported

ROWS: RowArray = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
ROWS[2] = 0.0
SCALES = "scales.npy"
VECTORS = "vectors.npy"
REDUCED: tuple[RowDtype, ...] = ("float16", "int8")


def table(dtype: RowDtype, rows: ArrayLike = ROWS) -> ImportedTable:
    return replace(imported(rows, KERAS_TOKENS if len(np.asarray(rows)) == 7 else None), dtype=dtype)


def publish(root: Path, dtype: RowDtype, rows: ArrayLike = ROWS) -> VersionFolder:
    store = TableStore(root)
    return store.version(store.publish("words", table(dtype, rows), activate=True))


def measured(rows: RowArray, dtype: RowDtype) -> Rounding:
    error = RoundingError()
    error.add(rows, REDUCTIONS[dtype](rows).widened())
    return Rounding(max_abs_error=error.largest, mean_abs_error=error.mean, mean_cosine=error.mean_cosine)


# What is written


@pytest.mark.parametrize("dtype", REDUCED)
def test_the_manifest_says_the_dtype_and_the_error(tmp_path: Path, dtype: RowDtype) -> None:
    said = publish(tmp_path, dtype).verify()
    assert (said.dtype, said.num_embeddings, said.embedding_dim) == (dtype, 7, 3)
    assert said.rounding == measured(ROWS, dtype)
    assert said.rounding is not None
    assert 0 < said.rounding.mean_abs_error < said.rounding.max_abs_error < 0.02
    assert 0.999 < said.rounding.mean_cosine <= 1.0000001


def test_float32_has_no_error_to_speak_of(tmp_path: Path) -> None:
    said = publish(tmp_path, "float32").verify()
    assert (said.dtype, said.rounding) == ("float32", None)


FILES: list[tuple[RowDtype, set[str]]] = [
    ("float32", {VECTORS, "vocabulary.txt"}),
    ("float16", {VECTORS, "vocabulary.txt"}),
    ("int8", {VECTORS, SCALES, "vocabulary.txt"}),
]


@pytest.mark.parametrize(("dtype", "files"), FILES)
def test_the_files_are_those_of_the_dtype_and_all_are_listed(tmp_path: Path, dtype: RowDtype, files: set[str]) -> None:
    folder = publish(tmp_path, dtype)
    assert set(folder.manifest().files) == files
    assert {path.name for path in folder.path.iterdir()} == files | {"manifest.json"}
    assert folder.tokens() == KERAS_TOKENS


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_rows_are_behind_a_header_of_128_bytes(tmp_path: Path, dtype: RowDtype) -> None:
    path = publish(tmp_path, dtype).vectors
    values = REDUCTIONS[dtype](ROWS).values
    assert len(path.read_bytes()) == 128 + values.nbytes
    loaded = np.load(path)
    assert (loaded.dtype, loaded.flags.c_contiguous) == (np.dtype(dtype), True)
    assert loaded.tobytes() == values.tobytes()


def test_the_scales_are_a_vector_of_little_endian_float32(tmp_path: Path) -> None:
    path = publish(tmp_path, "int8").path / SCALES
    with path.open("rb") as file:
        header = npyfile.read_header(file)
    assert (header.shape, header.dtype.str, header.fortran_order, header.offset) == ((7,), "<f4", False, 128)
    expected = REDUCTIONS["int8"](ROWS).scales
    assert expected is not None
    assert np.load(path).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_blocks_that_rows_come_in_change_nothing(tmp_path: Path, dtype: RowDtype, size: int) -> None:
    blocks = [RowBlock(np.asfortranarray(ROWS[at : at + size])) for at in range(0, 7, size)]
    store = TableStore(tmp_path)
    version = store.publish("words", ImportedTable(7, 3, [*blocks, RowBlock(ROWS[:0])], dtype=dtype))
    whole = publish(tmp_path / "whole", dtype)
    pieces = store.version(version)
    for name in {VECTORS, SCALES} & set(whole.manifest().files):
        assert (pieces.path / name).read_bytes() == (whole.path / name).read_bytes()
    if dtype != "float32":
        said, expected = pieces.manifest().rounding, whole.manifest().rounding
        assert said is not None
        assert expected is not None
        assert said.model_dump() == pytest.approx(expected.model_dump(), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_rows_are_given_as_lookups_give_them(tmp_path: Path, dtype: RowDtype, at_once: int) -> None:
    blocks = list(publish(tmp_path, dtype).rows(at_once))
    assert [len(block) for block in blocks] == [min(at_once, 7 - first) for first in range(0, 7, at_once)]
    assert all(block.dtype == np.float32 for block in blocks)
    assert np.concatenate(blocks).tobytes() == REDUCTIONS[dtype](ROWS).widened().tobytes()


@pytest.mark.parametrize("dtype", REDUCED)
def test_a_loaded_table_is_of_the_dtype_it_was_published_as(tmp_path: Path, dtype: RowDtype) -> None:
    publish(tmp_path, dtype)
    loaded = load(TableStore(tmp_path), TableVersion("words", 1))
    assert loaded.table.dtype == dtype
    everything = loaded.table.backend.gather(np.arange(7))
    assert everything.tobytes() == REDUCTIONS[dtype](ROWS).widened().tobytes()


def test_rows_of_extremes_are_published_as_int8(tmp_path: Path) -> None:
    largest = float(np.finfo(np.float32).max)
    rows = [[largest, -largest], [0.0, -0.0], [1e-45, 0.0], [largest, 1e-45], [1e-38, 1e-39]]
    said = publish(tmp_path, "int8", rows).verify()
    assert said.rounding is not None
    assert said.rounding.mean_cosine == pytest.approx(4 / 5, abs=0.001)  # the smallest number has become zero


# What is refused


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


@pytest.mark.parametrize("number", [65520.0, -1e38])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_what_float16_cannot_hold_is_refused_with_its_place_and_nothing_is_left(
    tmp_path: Path, number: float, size: int
) -> None:
    publish(tmp_path, "float16")
    before = contents(tmp_path)
    rows = ROWS.copy()
    rows[5, 1] = number
    blocks = [RowBlock(rows[at : at + size]) for at in range(0, 7, size)]
    store = TableStore(tmp_path)
    for name in ("words", "other"):
        with pytest.raises(InvalidTable) as refused:
            store.publish(name, ImportedTable(7, 3, blocks, dtype="float16"), activate=True)
        assert str(refused.value) == f"row 5, column 1 is {np.float32(number)}, beyond float16"
    assert contents(tmp_path) == before
    assert store.active_version("words") == 1


@pytest.mark.parametrize("dtype", REDUCED)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_as_for_float32(tmp_path: Path, dtype: RowDtype, number: float) -> None:
    rows = ROWS.copy()
    rows[6, 2] = number
    with pytest.raises(InvalidTable, match=rf"row 6, column 2 is {number}$"):
        publish(tmp_path, dtype, rows)
    assert list(tmp_path.iterdir()) == []


def test_the_largest_number_of_float16_is_taken(tmp_path: Path) -> None:
    rows = [[65504.0, -65504.0], [65519.0, 6e-8]]
    assert publish(tmp_path, "float16", rows).verify().rounding is not None


# What verify finds


def scales(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Damage:
    return reseal(SCALES, lambda _: npyfile.dump(array))


def vectors(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Damage:
    return reseal(VECTORS, lambda _: npyfile.dump(array))


def both(*damages: Damage) -> Damage:
    def damage(folder: Path) -> None:
        for one in damages:
            one(folder)

    return damage


NUMBERS = np.ones(7, dtype="<f4")
BY_CHECKSUM = {"a byte of the scales changed", "a byte of the rows changed"}
DAMAGES: dict[str, tuple[RowDtype, Damage, str]] = {
    "scales missing": ("int8", missing(SCALES), "scales.npy is missing"),
    "scales not listed": ("int8", unlisted(SCALES), "manifest.json does not list scales.npy"),
    "scales cut off": ("int8", change(SCALES, lambda data: data[:-1]), "scales.npy has 155 bytes"),
    "too few scales": ("int8", scales(NUMBERS[:6]), "scales.npy: <f4 of shape (6,) is not a vector of 7 float32"),
    "too many scales": ("int8", scales(np.ones(8, "<f4")), "scales.npy: <f4 of shape (8,)"),
    "scales of float64": ("int8", scales(NUMBERS.astype("<f8")), "scales.npy: <f8 of shape (7,)"),
    "scales of float16": ("int8", scales(NUMBERS.astype("<f2")), "scales.npy: <f2 of shape (7,)"),
    "scales of int32": ("int8", scales(NUMBERS.astype("<i4")), "scales.npy: <i4 of shape (7,)"),
    "scales in big-endian": ("int8", scales(NUMBERS.astype(">f4")), "scales.npy: >f4 of shape (7,)"),
    "scales of two axes": ("int8", scales(NUMBERS[:, None]), "scales.npy: <f4 of shape (7, 1)"),
    "scales of no axis": ("int8", scales(NUMBERS[0:1].reshape(())), "scales.npy: <f4 of shape ()"),
    "scales that are no npy": ("int8", reseal(SCALES, lambda _: b"7 scales"), "scales.npy: "),
    "a byte of the scales changed": ("int8", change(SCALES, flipped(-3)), "scales.npy does not have the SHA-256"),
    "a byte of the rows changed": ("float16", change(VECTORS, flipped(-3)), "vectors.npy does not have the SHA-256"),
    "int8 called float16": ("int8", manifest(dtype="float16"), "manifest.json lists 'scales.npy'"),
    "int8 called float32": ("int8", manifest(dtype="float32"), "manifest.json lists 'scales.npy'"),
    "int8 without scales called float32": (
        "int8", both(manifest(dtype="float32"), unlisted(SCALES)), "vectors.npy: |i1 of shape (7, 3) is not a C-ordered"
    ),
    "float16 called float32": ("float16", manifest(dtype="float32"), "vectors.npy: <f2 of shape (7, 3) is not a"),
    "float16 called int8": ("float16", manifest(dtype="int8"), "manifest.json does not list scales.npy"),
    "float32 called float16": ("float32", manifest(dtype="float16"), "vectors.npy: <f4 of shape (7, 3) is not a"),
    "float32 with scales": ("float32", record(SCALES), "manifest.json lists 'scales.npy'"),
    "float16 with scales": ("float16", record(SCALES), "manifest.json lists 'scales.npy'"),
    "uint8 rows": ("int8", vectors(np.ones((7, 3), "u1")), "vectors.npy: |u1 of shape (7, 3)"),
    "Fortran order": ("int8", vectors(np.ones((7, 3), "i1", order="F")), "is not a C-ordered int8 matrix"),
    "another shape": ("int8", vectors(np.ones((7, 4), "i1")), "vectors.npy is 7 x 4, manifest.json says 7 x 3"),
    "no such dtype": ("int8", manifest(dtype="int4"), "dtype"),
    "a dtype in upper case": ("int8", manifest(dtype="INT8"), "dtype"),
    "rounding not an object": ("int8", manifest(rounding=0.1), "rounding"),
    "rounding without its fields": ("int8", manifest(rounding={}), "rounding.max_abs_error"),
    "rounding below zero": (
        "int8", manifest(rounding={"max_abs_error": -1.0, "mean_abs_error": 0.0, "mean_cosine": 1.0}), "max_abs_error"
    ),
}  # fmt: skip


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[RowDtype, Damage], TableStore]:
    """A store in which version 1 of `words` is whole and 2, not active, is damaged."""

    def make(dtype: RowDtype, damage: Damage) -> TableStore:
        store = TableStore(tmp_path)
        publish(tmp_path, dtype)
        damage(store.version(store.publish("words", table(dtype))).path)
        return store

    return make


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found_and_named(damaged: Callable[[RowDtype, Damage], TableStore], kind: str) -> None:
    dtype, damage, named = DAMAGES[kind]
    store = damaged(dtype, damage)
    with pytest.raises(DamagedVersion) as verified:
        store.verify(TableVersion("words", 2))
    assert named in verified.value.reason
    with pytest.raises(DamagedVersion):
        store.activate("words", 2)
    assert store.active_version("words") == 1
    store.verify(TableVersion("words", 1))


@pytest.mark.parametrize("kind", sorted(DAMAGES.keys() - BY_CHECKSUM))
def test_all_but_changed_bytes_is_found_when_a_version_is_opened(
    damaged: Callable[[RowDtype, Damage], TableStore], kind: str
) -> None:
    dtype, damage, named = DAMAGES[kind]
    with pytest.raises(DamagedVersion) as refused:
        load(damaged(dtype, damage), TableVersion("words", 2))
    assert named in refused.value.reason


def test_rows_are_not_read_without_their_scales(tmp_path: Path) -> None:
    folder = publish(tmp_path, "int8")
    missing(SCALES)(folder.path)
    with pytest.raises(DamagedVersion, match=r"scales\.npy: No such file"):
        list(folder.rows(3))
