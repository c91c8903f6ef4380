"""Lookups of the client against the loops of `tests.oracle`: whole ones, and ones that must be divided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.client import EmbeddingServiceError, InvalidRequest, Limits, Lookup, NotRepresentable
from service.client.errors import BY_CODE
from service.store import TableStore
from service.types import LookupOptions, OovRule
from tests.api import samples
from tests.client.both import Asked, Kind, opened
from tests.oracle import Answer, Question, Refusal, expected, spelled
from tests.test_lookup_properties import arrangements, dtypes, like, options, outside_ids, pooled
from tests.world import publish, serving

DRAWN: Final = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Kept:
    """A table of the server that is asked."""

    name: str
    padding_id: int | None = None
    unk_id: int | None = None
    on_oov: OovRule = "error"


TABLES: Final = (
    Kept("plain"),
    Kept("padded", padding_id=0, unk_id=1),
    Kept("masking", padding_id=3, on_oov="mask"),
    Kept("zeros", on_oov="zeros"),
    Kept("unknown", unk_id=2, on_oov="unk"),
)
DTYPES: Final[dict[str, type]] = {"ids": np.int64, "mask": np.bool_, "weights": np.float64}
ROWS: Final = samples.ROWS.tolist()
NARROW: Final[dict[str, Any]] = {"max_ids": 6, "max_body_bytes": 900, "max_response_bytes": 300}


def fill(root: Path) -> None:
    tokens = [spelled(i) for i in range(len(ROWS))]
    for table in TABLES:
        publish(
            TableStore(root), table.name, ROWS, tokens,
            padding_id=table.padding_id, unk_id=table.unk_id, on_oov=table.on_oov,
        )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def wide(root: Path, kind: Kind) -> Iterator[Asked]:
    with serving(root) as http, opened(kind, str(http.base_url)) as client:
        yield client


@pytest.fixture(scope="module", params=["told", "found"])
def narrow(root: Path, kind: Kind, request: pytest.FixtureRequest) -> Iterator[Asked]:
    """A client of a server with limits that small lookups exceed: one that knows them, and one that finds them out."""
    limits = Limits(**NARROW) if request.param == "told" else Limits()
    with serving(root, **NARROW) as http, opened(kind, str(http.base_url), limits=limits) as client:
        yield client


@st.composite
def many_rows(draw: st.DrawFn) -> tuple[tuple[int, ...], int, list[int]]:
    """One sequence, or a batch of many, ragged or not."""
    if draw(st.booleans()):
        length = draw(st.integers(0, 20))
        return (), length, [length]
    count = draw(st.integers(1, 20))
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
        return (count,), max(lengths), lengths
    width = draw(st.integers(0, 5))
    return (count,), width, [width] * count


@st.composite
def asked(
    draw: st.DrawFn, arranged: st.SearchStrategy[Any], chosen: st.SearchStrategy[LookupOptions]
) -> tuple[Kept, Question]:
    table, by = draw(st.sampled_from(TABLES)), draw(chosen)
    outer, width, lengths = draw(arranged)
    an_id = st.integers(0, len(ROWS) - 1)
    if not draw(st.booleans()):
        an_id = an_id | outside_ids | st.just(len(ROWS))
    weighted = by.pooling in ("sum", "mean", "sqrtn") and draw(st.booleans())
    return table, Question(
        rows=ROWS,
        ids=draw(like(lengths, an_id)),
        outer=outer,
        width=width,
        mask=draw(st.none() | like(lengths, st.booleans())),
        weights=draw(like(lengths, st.floats(0, 10))) if weighted else None,
        padding_id=table.padding_id,
        unk_id=table.unk_id,
        own_rule=table.on_oov,
        options=by,
        # Nested lists cannot say what lies behind an axis of zero; arrays of ids can.
        by_token=0 not in outer and draw(st.booleans()),
    )


any_options = options(dtype=dtypes) | pooled(dtype=dtypes) | options(normalize=st.booleans())
few = asked(arrangements(), any_options)
many = asked(many_rows(), any_options)


@given(drawn=few, as_arrays=st.booleans())
@DRAWN
def test_a_lookup_is_what_the_contract_says(wide: Asked, drawn: tuple[Kept, Question], as_arrays: bool) -> None:
    check(wide, *drawn, as_arrays)


@given(drawn=many, as_arrays=st.booleans())
@DRAWN
def test_a_lookup_beyond_the_limits_is_what_the_contract_says(
    narrow: Asked, drawn: tuple[Kept, Question], as_arrays: bool
) -> None:
    table, question = drawn
    if not question.outer and (question.options.pooling != "none" or question.options.length is not None):
        question = first_positions(question, 5)  # one sequence cannot be divided where it is padded or pooled
    check(narrow, table, question, as_arrays, all_tokens_are_told=False)


def first_positions(question: Question, most: int) -> Question:
    cut = {"ids": [question.ids[0][:most]], "width": min(question.width, most)}
    for name in ("mask", "weights"):
        given_ones = getattr(question, name)
        cut[name] = None if given_ones is None else [given_ones[0][:most]]
    return Question(**{**{f: getattr(question, f) for f in question.__dataclass_fields__}, **cut})


def check(client: Asked, table: Kept, question: Question, as_arrays: bool, *, all_tokens_are_told: bool = True) -> None:
    want = expected(question)
    try:
        found = client.lookup(table.name, **arguments(question, as_arrays))
    except NotRepresentable:
        assert isinstance(want, Answer)
        assert want.may_be_refused()
    except EmbeddingServiceError as error:
        if isinstance(want, Answer):
            raise
        if not all_tokens_are_told and isinstance(error, InvalidRequest) and "errors" in want.members:
            assert question.options.truncation == "error"  # of a part before the one with the id outside
            return
        check_refusal(error, want, exactly=all_tokens_are_told or not question.by_token)
    else:
        assert isinstance(want, Answer), want
        assert not want.must_be_refused()
        check_answer(found, want, table.name)


def check_answer(found: Lookup, want: Answer, table: str) -> None:
    assert (found.table, found.version, found.vectors.dtype.name) == (table, 1, want.dtype)
    assert found.vectors.shape == want.shape
    if want.exact:
        assert found.vectors.tobytes() == want.data()
    else:
        assert want.allows(found.vectors.astype(np.float64).ravel().tolist())
    if want.mask is None:
        assert found.mask is None
    else:
        assert found.mask is not None
        assert found.mask.shape == want.mask_shape
        assert found.mask.ravel().tolist() == want.mask
        assert not found.mask.flags.writeable
    assert not found.vectors.flags.writeable


def check_refusal(error: EmbeddingServiceError, want: Refusal, *, exactly: bool) -> None:
    assert type(error) is BY_CODE[want.kind.code]
    told = {**want.members, "table": error.members.get("table"), "version": 1}
    if "field" in want.members:
        assert error.members["field"] == want.members["field"]
    elif exactly or "errors" not in want.members:
        assert error.members == told
    else:
        errors: Any = told["errors"]
        assert error.members["errors"] == errors[: len(error.members["errors"])]
        assert 0 < error.members["total"] <= told["total"]
    if "errors" in want.members:
        first = error.members["errors"][0]
        what = f"id {first['id']}" if "id" in first else f"token {first['token']!r}"
        assert f"{what} at {first['index']} is not in table" in str(error)
        total = error.members["total"]
        assert str(error).endswith(f"(and {total - 1} more)" if total > 1 else "the ids 0 to 6")


def arguments(question: Question, as_arrays: bool) -> dict[str, Any]:
    """The question as a caller would ask it."""
    values: list[list[Any]] = question.ids
    if question.by_token:
        values = [[spelled(i) for i in sequence] for sequence in question.ids]
    said: dict[str, Any] = {"tokens" if question.by_token else "ids": nested(values, question.outer)}
    if question.mask is not None:
        said["mask"] = nested(question.mask, question.outer)
    if question.weights is not None:
        said["weights"] = nested(question.weights, question.outer)
    if 0 in question.outer:
        said = {name: np.zeros((*question.outer, question.width), DTYPES[name]) for name in said}
    elif as_arrays:
        said = {name: arrays(value, name) for name, value in said.items()}
    given_ones = {f: getattr(question.options, f) for f in LookupOptions.__dataclass_fields__}
    return said | given_ones


def nested(sequences: Sequence[list[Any]], outer: tuple[int, ...]) -> list[Any]:
    """Sequences in the arrangement of `outer`; an axis of zero leaves no trace of those behind it."""
    left = iter(sequences)

    def of(axes: tuple[int, ...]) -> list[Any]:
        if not axes:
            return list(next(left))
        return [of(axes[1:]) for _ in range(axes[0])]

    return of(outer) if outer else list(next(islice(left, 1)))


def arrays(value: list[Any], name: str) -> Any:  # noqa: ANN401
    """The same as an array, or as a list of them; tokens and integers beyond 64 bits as they are."""
    if name == "tokens":
        return value
    dtype = DTYPES[name]
    try:
        return np.array(value, dtype=dtype)
    except (OverflowError, ValueError):
        if name == "ids" and all(isinstance(row, list) and all(abs(i) < 2**63 for i in row) for row in value):
            return [np.array(row, dtype=dtype) for row in value]
        return value
