"""Keras' initializers for a new table, by Keras' names. Rows are drawn with numpy, so seeds differ from Keras'.

Formulas: https://keras.io/api/layers/initializers/ ; for a matrix, fan_in is its rows and fan_out its columns.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import numpy as np
from pydantic import JsonValue

from service.imported import ImportedTable, RowBlock
from service.types import RowArray

_BLOCK_ROWS: Final = 1 << 14
_TRUNCATED_STD: Final = 0.87962566103423978
"""Standard deviation of a unit normal cut at two of its deviations; Keras' scaled initializers divide by it."""

Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, int], int, int], RowArray]
"""Rows of a block's shape, for a table of so many rows and columns."""


def _uniform(limit: Callable[[int, int], float]) -> Draw:
    def draw(generator: np.random.Generator, shape: tuple[int, int], rows: int, columns: int) -> RowArray:
        bound = np.float32(limit(rows, columns))
        unit = generator.random(shape, dtype=np.float32)
        # The product of float32 numbers may round up to just beyond the bound.
        vectors: RowArray = np.clip((2 * unit - 1) * bound, -bound, bound)
        return vectors

    return draw


def _normal(deviation: Callable[[int, int], float]) -> Draw:
    def draw(generator: np.random.Generator, shape: tuple[int, int], rows: int, columns: int) -> RowArray:
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(deviation(rows, columns))

    return draw


def _truncated(deviation: Callable[[int, int], float]) -> Draw:
    def draw(generator: np.random.Generator, shape: tuple[int, int], rows: int, columns: int) -> RowArray:
        unit = generator.standard_normal(shape, dtype=np.float32)
        while (outside := np.abs(unit) > 2).any():
            unit[outside] = generator.standard_normal(int(outside.sum()), dtype=np.float32)
        return unit * np.float32(deviation(rows, columns))

    return draw


def _constant(value: float) -> Draw:
    def draw(_generator: np.random.Generator, shape: tuple[int, int], _rows: int, _columns: int) -> RowArray:
        return np.full(shape, value, dtype=np.float32)

    return draw


def _scaled(numerator: float, fan: Callable[[int, int], float]) -> Draw:
    return _truncated(lambda rows, columns: math.sqrt(numerator / fan(rows, columns)) / _TRUNCATED_STD)


def _fan_in(rows: int, _columns: int) -> float:
    return rows


def _fan_average(rows: int, columns: int) -> float:
    return (rows + columns) / 2


INITIALIZERS: Final[dict[str, Draw]] = {
    "uniform": _uniform(lambda *_: 0.05),
    "normal": _normal(lambda *_: 0.05),
    "truncated_normal": _truncated(lambda *_: 0.05),
    "zeros": _constant(0.0),
    "ones": _constant(1.0),
    "glorot_uniform": _uniform(lambda rows, columns: math.sqrt(3 / _fan_average(rows, columns))),
    "glorot_normal": _scaled(1, _fan_average),
    "he_uniform": _uniform(lambda rows, columns: math.sqrt(6 / _fan_in(rows, columns))),
    "he_normal": _scaled(2, _fan_in),
    "lecun_uniform": _uniform(lambda rows, columns: math.sqrt(3 / _fan_in(rows, columns))),
    "lecun_normal": _scaled(1, _fan_in),
}


def new_table(
    num_embeddings: int, embedding_dim: int, initializer: str, seed: int, padding_id: int | None = None
) -> ImportedTable:
    """A table of drawn rows, the same for the same arguments; raises KeyError for an unknown initializer."""
    draw = INITIALIZERS[initializer]
    generator = np.random.default_rng(seed)

    def blocks() -> Iterator[RowBlock]:
        for first in range(0, num_embeddings, _BLOCK_ROWS):
            shape = (min(_BLOCK_ROWS, num_embeddings - first), embedding_dim)
            yield RowBlock(draw(generator, shape, num_embeddings, embedding_dim))

    source: dict[str, JsonValue] = {"initializer": initializer, "seed": seed}
    return ImportedTable(num_embeddings, embedding_dim, blocks(), padding_id, source=source)
