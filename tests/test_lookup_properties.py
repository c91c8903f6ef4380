"""The lookup against the loops of `tests.oracle`, over drawn tables, requests and options."""

import struct
from collections.abc import Sequence
from itertools import product
from typing import Any, TypeVar, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import NotRepresentable
from service.table import EmbeddingTable
from service.types import LookupOptions, LookupRequest, LookupResult, OovRule, Pooling, Side, Truncation
from tests.oracle import QUICK, Answer, Question, Refusal, expected

T = TypeVar("T")

SIDES: tuple[Side, ...] = get_args(Side)
TRUNCATIONS: tuple[Truncation, ...] = get_args(Truncation)
POOLINGS: tuple[Pooling, ...] = ("sum", "mean", "max", "sqrtn")
LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
SUBNORMAL = struct.unpack("<f", b"\x01\x00\x00\x00")[0]

edges = st.sampled_from([0.0, -0.0, SUBNORMAL, -SUBNORMAL, LARGEST, -LARGEST, 65504.0, 65520.0, -65520.0])
any_number = edges | st.floats(width=32, allow_nan=False, allow_infinity=False)
tame_number = st.floats(-100, 100, width=32)
outside_ids = st.sampled_from([-1, -2, -(2**63), 2**63 - 1, 2**32, 2**31, -(2**32), 2**63, 2**70, -(2**70)])
weight_edges = st.sampled_from([0.0, 1.0, 5e-324, 1e-308, 1e-50, 1e50, 1e300, 1.7e308])
any_weight = weight_edges | st.floats(0, 1.7e308)
tame_weight = st.just(0.0) | st.floats(0, 10)

one_sequence = st.just(())
axes = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)
rules: st.SearchStrategy[OovRule] = st.sampled_from(get_args(OovRule))


@st.composite
def arrangements(draw: st.DrawFn) -> tuple[tuple[int, ...], int, list[int]]:
    """How sequences are arranged, the longest one's length, and every one's length."""
    outer = draw(one_sequence | axes)
    count = int(np.prod(outer, dtype=np.int64))
    if len(outer) == 1 and count and draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
        return outer, max(lengths), lengths
    width = draw(st.integers(0, 5))
    return outer, width, [width] * count


def like(lengths: list[int], elements: st.SearchStrategy[T]) -> st.SearchStrategy[list[list[T]]]:
    return st.tuples(*(st.lists(elements, min_size=n, max_size=n) for n in lengths)).map(list)


def options(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[LookupOptions]:
    """Any options without pooling; `fixed` replaces how a field is drawn."""
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "length": st.none() | st.integers(1, 7),
        "padding": st.sampled_from(get_args(Side)),
        "truncation": st.sampled_from(get_args(Truncation)),
        "on_oov": st.none() | rules,
        "masked": st.sampled_from(["keep", "zero"]),
        "flatten": st.booleans(),
    }
    return st.builds(LookupOptions, **(drawn | fixed))


poolings = st.sampled_from(POOLINGS)
dtypes = st.sampled_from(["float32", "float16"])


