"""Rows in fewer bits against loops over Python's floats, and what is said of the error against sums in float64."""

import math
import struct
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import ArrayLike

from service.reduction import REDUCTIONS, RoundingError, StoredRows, widened_halves
from service.types import RowArray
from tests.oracle import BEYOND, QUICK

LARGEST: Final = float(np.finfo(np.float32).max)
SMALLEST: Final = float(np.finfo(np.float32).smallest_subnormal)
TINY: Final = float(np.finfo(np.float32).tiny)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(FLOATS, st.floats(-4, 4, width=32), st.integers(-254, 254).map(float))
SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
ROWS = arrays(np.float32, SHAPES, elements=NUMBERS)


def single(number: float) -> float:
    """The float32 that is nearest, ties to even."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    return float(rounded)


def scale_of(row: list[float]) -> float:
    """The largest number over 127, or the float32 below where 127 times it would be infinite."""
    scale = single(max(map(abs, row)) / 127)
    return float(np.nextafter(np.float32(scale), np.float32(0))) if 127 * scale >= BEYOND["float32"] else scale


def by_loop(row: list[float]) -> tuple[list[int], float]:
    """A row as int8 with its scale."""
    scale = scale_of(row)
    if scale == 0:
        return [0] * len(row), 0.0
    return [max(-127, min(127, round(single(number / scale)))) for number in row], scale


def as_rows(rows: ArrayLike) -> RowArray:
    return np.array(rows, dtype=np.float32, ndmin=2)


def int8(rows: ArrayLike) -> StoredRows:
    return REDUCTIONS["int8"](as_rows(rows))


def scales_of(stored: StoredRows) -> list[float]:
    assert stored.scales is not None
    return [float(scale) for scale in stored.scales]


# int8


@QUICK
@given(ROWS)
def test_int8_is_the_nearest_of_127_steps_on_either_side_of_zero(rows: RowArray) -> None:
    stored = REDUCTIONS["int8"](rows)
    expected = [by_loop(row) for row in rows.tolist()]
    assert stored.values.tolist() == [values for values, _ in expected]
    assert scales_of(stored) == [scale for _, scale in expected]
    assert stored.scales is not None
    assert (stored.values.dtype, stored.scales.dtype) == (np.dtype(np.int8), np.dtype("<f4"))
    assert stored.values.flags.c_contiguous


@QUICK
@given(ROWS)
def test_widened_int8_is_each_value_times_the_scale_of_its_row(rows: RowArray) -> None:
    stored = REDUCTIONS["int8"](rows)
    widened = stored.widened()
    assert (widened.dtype, widened.shape) == (np.dtype(np.float32), rows.shape)
    scales = scales_of(stored)
    expected = [[single(value * scales[n]) for value in row] for n, row in enumerate(stored.values.tolist())]
    assert widened.tobytes() == as_rows(expected).tobytes()
    assert np.isfinite(widened).all()


@QUICK
@given(ROWS)
def test_the_error_of_a_number_is_at_most_half_a_step(rows: RowArray) -> None:
    stored = REDUCTIONS["int8"](rows)
    for row, widened, scale in zip(rows.tolist(), stored.widened().tolist(), scales_of(stored), strict=True):
        rounding = 256 * 2**-24  # of the quotient, up to 127, and of the product
        most = max(scale * (0.5 + rounding), 64 * SMALLEST)  # subnormal scales are whole steps of the smallest
        assert all(abs(number - back) <= most for number, back in zip(row, widened, strict=True))


@QUICK
@given(ROWS)
def test_a_row_and_its_negative_are_stored_alike(rows: RowArray) -> None:
    here, there = REDUCTIONS["int8"](rows), REDUCTIONS["int8"](-rows)
    assert (here.values == -there.values).all()
    assert scales_of(here) == scales_of(there)


INT8: dict[str, tuple[list[float], list[int], float]] = {
    "integers up to 127 are exact": ([127.0, -127.0, 1.0, -63.0, 0.0], [127, -127, 1, -63, 0], 1.0),
    "ties go to the even step": ([127.0, 0.5, 1.5, 2.5, -0.5, -1.5], [127, 0, 2, 2, 0, -2], 1.0),
    "one column is exact but for its scale": ([-3.0], [-127], single(3 / 127)),
    "the sign of the largest": ([1.0, -254.0], [0, -127], 2.0),
    "a row of zeros": ([0.0, 0.0, 0.0], [0, 0, 0], 0.0),
    "negative zero": ([-0.0, 127.0], [0, 127], 1.0),
    "negative zeros only": ([-0.0, -0.0], [0, 0], 0.0),
    "the smallest number vanishes": ([SMALLEST, -SMALLEST], [0, 0], 0.0),
    "the largest subnormal that vanishes": ([63 * SMALLEST, 0.0], [0, 0], 0.0),
    "the smallest that stays": ([64 * SMALLEST, -SMALLEST], [64, -1], SMALLEST),
    "beyond 127 steps of the smallest scale": ([190 * SMALLEST, -190 * SMALLEST], [127, -127], SMALLEST),
    "the smallest normal number": ([TINY, -TINY / 2], [127, -64], single(TINY / 127)),
    "the largest of float32": ([LARGEST, -LARGEST, LARGEST / 2], [127, -127, 64], scale_of([LARGEST])),
    "large and small in one row": ([LARGEST, 1.0, SMALLEST], [127, 0, 0], scale_of([LARGEST])),
}


@pytest.mark.parametrize(("row", "values", "scale"), INT8.values(), ids=INT8.keys())
def test_int8_of_a_row(row: list[float], values: list[int], scale: float) -> None:
    stored = int8(row)
    assert (stored.values.tolist(), scales_of(stored)) == ([values], [scale])
    assert np.isfinite(stored.widened()).all()


@pytest.mark.parametrize("number", [LARGEST, -LARGEST, LARGEST * (1 - 2**-24), LARGEST * (1 - 2**-22)])
def test_the_largest_numbers_stay_finite_and_near(number: float) -> None:
    widened = int8([number]).widened().item()
    assert widened == pytest.approx(single(number), rel=2**-22)


def test_zeros_of_either_sign_come_back_as_zero() -> None:
    assert int8([[0.0, -0.0], [-0.0, 5.0]]).widened()[:, 0].tobytes() == bytes(8)


def test_rows_do_not_depend_on_each_other() -> None:
    rows = (np.random.default_rng(5).normal(size=(35, 8)) * np.logspace(-10, 24, 35)[:, None]).astype(np.float32)
    together = int8(rows)
    apart = [int8(row) for row in rows]
    assert together.values.tobytes() == b"".join(one.values.tobytes() for one in apart)
    assert scales_of(together) == [scale for one in apart for scale in scales_of(one)]


# float16 and float32


@QUICK
@given(ROWS)
def test_float16_is_numpys_and_so_is_the_way_back(rows: RowArray) -> None:
    stored = REDUCTIONS["float16"](rows)
    with np.errstate(over="ignore"):
        expected = rows.astype(np.float16)
    assert stored.values.dtype == np.dtype("<f2")
    assert stored.values.tobytes() == expected.tobytes()
    assert stored.scales is None
    widened = stored.widened()
    assert widened.dtype == np.float32
    assert widened.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize(("number", "finite"), [(65504, True), (65519.996, True), (65520, False), (-65520, False)])
def test_float16_beyond_its_range_is_infinite_so_that_the_writer_can_tell(number: float, finite: bool) -> None:
    stored = REDUCTIONS["float16"](as_rows([number]))
    assert bool(np.isfinite(stored.values).all()) is finite


@QUICK
@given(ROWS)
def test_float32_is_kept_bit_for_bit(rows: RowArray) -> None:
    for given_rows in (rows, np.asfortranarray(rows)):
        stored = REDUCTIONS["float32"](given_rows)
        assert (stored.values.tobytes(), stored.scales) == (rows.tobytes(), None)
        assert stored.widened().tobytes() == rows.tobytes()


# What the error is said to be


def errors_of(rows: RowArray, stored: RowArray) -> dict[str, float]:
    """Straight from the definitions, in Python's floats, with exact sums."""
    pairs = list(zip(rows.tolist(), stored.tolist(), strict=True))
    apart = [abs(a - b) for row, back in pairs for a, b in zip(row, back, strict=True)]
    cosines = [cosine(row, back) for row, back in pairs]
    return {
        "largest": max(apart),
        "mean": math.fsum(apart) / len(apart),
        "mean_cosine": math.fsum(cosines) / len(cosines),
    }


