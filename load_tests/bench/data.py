"""The table that every peer serves, and the ids that they are all asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from service.imported import ImportedTable, RowBlock
from service.store import TableStore
from service.types import IdArray, RowArray

TABLE: Final = "bench"
ROWS: Final = 100_000
DIM: Final = 128
EXPONENT: Final = 1.0  # of the Zipf law
Ids: TypeAlias = Literal["zipf", "uniform"]

_SEED: Final = 0
_BODIES: Final = {False: 256, True: 64}
_LARGE: Final = 1024  # ids


@dataclass(frozen=True, slots=True)
class Data:
    """A table in memory, shape (rows, DIM), and its copies in a folder that goes when the run ends."""

    folder: Path
    vectors: RowArray

    @property
    def store(self) -> Path:
        """A store of ours that holds the table."""
        return self.folder / "store"

    @property
    def npy(self) -> Path:
        """The table as `numpy.load` takes it."""
        return self.folder / "table.npy"


def made(folder: Path, rows: int) -> Data:
    """The table, drawn and written down."""
    vectors = np.random.default_rng(_SEED).standard_normal((rows, DIM), dtype=np.float32)
    data = Data(folder, vectors)
    np.save(data.npy, vectors)
    TableStore(data.store).publish(TABLE, ImportedTable(rows, DIM, [RowBlock(vectors)]), activate=True)
    return data


def drawn(ids: Ids, count: int, rows: int) -> list[IdArray]:
    """What the requests of one case ask for: sequences of `count` ids, the same ones in every run."""
    draw = np.random.default_rng([_SEED, count, ids == "zipf"])
    shape = (_BODIES[count >= _LARGE], count)
    return list(_zipf(draw, shape, rows) if ids == "zipf" else draw.integers(0, rows, shape))


def _zipf(draw: np.random.Generator, shape: tuple[int, int], rows: int) -> IdArray:
    """The n-th most frequent row is drawn with a weight of 1/n; which row that is, is drawn too."""
    shares = np.cumsum(1.0 / np.arange(1, rows + 1) ** EXPONENT)
    ranks = np.searchsorted(shares, draw.random(shape) * shares[-1])
    ids: IdArray = draw.permutation(rows)[np.minimum(ranks, rows - 1)]
    return ids
