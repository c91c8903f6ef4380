"""The words of a lookup as values: what is asked, how, and what is answered. No behaviour beyond their shape.

What is made for every request is a named tuple, which takes half the time of a frozen dataclass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.layout import Layout

IdArray: TypeAlias = NDArray[np.int64]
MaskArray: TypeAlias = NDArray[np.bool_]
WeightArray: TypeAlias = NDArray[np.float64]
RowArray: TypeAlias = NDArray[np.float32]
VectorArray: TypeAlias = NDArray[np.float32] | NDArray[np.float16]

OovRule: TypeAlias = Literal["error", "zeros", "unk", "mask"]
Side: TypeAlias = Literal["post", "pre"]
Truncation: TypeAlias = Literal["error", "post", "pre"]
Masked: TypeAlias = Literal["keep", "zero"]
Pooling: TypeAlias = Literal["none", "sum", "mean", "max", "sqrtn"]
Combination: TypeAlias = Literal["sum", "max"]
"""How rows become one: what all kinds of pooling begin with."""
VectorDtype: TypeAlias = Literal["float32", "float16"]
RowDtype: TypeAlias = Literal["float32", "float16", "int8"]
"""What rows are stored as; int8 goes with one float32 scale per row."""


@dataclass(frozen=True, slots=True, order=True)
class TableVersion:
    """The identity of served rows: a table's name and a positive integer."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


_NOTHING: Final[Mapping[int, int | str]] = MappingProxyType({})


class IdBatch(NamedTuple):
    """Token ids, flattened in the order they were sent.

    `values` is int64 and one-dimensional. An id that int64 cannot hold stands there as -1 and exactly in
    `exact`, by its position: no table has such a row, so only its error needs the digits.
    """

    values: IdArray
    layout: Layout
    exact: Mapping[int, int | str] = _NOTHING


class TokenBatch(NamedTuple):
    """Tokens, flattened in the order they were sent."""

    values: Sequence[str]
    layout: Layout


@dataclass(frozen=True, slots=True)
class LookupOptions:
    """How vectors are made of rows. `length` is in positions; `on_oov` None means the table's own rule."""

    length: int | None = None
    padding: Side = "post"
    truncation: Truncation = "error"
    on_oov: OovRule | None = None
    masked: Masked = "keep"
    pooling: Pooling = "none"
    normalize: bool = False
    flatten: bool = False
    dtype: VectorDtype = "float32"


DEFAULT_OPTIONS = LookupOptions()


class LookupRequest(NamedTuple):
    """One question: ids or tokens, optionally a mask and weights (flat, one per position), and options."""

    batch: IdBatch | TokenBatch
    mask: MaskArray | None = None
    weights: WeightArray | None = None
    options: LookupOptions = DEFAULT_OPTIONS


class Selection(NamedTuple):
    """An answer whose vectors are rows as they are stored, before any is fetched.

    `ids` are int64 of shape (n,), in the row-major order of `shape`, and all within the table. `mask` of shape (n,)
    is true where a position counts; None stands for "where it is not `padding_id`". `blank` of shape (n,) is true
    where zeros stand for a row, None where nowhere.
    """

    ids: IdArray
    shape: tuple[int, ...]
    mask: MaskArray | None
    padding_id: int | None
    blank: MaskArray | None = None

    def counting(self) -> MaskArray:
        """The mask in full, of shape (n,)."""
        if self.mask is not None:
            return self.mask
        if self.padding_id is None:
            return np.ones(len(self.ids), dtype=np.bool_)
        derived: MaskArray = self.ids != self.padding_id
        return derived

    def part(self, first: int, end: int) -> "Selection":
        """Some of the positions, as one sequence; all of them as they are."""
        if first == 0 and end == len(self.ids):
            return self
        mask = None if self.mask is None else self.mask[first:end]
        blank = None if self.blank is None else self.blank[first:end]
        return Selection(self.ids[first:end], (end - first,), mask, self.padding_id, blank)


class LookupResult(NamedTuple):
    """One answer. `vectors` is C-contiguous; `mask` has the shape of the (padded) ids, None when pooled."""

    vectors: VectorArray
    mask: MaskArray | None

    @property
    def dtype(self) -> VectorDtype:
        """The name of the vectors' dtype; numpy takes five microseconds for it."""
        return "float32" if self.vectors.dtype.char == "f" else "float16"