def cosine(row: list[float], back: list[float]) -> float:
    lengths = math.sqrt(math.fsum(a * a for a in row)) * math.sqrt(math.fsum(b * b for b in back))
    if lengths == 0:
        return 1.0 if row == back else 0.0
    return math.fsum(a * b for a, b in zip(row, back, strict=True)) / lengths


def measured(rows: RowArray, stored: RowArray, cuts: list[int]) -> dict[str, float]:
    error = RoundingError()
    bounds = [0, *sorted(cuts), len(rows)]
    for start, end in pairwise(bounds):
        error.add(rows[start:end], stored[start:end])
    assert (error.rows, error.numbers) == (len(rows), rows.size)
    return {"largest": error.largest, "mean": error.mean, "mean_cosine": error.mean_cosine}


@QUICK
@given(st.data())
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_error_is_that_of_all_rows_whatever_the_blocks(dtype: Any, data: st.DataObject) -> None:  # noqa: ANN401
    elements = st.floats(-60000, 60000, width=32)
    rows = data.draw(arrays(np.float32, SHAPES, elements=elements))
    stored = REDUCTIONS[dtype](rows).widened()
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4))
    expected = pytest.approx(errors_of(rows, stored), rel=1e-12)
    assert measured(rows, stored, []) == expected
    assert measured(rows, stored, cuts) == expected
    assert measured(rows, stored, list(range(len(rows)))) == expected


