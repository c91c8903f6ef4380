"""What every backend promises, as tests that each inherits: rows bit for bit, whatever they are stored as."""

import re
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest

from service import npyfile
from service.backends import Backend, Fetching, RowFiles, open_rows
from service.backends.combining import combined
from service.backends.memory import MappedRows
from service.errors import OutOfVocabulary
from service.reduction import REDUCTIONS
from service.table import EmbeddingTable
from service.types import Combination, IdArray, LookupOptions, LookupRequest, RowArray, RowDtype
from tests.oracle import IDENTITY, request_of

ROWS: RowArray = (np.random.default_rng(3).normal(size=(9, 5)) * np.logspace(-3, 3, 9)[:, None]).astype(np.float32)
ROWS[4] = 0.0
ROWS[5, :2] = [-0.0, 1e-45]
DTYPES: tuple[RowDtype, ...] = get_args(RowDtype)
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)

IDS = {
    "none": [],
    "one": [3],
    "the last": [8],
    "all": list(range(9)),
    "backwards": list(range(8, -1, -1)),
    "repeated": [2, 2, 0, 2, 8, 0],
    "many": [4] * 1000,
}
MANY = 300_000
"""Ids that no backend gathers in one step: 6 MB of rows."""

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_combination = pytest.mark.parametrize("combination", COMBINATIONS)


def files_of(folder: Path, dtype: RowDtype, rows: RowArray = ROWS) -> RowFiles:
    """The rows as the store has them."""
    stored = REDUCTIONS[dtype](rows)
    (folder / "rows").write_bytes(npyfile.dump(stored.values))
    if stored.scales is None:
        return RowFiles(folder / "rows", dtype)
    (folder / "scales").write_bytes(npyfile.dump(stored.scales))
    return RowFiles(folder / "rows", dtype, folder / "scales")


def served(dtype: RowDtype, rows: RowArray = ROWS) -> RowArray:
    """The rows that must be gathered."""
    return REDUCTIONS[dtype](rows).widened()


def ids_of(ids: list[int]) -> IdArray:
    return np.array(ids, dtype=np.int64)


def extreme_rows(dim: int) -> RowArray:
    """Numbers of all sizes and both signs, whose sums depend on the order of adding them; and zeros of both signs."""
    generator = np.random.default_rng(0)
    shape = (2000, dim)
    rows = (generator.standard_normal(shape) * np.power(10.0, generator.uniform(-37, 37, shape))).astype(np.float32)
    rows[generator.random(shape) < 0.05] = -0.0
    rows[generator.random(shape) < 0.02] = 1e-45
    return rows


LOOKUPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"options": LookupOptions(length=4, padding="pre")},
    "masked rows as zeros": {"options": LookupOptions(masked="zero")},
    "zeros for unknown ids": {"nested": [[0, 99, 2], [-1, 8, 2**40]], "options": LookupOptions(on_oov="zeros")},
    "unknown ids masked": {"nested": [[0, 99, 2], [7, 8, 9]], "options": LookupOptions(on_oov="mask", masked="zero")},
    "the unknown row": {"nested": [[0, 99, 2], [7, 8, 9]], "options": LookupOptions(on_oov="unk")},
    "sum": {"options": LookupOptions(pooling="sum")},
    "mean": {"options": LookupOptions(pooling="mean")},
    "mean of all": {"nested": [[1, 3, 2], [8, 4, 8]], "options": LookupOptions(pooling="mean")},
    "max": {"options": LookupOptions(pooling="max")},
    "max of all": {"nested": [[1, 3, 2], [8, 4, 8]], "options": LookupOptions(pooling="max")},
    "sqrtn": {"options": LookupOptions(pooling="sqrtn")},
    "sqrtn of many": {"nested": [[1, 3, 2] * 300], "options": LookupOptions(pooling="sqrtn")},
    "mean with a mask": {"mask": [[1, 0, 1], [0, 0, 0]], "options": LookupOptions(pooling="mean")},
    "sum with weights": {"weights": [[0.5, 2.0, 0.0], [1.0, 1.0, 3.0]], "options": LookupOptions(pooling="sum")},
    "mean with zeros for unknown ids": {
        "nested": [[0, 99, 2], [7, 8, 9]],
        "options": LookupOptions(pooling="mean", on_oov="zeros"),
    },
    "ragged": {"nested": [[0, 1], [5, 8, 7, 7]], "options": LookupOptions(pooling="mean")},
    "normalised": {"options": LookupOptions(normalize=True)},
    "flat": {"options": LookupOptions(flatten=True)},
    "as float16": {"options": LookupOptions(dtype="float16")},
    "means as float16": {"options": LookupOptions(pooling="mean", dtype="float16")},
}


