"""Rows out of a read-only mapping of `vectors.npy`: every process that maps the file shares one copy."""

from dataclasses import dataclass
from pathlib import Path

from service.backends import pages
from service.npyfile import map_rows
from service.types import IdArray, RowArray


@dataclass(frozen=True, slots=True, eq=False)
class MappedRows:
    """A float32 matrix of shape (num_embeddings, embedding_dim) over a mapping; never written to."""

    rows: RowArray

    @property
    def num_embeddings(self) -> int:
        return int(self.rows.shape[0])

    @property
    def embedding_dim(self) -> int:
        return int(self.rows.shape[1])

    @property
    def dtype(self) -> str:
        return self.rows.dtype.name

    def gather(self, ids: IdArray) -> RowArray:
        return self.rows.take(ids, axis=0)


def open_rows(path: Path) -> MappedRows:
    """Maps the rows of a float32 `.npy` file and populates their pages."""
    mapping, rows = map_rows(path)
    pages.populate(mapping)
    return MappedRows(rows)
