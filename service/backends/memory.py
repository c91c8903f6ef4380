"""Rows out of a read-only mapping of a version's files: every process that maps them shares one copy."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.backends import NUMPY, Backend, Fetching, RowFiles, pages
from service.backends.combining import gathered_and_combined
from service.backends.crew import Crew, crew_of, share
from service.npyfile import map_rows, map_vector
from service.reduction import ScaleArray, StoredRows, widened_halves
from service.types import Combination, IdArray, RowArray

_MANY: Final = 1 << 20
"""Numbers (4 MB of float32) from which on several threads gather: with fewer, waking them is not worth it."""
_PIECE: Final = 1 << 17
"""Numbers that one thread gathers at a time: 0.1 ms and more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """A matrix of shape (num_embeddings, embedding_dim) over a mapping; never written to.

    `many` rows and more are gathered in pieces, which `crew` shares.
    """

    rows: NDArray[Any]
    mappings: tuple[mmap, ...] = ()
    crew: Crew | None = None
    many: int = sys.maxsize

    @property
    def num_embeddings(self) -> int:
        return int(self.rows.shape[0])

    @property
    def embedding_dim(self) -> int:
        return int(self.rows.shape[1])

    @property
    def dtype(self) -> str:
        return str(self.rows.dtype.name)

    def gather(self, ids: IdArray) -> RowArray:
        raise NotImplementedError

    def combine(self, ids: IdArray, count: int, combination: Combination) -> NDArray[np.float64]:
        return gathered_and_combined(self.gather, ids, count, combination, self.embedding_dim, self.crew)

    def release(self) -> None:
        for mapping in self.mappings:
            pages.discard(mapping)


@dataclass(frozen=True, slots=True, eq=False)
class MappedRows(_Rows):
    """float32 rows, as they are stored."""

    rows: RowArray

    def gather(self, ids: IdArray) -> RowArray:
        if len(ids) < self.many:
            return self.rows.take(ids, axis=0)
        return _in_pieces(self.crew, self._take, ids, self.embedding_dim)

    def _take(self, ids: IdArray, into: RowArray) -> None:
        self.rows.take(ids, 0, into, "clip")  # or it would gather into a buffer first


@dataclass(frozen=True, slots=True, eq=False)
class ReducedRows(_Rows):
    """float16 rows, or int8 ones with `scales` of shape (num_embeddings,); what is gathered is widened.

    Pieces of many stay in a cache until they are widened.
    """

    scales: ScaleArray | None = None

    def gather(self, ids: IdArray) -> RowArray:
        if len(ids) < self.many:
            return self._widened(ids)
        return _in_pieces(self.crew, self._widen, ids, self.embedding_dim)

    def _widen(self, ids: IdArray, into: RowArray) -> None:
        into[...] = self._widened(ids)

    def _widened(self, ids: IdArray) -> RowArray:
        values = self.rows.take(ids, axis=0)
        if self.scales is None:
            return widened_halves(values)
        return StoredRows(values, self.scales.take(ids)).widened()


def _in_pieces(crew: Crew | None, gather: Callable[[IdArray, RowArray], None], ids: IdArray, dim: int) -> RowArray:
    """The rows of many ids, gathered piece by piece into one array."""
    gathered = np.empty((len(ids), dim), dtype=np.float32)
    step = max(1, _PIECE // dim)

    def work(first: int) -> None:
        gather(ids[first : first + step], gathered[first : first + step])

    share(crew, work, range(0, len(ids), step))
    return gathered


def open_rows(files: RowFiles, fetching: Fetching = NUMPY, *, gently: bool = True) -> Backend:
    """Maps the rows and populates their pages; raises ValueError for files that are not what is said of them."""
    mapping, rows = map_rows(files.vectors, files.dtype)
    pages.populate(mapping, gently=gently)
    crew, many = crew_of(fetching.threads), max(1, _MANY // rows.shape[1])
    if files.dtype == "float32":
        return MappedRows(rows, (mapping,), crew, sys.maxsize if crew is None else many)
    if files.scales is None:
        return ReducedRows(rows, (mapping,), crew, many)
    mapping_of_scales, scales = map_vector(files.scales, "<f4", len(rows))
    pages.populate(mapping_of_scales, gently=gently)
    return ReducedRows(rows, (mapping, mapping_of_scales), crew, many, scales)