def request_from(how: dict[str, Any]) -> LookupRequest:
    nested = how.get("nested", [[0, 3, 2], [8, 4, 8]])
    return request_of(
        nested, mask=how.get("mask"), weights=how.get("weights"), options=how.get("options", LookupOptions())
    )


def wrong_files(folder: Path) -> dict[str, RowFiles]:
    wrong = {"short": np.ones(8, "<f4"), "double": np.ones(9, "<f8"), "matrix": np.ones((9, 1), "<f4")}
    for name, array in wrong.items():
        (folder / name).write_bytes(npyfile.dump(array))
    files = files_of(folder, "int8")
    return {
        "rows of another dtype": replace(files, dtype="float16", scales=None),
        "too few scales": replace(files, scales=folder / "short"),
        "scales of float64": replace(files, scales=folder / "double"),
        "scales of two axes": replace(files, scales=folder / "matrix"),
        "rows instead of scales": replace(files, scales=files.vectors),
    }


class BackendContract:
    """To inherit: `fetching` says which backend it is, and with what."""

    fetching: ClassVar[Fetching]

    @pytest.fixture
    def opened(self, tmp_path: Path, dtype: RowDtype) -> Iterator[Backend]:
        """`ROWS`, stored as a dtype."""
        backend = open_rows(files_of(tmp_path, dtype), self.fetching)
        yield backend
        backend.release()

    # Gathering

    @every_dtype
    @pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
    def test_gathered_rows_are_the_stored_ones_bit_for_bit(
        self, opened: Backend, dtype: RowDtype, ids: list[int]
    ) -> None:
        gathered = opened.gather(ids_of(ids))
        assert (gathered.dtype, gathered.shape) == (np.dtype(np.float32), (len(ids), 5))
        assert gathered.tobytes() == served(dtype)[ids_of(ids)].tobytes()

    @every_dtype
    @pytest.mark.parametrize("count", [52_427, 52_428, 52_429, 209_715, 209_716, MANY])
    def test_so_are_many_rows(self, opened: Backend, dtype: RowDtype, count: int) -> None:
        ids = np.random.default_rng(count).integers(0, 9, count)
        assert opened.gather(ids).tobytes() == served(dtype)[ids].tobytes()

    @every_dtype
    @pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
    def test_gathered_rows_are_the_callers_own(self, opened: Backend, ids: list[int]) -> None:
        before = opened.gather(ids_of(list(range(9)))).tobytes()
        gathered = opened.gather(ids_of(ids))
        assert gathered.flags.writeable
        assert gathered.flags.c_contiguous
        gathered[...] = 17.0
        assert opened.gather(ids_of(list(range(9)))).tobytes() == before

    @every_dtype
    def test_what_was_gathered_stays_as_it_is(self, opened: Backend, dtype: RowDtype) -> None:
        first = opened.gather(ids_of([3, 5]))
        opened.gather(ids_of([1, 2]))
        opened.combine(ids_of([1, 2]), 1, "sum")
        assert first.tobytes() == served(dtype)[[3, 5]].tobytes()

    @every_dtype
    def test_ids_may_be_read_only_and_of_any_stride(self, opened: Backend, dtype: RowDtype) -> None:
        ids = np.frombuffer(ids_of([8, 0, 3, 0, 5, 0]).tobytes(), dtype=np.int64)
        assert not ids.flags.writeable
        assert opened.gather(ids).tobytes() == served(dtype)[ids].tobytes()
        assert opened.gather(ids[::2]).tobytes() == served(dtype)[ids[::2]].tobytes()
        assert opened.gather(ids[::-1]).tobytes() == served(dtype)[ids[::-1]].tobytes()
        assert opened.combine(ids[::2], 3, "max").tobytes() == combined(served(dtype)[ids[::2]], 3, "max").tobytes()

    @every_dtype
    def test_several_threads_may_gather_at_once(self, opened: Backend, dtype: RowDtype) -> None:
        wrong: list[int] = []

        def gather(seed: int) -> None:
            generator = np.random.default_rng(seed)
            for count in (1, 64, 2048, 60_000):
                ids = generator.integers(0, 9, count)
                if opened.gather(ids).tobytes() != served(dtype)[ids].tobytes():
                    wrong.append(seed)

        threads = [threading.Thread(target=gather, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @every_dtype
    @pytest.mark.parametrize("dim", [1, 2, 1000])
    def test_rows_may_be_of_any_length(self, tmp_path: Path, dtype: RowDtype, dim: int) -> None:
        rows = np.random.default_rng(dim).standard_normal((3, dim)).astype(np.float32)
        backend = open_rows(files_of(tmp_path, dtype, rows), self.fetching)
        assert backend.gather(ids_of([2, 0, 2])).tobytes() == served(dtype, rows)[[2, 0, 2]].tobytes()

    # Combining

    @every_combination
    @every_dtype
    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_combined_rows_are_those_of_numpy(
        self, opened: Backend, dtype: RowDtype, combination: Combination, count: int
    ) -> None:
        ids = np.random.default_rng(count).integers(0, 9, 21 * count)
        vectors = opened.combine(ids, count, combination)
        assert (vectors.dtype, vectors.shape) == (np.dtype(np.float64), (21, 5))
        assert vectors.tobytes() == combined(served(dtype)[ids], count, combination).tobytes()
        vectors[...] = 17.0
        assert opened.combine(ids, count, combination).tobytes() != vectors.tobytes()

    @every_combination
    @pytest.mark.parametrize("dim", [1, 2, 64, 300])
    def test_so_are_numbers_of_all_sizes_however_many(self, tmp_path: Path, combination: Combination, dim: int) -> None:
        rows = extreme_rows(dim)
        backend = open_rows(files_of(tmp_path, "float32", rows), self.fetching)
        generator = np.random.default_rng(dim)
        for count in (*range(1, 140), 255, 256, 257, 512, 1000, 2048):
            for sequences in (1, 2, 37):
                ids = generator.integers(0, len(rows), sequences * count)
                found = backend.combine(ids, count, combination)
                assert found.tobytes() == combined(rows[ids], count, combination).tobytes(), (count, sequences)

    @every_combination
    @every_dtype
    def test_so_are_many_sequences(self, opened: Backend, dtype: RowDtype, combination: Combination) -> None:
        ids = np.random.default_rng(0).integers(0, 9, MANY)
        assert opened.combine(ids, 3, combination).tobytes() == combined(served(dtype)[ids], 3, combination).tobytes()

    @every_combination
    def test_long_sequences_of_many_rows_do_not_lie_in_memory_as_a_whole(
        self, tmp_path: Path, combination: Combination
    ) -> None:
        rows = np.random.default_rng(0).standard_normal((9, 500)).astype(np.float32)
        backend = open_rows(files_of(tmp_path, "float32", rows), self.fetching)
        ids = np.random.default_rng(1).integers(0, 9, 100 * 300)
        tracemalloc.start()
        vectors = backend.combine(ids, 300, combination)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 30_000 * 500 * 4 / 4
        expected = [combined(rows[ids[first : first + 300]], 300, combination) for first in range(0, len(ids), 300)]
        assert vectors.tobytes() == np.concatenate(expected).tobytes()

    @every_combination
    @every_dtype
    def test_of_no_ids_no_vector_is_made(self, opened: Backend, combination: Combination) -> None:
        assert opened.combine(ids_of([]), 3, combination).shape == (0, 5)

    # Saying what they are, and refusing what they are not

    @every_dtype
    def test_a_backend_says_what_it_holds(self, opened: Backend, dtype: RowDtype) -> None:
        assert (opened.num_embeddings, opened.embedding_dim, opened.dtype) == (9, 5, dtype)

    @pytest.mark.parametrize(
        "kind",
        [
            "rows of another dtype",
            "too few scales",
            "scales of float64",
            "scales of two axes",
            "rows instead of scales",
        ],
    )
    def test_files_that_are_not_what_is_said_are_refused(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(ValueError, match="is not a"):
            open_rows(wrong_files(tmp_path)[kind], self.fetching)

    # Lookups

    @every_dtype
    @pytest.mark.parametrize("how", LOOKUPS.values(), ids=LOOKUPS.keys())
    def test_a_lookup_gives_what_a_float32_table_of_the_rows_gives(
        self, opened: Backend, dtype: RowDtype, how: dict[str, Any]
    ) -> None:
        request = request_from(how)
        expected, found = (
            EmbeddingTable(IDENTITY, rows, padding_id=0, unk_id=1).lookup(request)
            for rows in (MappedRows(served(dtype)), opened)
        )
        assert found.vectors.dtype == expected.vectors.dtype == np.dtype(request.options.dtype)
        assert found.vectors.shape == expected.vectors.shape
        assert found.vectors.tobytes() == expected.vectors.tobytes()
        assert (found.mask is None) == (expected.mask is None)
        assert np.array_equal(found.mask, expected.mask)  # type: ignore[arg-type]  # two Nones are equal too

    @every_dtype
    @pytest.mark.parametrize("outside", [9, -1, -9, 2**40, 2**63 - 1, -(2**63)])
    def test_no_id_outside_the_table_reaches_the_rows(self, opened: Backend, outside: int) -> None:
        table = EmbeddingTable(IDENTITY, opened, padding_id=0)
        for options in (LookupOptions(), LookupOptions(pooling="sum"), LookupOptions(normalize=True)):
            with pytest.raises(OutOfVocabulary) as refused:
                table.lookup(request_of([[1, outside], [2, 3]], options=options))
            assert refused.value.errors == [{"index": [0, 1], "id": outside}]

    @every_dtype
    def test_a_table_says_what_its_rows_are_stored_as(self, opened: Backend, dtype: RowDtype) -> None:
        assert EmbeddingTable(IDENTITY, opened).dtype == dtype


class MappedContract(BackendContract):
    """Of backends that answer from the map of the files."""

    @every_dtype
    def test_all_pages_are_there_when_rows_are_opened_and_gone_when_they_are_released(
        self, tmp_path: Path, dtype: RowDtype
    ) -> None:
        rows = np.random.default_rng(0).standard_normal((50_000, 10)).astype(np.float32)
        files = files_of(tmp_path, dtype, rows)
        backend = open_rows(files, self.fetching)
        there = [path for path in (files.vectors, files.scales) if path is not None]
        for path in there:
            assert mappings(path) == 1
            assert resident(path) >= path.stat().st_size
        backend.gather(ids_of([3]))
        backend.release()
        assert [resident(path) for path in there] == [0] * len(there)


def mappings(path: Path) -> int:
    """How often a file is mapped in this process."""
    return sum(line.endswith(f" {path}") for line in Path("/proc/self/maps").read_text().splitlines())


def resident(path: Path) -> int:
    """Bytes of a file that are in this process's page tables, in all of its mappings."""
    found, is_of_it = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            is_of_it = line.endswith(f" {path}")
        elif is_of_it and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found
