from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.layout import Layout
from tests.oracle import QUICK

ragged_lengths = st.lists(st.integers(0, 6), max_size=8)
shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("layout", "shape", "lengths", "total"),
    [
        pytest.param(Layout((0,)), (0,), [0], 0, id="an empty sequence"),
        pytest.param(Layout((3,)), (3,), [3], 3, id="one sequence"),
        pytest.param(Layout((1, 0)), (1, 0), [0], 0, id="a batch of one empty sequence"),
        pytest.param(Layout((0, 5)), (0, 5), [], 0, id="no sequences of five"),
        pytest.param(Layout((2, 3, 4)), (2, 3, 4), [4] * 6, 24, id="three axes"),
        pytest.param(Layout((2, 0, 4)), (2, 0, 4), [], 0, id="an empty axis in the middle"),
        pytest.param(Layout.ragged([3, 1]), (2, 3), [3, 1], 4, id="ragged"),
        pytest.param(Layout.ragged([0, 2, 0]), (3, 2), [0, 2, 0], 2, id="ragged with empty rows"),
        pytest.param(Layout.ragged([]), (0, 0), [], 0, id="ragged without rows"),
    ],
)
def test_a_layout_knows_its_shape_and_lengths(
    layout: Layout, shape: tuple[int, ...], lengths: list[int], total: int
) -> None:
    assert (layout.shape, layout.lengths().tolist(), layout.total, layout.rows) == (shape, lengths, total, len(lengths))


def test_lengths_are_int64() -> None:
    assert {layout.lengths().dtype for layout in (Layout((2, 3)), Layout.ragged([1, 2]))} == {np.dtype(np.int64)}


@pytest.mark.parametrize("lengths", [[], [0], [4], [2, 2, 2], [0, 0]], ids=str)
def test_rows_of_equal_length_are_a_rectangle(lengths: list[int]) -> None:
    layout = Layout.ragged(lengths)
    assert layout.ragged_lengths is None
    assert layout.shape == (len(lengths), max(lengths, default=0))


def test_lengths_may_come_as_an_array_of_any_integer_dtype() -> None:
    layout = Layout.ragged(np.array([2, 1], dtype=np.uint8))
    assert layout.lengths().tolist() == [2, 1]
    assert layout.place(2) == [1, 0]


@QUICK
@given(ragged_lengths)
def test_an_index_of_a_ragged_batch_is_row_and_column_as_sent(lengths: list[int]) -> None:
    layout = Layout.ragged(lengths)
    sent = [[row, column] for row, length in enumerate(lengths) for column in range(length)]
    assert layout.total == len(sent)
    assert [layout.place(position) for position in range(len(sent))] == sent


@QUICK
@given(shapes)
def test_an_index_of_a_rectangle_has_one_number_per_axis(shape: tuple[int, ...]) -> None:
    layout = Layout(shape)
    sent = [list(place) for place in product(*map(range, shape))]
    assert layout.total == len(sent)
    assert [layout.place(position) for position in range(len(sent))] == sent


@pytest.mark.parametrize("layout", [Layout((2, 2)), Layout.ragged([1, 2])], ids=["rectangle", "ragged"])
def test_an_index_is_of_plain_integers(layout: Layout) -> None:
    assert {type(axis) for axis in layout.place(2)} == {int}


def test_thirty_two_axes_are_a_layout() -> None:
    layout = Layout((1,) * 31 + (2,))
    assert (layout.total, layout.rows, layout.place(1)) == (2, 1, [0] * 31 + [1])
