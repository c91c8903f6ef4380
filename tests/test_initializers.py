"""Keras' initializers by Keras' formulas: https://keras.io/api/layers/initializers/ ; fan_in rows, fan_out columns."""

import math
from itertools import pairwise

import numpy as np
import pytest

from service.imported import ImportedTable
from service.initializers import INITIALIZERS, new_table
from service.types import RowArray

ROWS, COLUMNS = 20_000, 12  # more rows than a block has
CUT_NORMAL = 0.87962566103423978  # deviation of a unit normal that is cut at two of its deviations


def rows_of(table: ImportedTable) -> RowArray:
    rows: RowArray = np.concatenate([block.vectors for block in table.blocks])
    return rows


def drawn(name: str, rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> RowArray:
    return rows_of(new_table(rows, columns, name, seed))


UNIFORM = {
    "uniform": 0.05,
    "glorot_uniform": math.sqrt(6 / (ROWS + COLUMNS)),
    "he_uniform": math.sqrt(6 / ROWS),
    "lecun_uniform": math.sqrt(3 / ROWS),
}
NORMAL = {"normal": 0.05}
# The deviation before the cut; what is drawn lies within two of it.
CUT = {
    "truncated_normal": 0.05,
    "glorot_normal": math.sqrt(2 / (ROWS + COLUMNS)) / CUT_NORMAL,
    "he_normal": math.sqrt(2 / ROWS) / CUT_NORMAL,
    "lecun_normal": math.sqrt(1 / ROWS) / CUT_NORMAL,
}
CONSTANT = {"zeros": 0.0, "ones": 1.0}


def test_every_initializer_has_its_formula_here() -> None:
    assert UNIFORM.keys() | NORMAL.keys() | CUT.keys() | CONSTANT.keys() == INITIALIZERS.keys()


@pytest.mark.parametrize(("name", "limit"), UNIFORM.items(), ids=UNIFORM.keys())
def test_uniform_rows_fill_the_range_and_stay_in_it(name: str, limit: float) -> None:
    rows = drawn(name)
    assert np.abs(rows).max() <= np.float32(limit)
    assert rows.min() == pytest.approx(-limit, rel=1e-3)
    assert rows.max() == pytest.approx(limit, rel=1e-3)
    assert rows.std(dtype=np.float64) == pytest.approx(limit / math.sqrt(3), rel=0.01)
    counts, _ = np.histogram(rows, bins=10, range=(-limit, limit))
    assert counts.sum() == rows.size
    assert counts == pytest.approx(rows.size / 10, rel=0.03)


@pytest.mark.parametrize(("name", "deviation"), NORMAL.items(), ids=NORMAL.keys())
def test_normal_rows_have_the_deviation_and_go_beyond_twice_it(name: str, deviation: float) -> None:
    rows = drawn(name)
    assert rows.std(dtype=np.float64) == pytest.approx(deviation, rel=0.01)
    assert (np.abs(rows) > 2 * deviation).mean() == pytest.approx(0.0455, rel=0.05)
    assert np.abs(rows).max() > 4 * deviation


@pytest.mark.parametrize(("name", "deviation"), CUT.items(), ids=CUT.keys())
def test_truncated_normal_rows_end_at_two_deviations(name: str, deviation: float) -> None:
    rows = drawn(name)
    assert np.abs(rows).max() <= np.float32(2 * deviation) * (1 + 1e-6)
    assert np.abs(rows).max() > 1.99 * deviation
    assert rows.std(dtype=np.float64) == pytest.approx(deviation * CUT_NORMAL, rel=0.01)


@pytest.mark.parametrize("name", [*UNIFORM, *NORMAL, *CUT])
def test_drawn_rows_are_centred_and_all_different(name: str) -> None:
    rows = drawn(name)
    assert abs(rows.mean(dtype=np.float64)) < 0.01 * np.abs(rows).max()
    assert len(np.unique(rows, axis=0)) == ROWS


@pytest.mark.parametrize(("name", "value"), CONSTANT.items(), ids=CONSTANT.keys())
def test_a_constant_is_the_same_everywhere(name: str, value: float) -> None:
    assert np.array_equal(drawn(name), np.full((ROWS, COLUMNS), value))


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 2), (16_384, 3), (16_385, 3)], ids=str)
def test_a_table_has_the_shape_asked_for_in_float32(name: str, shape: tuple[int, int]) -> None:
    table = new_table(*shape, name, 0)
    rows = rows_of(table)
    assert (table.num_embeddings, table.embedding_dim) == shape == rows.shape
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", [*UNIFORM, *NORMAL, *CUT])
def test_a_seed_gives_the_same_rows_and_another_seed_others(name: str) -> None:
    assert drawn(name, 50, 4, seed=3).tobytes() == drawn(name, 50, 4, seed=3).tobytes()
    for one, other in pairwise([0, 1, 2, 2**64]):
        assert not (drawn(name, 50, 4, seed=one) == drawn(name, 50, 4, seed=other)).any(axis=1).any()


def test_the_origin_names_the_initializer_and_the_seed() -> None:
    assert new_table(5, 2, "he_normal", 11).source == {"initializer": "he_normal", "seed": 11}


def test_an_unknown_initializer_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="orthogonal"):
        new_table(5, 2, "orthogonal", 0)
