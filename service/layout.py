"""How a flat run of positions is arranged: a rectangle, or a ragged batch. A leaf: numpy and nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Layout(NamedTuple):
    """`shape` is the rectangle that was sent; of a ragged batch it is (rows, longest row).

    `ragged_lengths` holds the length of every row of a ragged batch, and is None for a rectangle.
    """

    shape: tuple[int, ...]
    ragged_lengths: NDArray[np.int64] | None = None

    @classmethod
    def ragged(cls, lengths: Sequence[int] | NDArray[np.int64]) -> Layout:
        """The batch whose rows have these lengths; a plain rectangle where all are equal."""
        array = np.asarray(lengths, dtype=np.int64)
        longest = int(array.max(initial=0))
        if array.size == 0 or longest == int(array.min(initial=longest)):
            return cls((len(array), longest))
        return cls((len(array), longest), array)

    @property
    def total(self) -> int:
        """How many positions were sent."""
        if self.ragged_lengths is not None:
            return int(self.ragged_lengths.sum())
        shape = self.shape
        return shape[0] if len(shape) == 1 else math.prod(shape)

    @property
    def rows(self) -> int:
        """How many sequences there are: all axes but the last, multiplied."""
        return math.prod(self.shape[:-1])

    def lengths(self) -> NDArray[np.int64]:
        """The length of each sequence, int64 of shape (rows,)."""
        if self.ragged_lengths is not None:
            return self.ragged_lengths
        return np.full(self.rows, self.shape[-1], dtype=np.int64)

    def place(self, position: int) -> list[int]:
        """Where the flat `position` was sent, one number per axis."""
        if self.ragged_lengths is not None:
            ends = np.cumsum(self.ragged_lengths)
            row = int(np.searchsorted(ends, position, side="right"))
            return [row, position - int(ends[row] - self.ragged_lengths[row])]
        return [int(axis) for axis in np.unravel_index(position, self.shape)]