COSINES: dict[str, tuple[list[list[float]], list[list[float]], float]] = {
    "a row of zeros that stayed one": ([[0.0, 0.0]], [[0.0, 0.0]], 1.0),
    "a negative zero that became zero": ([[-0.0, 0.0]], [[0.0, 0.0]], 1.0),
    "a row that became zeros": ([[1e-40, 0.0]], [[0.0, 0.0]], 0.0),
    "a row of zeros that became something": ([[0.0, 0.0]], [[0.0, 1.0]], 0.0),
    "the same direction": ([[3.0, 4.0]], [[6.0, 8.0]], 1.0),
    "the opposite": ([[3.0, 4.0]], [[-3.0, -4.0]], -1.0),
    "a right angle": ([[3.0, 4.0]], [[4.0, -3.0]], 0.0),
    "the mean over rows": (
        [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]], (1 + 0.5**0.5) / 3
    ),
    "the largest numbers": ([[LARGEST, LARGEST]], [[LARGEST, LARGEST]], 1.0),
    "the smallest numbers": ([[SMALLEST, 0.0]], [[SMALLEST, 0.0]], 1.0),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "stored", "expected"), COSINES.values(), ids=COSINES.keys())
def test_the_mean_cosine(rows: list[list[float]], stored: list[list[float]], expected: float) -> None:
    error = RoundingError()
    error.add(as_rows(rows), as_rows(stored))
    assert error.mean_cosine == pytest.approx(expected, rel=1e-15)


def test_nothing_measured_is_no_error() -> None:
    error = RoundingError()
    error.add(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32))
    assert (error.largest, error.mean, error.rows) == (0.0, 0.0, 0)


def test_every_finite_half_is_widened_as_numpy_does() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    assert len(finite) == (1 << 16) - 2 * 1024
    assert widened_halves(finite).tobytes() == finite.astype(np.float32).tobytes()
