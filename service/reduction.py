"""Rows in fewer bits: float16, or int8 with one scale per row; and what that costs in exactness. No files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.types import RowArray, RowDtype

ScaleArray: TypeAlias = NDArray[np.float32]

_FRACTION_BITS: Final = 13  # that a float has more
_HALF_BITS: Final = np.int32(-0x70002000)  # 0x8FFFE000: the sign, and where 13 bits higher a half's other 15 are
_BIAS: Final = np.float32(2.0**112)
_LARGEST: Final = np.float32(127)  # of int8; -128 is not used, so that a row and its negative are stored alike
_LARGEST_SCALE: Final = np.nextafter(np.finfo(np.float32).max / _LARGEST, np.float32(0))
"""The quotient itself is rounded up: 127 times it would be infinite."""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows as they are stored: `values` of shape (n, dim), and for int8 `scales`, float32 of shape (n,)."""

    values: NDArray[Any]
    scales: ScaleArray | None = None

    def widened(self) -> RowArray:
        """The float32 rows that a lookup gives: the values, each times the scale of its row where there is one."""
        if self.scales is None:
            widened: RowArray = self.values.astype(np.float32, copy=False)
            return widened
        rows: RowArray = np.multiply(self.values, self.scales[:, np.newaxis], dtype=np.float32)
        return rows


def widened_halves(values: NDArray[np.float16]) -> RowArray:
    """Finite float16 numbers, C-contiguous, as float32: what `astype` gives, in a fifth of its time.

    The bits of a half's exponent and fraction are put where a float has them, which makes a number smaller by the
    difference of the exponents' biases, 2^112 (IEEE 754, binary16 and binary32); that is right of subnormals, too.
    """
    bits = values.view(np.int16).astype(np.int32)  # the sign is in all upper bits
    np.left_shift(bits, _FRACTION_BITS, out=bits)
    np.bitwise_and(bits, _HALF_BITS, out=bits)
    floats: RowArray = bits.view(np.float32)
    np.multiply(floats, _BIAS, out=floats)
    return floats


def _as_float32(rows: RowArray) -> StoredRows:
    return StoredRows(np.ascontiguousarray(rows, dtype="<f4"))


def _as_float16(rows: RowArray) -> StoredRows:
    with np.errstate(over="ignore"):  # whoever stores them looks for what became infinite
        return StoredRows(rows.astype("<f2"))


def _as_int8(rows: RowArray) -> StoredRows:
    """Symmetric: the largest number of a row becomes 127 or -127, zero stays zero; to the nearest, ties to even."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    scales = np.minimum(largest / _LARGEST, _LARGEST_SCALE).astype("<f4")
    quotients = np.divide(rows, scales[:, np.newaxis], out=np.zeros_like(rows), where=scales[:, np.newaxis] > 0)
    # A scale that is a subnormal number is too coarse to divide by exactly.
    return StoredRows(np.rint(quotients).clip(-_LARGEST, _LARGEST).astype(np.int8), scales)


REDUCTIONS: Final[dict[RowDtype, Callable[[RowArray], StoredRows]]] = {
    "float32": _as_float32,
    "float16": _as_float16,
    "int8": _as_int8,
}


@dataclass(slots=True)
class RoundingError:
    """Adds up, block by block, how far stored rows are from those that came; sums are in float64."""

    largest: float = 0.0
    total: float = 0.0
    numbers: int = 0
    cosines: float = 0.0
    rows: int = 0

    def add(self, rows: RowArray, stored: RowArray) -> None:
        """Counts a block: what came and what a lookup will give, float32 of one shape (n, dim)."""
        exact, rounded = rows.astype(np.float64), stored.astype(np.float64)
        errors = np.abs(exact - rounded)
        self.largest = max(self.largest, float(errors.max(initial=0.0)))
        self.total += float(errors.sum())
        self.numbers += errors.size
        self.cosines += float(_cosines(exact, rounded).sum())
        self.rows += len(rows)

    @property
    def mean(self) -> float:
        """Mean absolute error of a number."""
        return self.total / max(1, self.numbers)

    @property
    def mean_cosine(self) -> float:
        """Mean over the rows of the cosine between what came and what is stored; at most 1, which rounding may pass."""
        return min(1.0, self.cosines / max(1, self.rows))


def _cosines(exact: NDArray[np.float64], rounded: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row of zeros has no direction: 1 where it stayed one, 0 where a row became one."""
    dots = np.einsum("nd,nd->n", exact, rounded)
    lengths = np.sqrt(np.einsum("nd,nd->n", exact, exact)) * np.sqrt(np.einsum("nd,nd->n", rounded, rounded))
    unchanged = (exact == rounded).all(axis=1).astype(np.float64)
    cosines: NDArray[np.float64] = np.divide(dots, lengths, out=unchanged, where=lengths > 0)
    return cosines
