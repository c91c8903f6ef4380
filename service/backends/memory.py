"""Rows out of a read-only mapping of a version's files: every process that maps them shares one copy."""

import sys
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.backends import NUMPY, Backend, Fetching, RowFiles, combined, pages
from service.backends.crew import Crew, crew_of
from service.npyfile import map_rows, map_vector
from service.reduction import ScaleArray, StoredRows
from service.types import Combination, IdArray, RowArray

_SHARED: Final = 1 << 20
"""Numbers (4 MB of float32) from which on several threads gather: with fewer, waking them is not worth it."""
_PIECE: Final = 1 << 17
"""Numbers that one thread gathers at a time: 0.1 ms and more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """A matrix of shape (num_embeddings, embedding_dim) over a mapping; never written to."""

    rows: NDArray[Any]
    mappings: tuple[mmap, ...] = ()

    @property
    def num_embeddings(self) -> int:
        return int(self.rows.shape[0])

    @property
    def embedding_dim(self) -> int:
        return int(self.rows.shape[1])

    @property
    def dtype(self) -> str:
        return str(self.rows.dtype.name)

    def release(self) -> None:
        for mapping in self.mappings:
            pages.discard(mapping)


@dataclass(frozen=True, slots=True, eq=False)
class MappedRows(_Rows):
    """float32 rows, as they are stored; `crew` shares the gathers of `shared_from` rows and more."""

    rows: RowArray
    crew: Crew | None = None
    shared_from: int = sys.maxsize

    def gather(self, ids: IdArray) -> RowArray:
        if len(ids) < self.shared_from:
            return self.rows.take(ids, axis=0)
        return self._gather_together(ids)

    def _gather_together(self, ids: IdArray) -> RowArray:
        gathered = np.empty((len(ids), self.embedding_dim), dtype=np.float32)
        step = max(1, _PIECE // self.embedding_dim)

        def take(first: int) -> None:
            part = slice(first, first + step)
            self.rows.take(ids[part], 0, gathered[part], "clip")  # or it would gather into a buffer first

        assert self.crew is not None  # noqa: S101  (or nothing would be shared)
        self.crew.share(take, range(0, len(ids), step))
        return gathered

    def combine(self, ids: IdArray, count: int, combination: Combination) -> NDArray[np.float64]:
        return combined(self.gather(ids), count, combination)


@dataclass(frozen=True, slots=True, eq=False)
class ReducedRows(_Rows):
    """float16 rows, or int8 ones with `scales` of shape (num_embeddings,); what is gathered is widened."""

    scales: ScaleArray | None = None

    def gather(self, ids: IdArray) -> RowArray:
        scales = None if self.scales is None else self.scales.take(ids)
        return StoredRows(self.rows.take(ids, axis=0), scales).widened()

    def combine(self, ids: IdArray, count: int, combination: Combination) -> NDArray[np.float64]:
        return combined(self.gather(ids), count, combination)


def open_rows(files: RowFiles, fetching: Fetching = NUMPY, *, gently: bool = True) -> Backend:
    """Maps the rows and populates their pages; raises ValueError for files that are not what is said of them."""
    mapping, rows = map_rows(files.vectors, files.dtype)
    pages.populate(mapping, gently=gently)
    if files.dtype == "float32":
        crew = crew_of(fetching.threads)
        return MappedRows(rows, (mapping,), crew, sys.maxsize if crew is None else max(1, _SHARED // rows.shape[1]))
    if files.scales is None:
        return ReducedRows(rows, (mapping,))
    mapping_of_scales, scales = map_vector(files.scales, "<f4", len(rows))
    pages.populate(mapping_of_scales, gently=gently)
    return ReducedRows(rows, (mapping, mapping_of_scales), scales)
