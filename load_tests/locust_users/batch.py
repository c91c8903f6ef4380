"""Ids of one request, and what the contract says of their cells and masks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from load_tests.locust_users.zipf import IdArray

BoolArray = npt.NDArray[np.bool_]

ZEROS: Final = -1
"""In the place of an id: a cell that holds zeros."""


@dataclass(frozen=True)
class Batch:
    """Sequences of ids one behind another; `lengths` is None for a single sequence, which has no axis of batches.

    `given` is the mask that is sent, in the order of the ids.
    """

    ids: IdArray
    lengths: IdArray | None
    padding_id: int | None
    given: BoolArray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the padded ids."""
        return (len(self.ids),) if self.lengths is None else (len(self.lengths), int(self.lengths.max()))

    @property
    def offsets(self) -> IdArray:
        """Where the sequences begin and end: one more than there are."""
        lengths = np.array([len(self.ids)]) if self.lengths is None else self.lengths
        return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)

    @cached_property
    def places(self) -> BoolArray:
        """Where the padded shape holds ids, in the order of `ids`."""
        if self.lengths is None:
            return np.ones(self.shape, bool)
        found: BoolArray = np.arange(self.shape[1]) < self.lengths[:, None]
        return found

    @cached_property
    def mask(self) -> BoolArray:
        """That of the answer: the given one or, without, false at the padding id; false where there is no id."""
        mask = np.zeros(self.shape, bool)
        derived = np.ones(len(self.ids), bool) if self.padding_id is None else self.ids != self.padding_id
        mask[self.places] = derived if self.given is None else self.given
        return mask

    def cells(self, *, zero_masked: bool = False) -> IdArray:
        """The id whose row each cell of the answer holds, or ZEROS; of the padded shape."""
        cells = np.full(self.shape, ZEROS if self.padding_id is None else self.padding_id, np.int64)
        cells[self.places] = self.ids
        return np.where(self.mask, cells, ZEROS) if zero_masked else cells

    def nested(self, values: npt.NDArray[np.generic]) -> list[object]:
        """Values in the order of the ids as JSON has them: a list, or a list for each sequence."""
        if self.lengths is None:
            return list(values.tolist())
        ends = self.offsets[1:-1]
        return [part.tolist() for part in np.split(values, ends)]

    def index_of(self, place: int) -> list[int]:
        """The index of an id in what was sent, as errors tell it."""
        if self.lengths is None:
            return [place]
        row = int(np.searchsorted(self.offsets, place, side="right")) - 1
        return [row, place - int(self.offsets[row])]
