"""Answers made of kept texts, in one piece or in slices, against orjson's of the whole array."""

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import row_texts
from service.api.row_texts import text_body
from service.rowtexts import RowTexts
from service.table import EmbeddingTable
from service.types import RowArray, Selection, TableVersion
from tests.test_rowtexts import Rows

ROWS: RowArray = np.random.default_rng(2).standard_normal((50, 3)).astype(np.float32)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    slice_bytes=st.integers(1, 2000),
    seed=st.integers(0, 1000),
)
def test_an_answer_is_what_orjson_writes(shape: tuple[int, ...], slice_bytes: int, seed: int) -> None:
    table = EmbeddingTable(TableVersion("t", 1), Rows(ROWS, []))
    texts = RowTexts(table.backend, 1 << 20, lambda *_: None)
    ids = np.random.default_rng(seed).integers(0, len(ROWS), math.prod(shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_texts, "_SLICE", slice_bytes)
        body = text_body(table, Selection(ids, shape, None, None), texts.of(ids))
        pieces = list(body.pieces)
    wanted = {
        "table": "t",
        "version": 1,
        "shape": (*shape, 3),
        "dtype": "float32",
        "vectors": ROWS[ids].reshape(*shape, 3),
        "mask": np.ones(shape, dtype=np.bool_),
    }
    assert b"".join(pieces) == orjson.dumps(wanted, option=orjson.OPT_SERIALIZE_NUMPY)
    assert body.length == sum(map(len, pieces))
    assert len(pieces) <= 1 or max(map(len, pieces[:-1])) < 2 * slice_bytes + 600
