"""Rows made into one vector for each sequence, as every backend has to: bit for bit the same, in bounded memory."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.backends.crew import Crew, share
from service.types import Combination, IdArray, RowArray

_AT_ONCE: Final = 1 << 18
"""Numbers of rows that are combined at once: those of a large lookup never lie in memory as a whole."""


def combined(rows: RowArray, count: int, combination: Combination) -> NDArray[np.float64]:
    """Each `count` rows as one: added up in float64, one after the other, or the largest number of each column.

    A zero has no sign: that of the largest of both zeros would be a matter of the processor.
    """
    apart = rows.reshape(-1, count, rows.shape[1])
    made: NDArray[np.float64]
    if combination == "max":
        made = np.maximum.reduce(apart, axis=1).astype(np.float64)
    else:
        made = np.add.reduce(apart, axis=1, dtype=np.float64)
    made += 0.0
    return made


def gathered_and_combined(
    gather: Callable[[IdArray], RowArray],
    ids: IdArray,
    count: int,
    combination: Combination,
    dim: int,
    crew: Crew | None = None,
) -> NDArray[np.float64]:
    """The same of the rows that `gather` gives, some sequences at a time; `crew` shares them."""
    step = max(1, _AT_ONCE // (count * dim))
    if len(ids) <= step * count:
        return combined(gather(ids), count, combination)
    vectors = np.empty((len(ids) // count, dim), dtype=np.float64)

    def work(first: int) -> None:
        part = ids[first * count : (first + step) * count]
        vectors[first : first + step] = combined(gather(part), count, combination)

    share(crew, work, range(0, len(vectors), step))
    return vectors
