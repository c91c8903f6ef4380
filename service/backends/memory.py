"""Rows out of a read-only mapping of a version's files: every process that maps them shares one copy."""

from dataclasses import dataclass
from mmap import mmap
from typing import Any

from numpy.typing import NDArray

from service.backends import Backend, RowFiles, pages
from service.npyfile import map_rows, map_vector
from service.reduction import ScaleArray, StoredRows
from service.types import IdArray, RowArray


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
    """float32 rows, as they are stored."""

    rows: RowArray

    def gather(self, ids: IdArray) -> RowArray:
        return self.rows.take(ids, axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class ReducedRows(_Rows):
    """float16 rows, or int8 ones with `scales` of shape (num_embeddings,); what is gathered is widened."""

    scales: ScaleArray | None = None

    def gather(self, ids: IdArray) -> RowArray:
        scales = None if self.scales is None else self.scales.take(ids)
        return StoredRows(self.rows.take(ids, axis=0), scales).widened()


def open_rows(files: RowFiles) -> Backend:
    """Maps the rows and populates their pages; raises ValueError for files that are not what is said of them."""
    mapping, rows = map_rows(files.vectors, files.dtype)
    pages.populate(mapping)
    if files.dtype == "float32":
        return MappedRows(rows, (mapping,))
    if files.scales is None:
        return ReducedRows(rows, (mapping,))
    mapping_of_scales, scales = map_vector(files.scales, "<f4", len(rows))
    pages.populate(mapping_of_scales)
    return ReducedRows(rows, (mapping, mapping_of_scales), scales)