def pooled(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[LookupOptions]:
    return options(**({"pooling": poolings, "flatten": st.just(False)} | fixed))


@st.composite
def questions(
    draw: st.DrawFn,
    asked: st.SearchStrategy[LookupOptions],
    numbers: st.SearchStrategy[float] = any_number,
    weights: st.SearchStrategy[float] = any_weight,
) -> Question:
    count, dim = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    row = st.lists(numbers, min_size=dim, max_size=dim)
    a_row = st.integers(0, count - 1)
    outer, width, lengths = draw(arrangements())
    a_drawn_id = a_row if draw(st.booleans()) else a_row | outside_ids | st.just(count)
    unk_id = draw(st.none() | a_row)
    chosen = draw(asked)
    weighted = chosen.pooling in ("sum", "mean", "sqrtn") and draw(st.booleans())
    return Question(
        rows=draw(st.lists(row, min_size=count, max_size=count)),
        ids=draw(like(lengths, a_drawn_id)),
        outer=outer,
        width=width,
        mask=draw(st.none() | like(lengths, st.booleans())),
        weights=draw(like(lengths, weights)) if weighted else None,
        padding_id=draw(st.none() | a_row),
        unk_id=unk_id,
        # A manifest refuses the rule `unk` without an unknown row.
        own_rule=draw(rules.filter(lambda rule: rule != "unk" or unk_id is not None)),
        options=chosen,
        by_token=draw(st.booleans()),
    )


def check(question: Question) -> None:
    """Asks the question, and holds the answer against the contract's."""
    table, request, want = question.table(), question.request(), expected(question)
    before = stored(table)
    if isinstance(want, Refusal):
        check_refusal(table, request, want)
    elif want.must_be_refused():
        with pytest.raises(NotRepresentable):
            table.lookup(request)
    else:
        check_answer(table, request, want)
    assert stored(table) == before


def check_refusal(table: EmbeddingTable, request: LookupRequest, want: Refusal) -> None:
    with pytest.raises(want.kind) as caught:
        table.lookup(request)
    assert caught.value.members() == want.members


def check_answer(table: EmbeddingTable, request: LookupRequest, want: Answer) -> None:
    assert table.result_shape(request) == want.shape
    try:
        result = table.lookup(request)
    except NotRepresentable:
        assert want.may_be_refused()
        return
    check_form(result, want)
    if want.exact:
        assert result.vectors.tobytes() == want.data()
    else:
        assert want.allows(result.vectors.astype(np.float64).ravel().tolist())
    result.vectors[...] = 7  # the answer's memory is its own: `check` looks at the rows afterwards


def check_form(result: LookupResult, want: Answer) -> None:
    assert (result.vectors.shape, result.vectors.dtype.name) == (want.shape, want.dtype)
    assert result.vectors.flags.c_contiguous
    assert (result.mask is None) == (want.mask is None)
    if result.mask is not None:
        assert (result.mask.dtype.name, result.mask.shape) == ("bool", want.mask_shape)
        assert result.mask.ravel().tolist() == want.mask


def stored(table: EmbeddingTable) -> bytes:
    return table.backend.gather(np.arange(table.num_embeddings)).tobytes()


@QUICK
@given(questions(options()))
def test_an_unpooled_float32_answer_is_the_stored_rows_bit_for_bit(question: Question) -> None:
    check(question)


@QUICK
@given(questions(st.just(LookupOptions())))
def test_an_answer_without_options_is_the_stored_rows_bit_for_bit(question: Question) -> None:
    check(question)


@QUICK
@given(questions(options(dtype=st.just("float16")), numbers=any_number | tame_number))
def test_an_unpooled_float16_answer_is_the_rows_rounded_once_or_refused(question: Question) -> None:
    check(question)


@QUICK
@given(questions(options(normalize=st.just(True), dtype=dtypes)))
def test_a_normalised_answer_is_the_rows_over_their_norms(question: Question) -> None:
    check(question)


@settings(QUICK, max_examples=300)
@given(questions(pooled(), tame_number, tame_weight))
def test_a_pooled_answer_is_the_loops_sum_mean_max_and_sqrtn(question: Question) -> None:
    check(question)


@settings(QUICK, max_examples=300)
@given(questions(pooled(dtype=dtypes)))
def test_pooling_holds_for_every_float32_and_every_weight(question: Question) -> None:
    check(question)


@QUICK
@given(questions(pooled(normalize=st.just(True), dtype=dtypes), tame_number | any_number, tame_weight | any_weight))
def test_a_pooled_answer_is_normalised_after_pooling(question: Question) -> None:
    check(question)


@settings(QUICK, max_examples=200)
@given(questions(pooled(), tame_number, tame_weight), st.integers(1, 24))
def test_pooling_in_small_blocks_is_the_same(question: Question, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.pooling._BLOCK", block)
        check(question)


@settings(QUICK, max_examples=200)
@given(questions(pooled()), st.integers(1, 24))
def test_pooling_in_small_blocks_holds_for_every_number_and_weight(question: Question, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.pooling._BLOCK", block)
        check(question)


@QUICK
@given(questions(options(on_oov=st.just("error")) | pooled(on_oov=st.just("error"))))
def test_every_id_outside_the_table_is_reported_where_it_was_sent(question: Question) -> None:
    check(question)


@settings(QUICK, max_examples=25)
@given(st.lists(st.integers(90, 130), min_size=1, max_size=3), st.sampled_from([-1, 4, 2**70]), st.booleans())
def test_errors_are_capped_at_a_hundred_and_counted_in_full(lengths: list[int], outside: int, by_token: bool) -> None:
    ids = [[outside if position % 2 else 0 for position in range(length)] for length in lengths]
    check(Question([[1.0]] * 4, ids, (len(ids),), max(lengths), by_token=by_token))


@pytest.mark.parametrize("outer", [(), (0,), (2,), (2, 0), (2, 3), (1, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("width", [0, 1, 3])
def test_every_rectangle_is_answered_under_every_length_and_form(outer: tuple[int, ...], width: int) -> None:
    ids = [[(s + p) % 3 for p in range(width)] for s in range(int(np.prod(outer, dtype=np.int64)))]
    rows = [[0.5, -0.0], [1.0, 2.0], [SUBNORMAL, -3.0]]
    for chosen in forms(lengths=(None, 1, 3, 4)):
        check(Question(rows, ids, outer, width, padding_id=1, options=chosen))


def forms(lengths: Sequence[int | None]) -> list[LookupOptions]:
    """Every combination of what changes a shape."""
    plain = [
        LookupOptions(length, padding=padding, truncation=truncation, flatten=flatten, normalize=normalize)
        for length, padding, truncation, flatten, normalize in product(
            lengths, SIDES, TRUNCATIONS, (False, True), (False, True)
        )
    ]
    return plain + [
        LookupOptions(length, truncation=truncation, pooling=pooling, normalize=normalize)
        for length, truncation, pooling, normalize in product(lengths, TRUNCATIONS, POOLINGS, (False, True))
    ]
