"""The lookup of the HTTP contract as loops over Python numbers, written from the contract, and ways to ask it.

Nothing here uses the code under test but its words (`service.types`, errors, `Layout`).
"""

import math
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, product
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from hypothesis import HealthCheck, settings
from numpy.typing import ArrayLike

from service.backends.memory import MappedRows
from service.errors import InvalidRequest, NoUnknownRow, OutOfVocabulary, ServiceError
from service.layout import Layout
from service.table import EmbeddingTable
from service.types import IdBatch, LookupOptions, LookupRequest, OovRule, Pooling, TableVersion, TokenBatch
from service.vocabulary import Vocabulary

QUICK: Final = settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
IDENTITY: Final = TableVersion("words", 3)
# From here on a finite number is rounded to infinity (IEEE 754, to nearest and even).
BEYOND: Final = {"float32": 2.0**128 - 2.0**103, "float16": 65520.0}
CODES: Final = {"float32": "f", "float16": "e"}


def table_of(
    rows: ArrayLike,
    tokens: Sequence[str] | None = None,
    *,
    padding_id: int | None = None,
    unk_id: int | None = None,
    on_oov: OovRule = "error",
) -> EmbeddingTable:
    """A table over an array in memory."""
    backend = MappedRows(np.array(rows, dtype=np.float32))
    vocabulary = None if tokens is None else Vocabulary(tokens)
    return EmbeddingTable(IDENTITY, backend, vocabulary, padding_id, unk_id, on_oov)


def leaves(nested: Sequence[Any]) -> Iterator[Any]:
    """The elements of nested lists, in order."""
    for element in nested:
        if isinstance(element, list):
            yield from leaves(element)
        else:
            yield element


def layout_of(nested: Sequence[Any]) -> Layout:
    """How nested lists are arranged; the last axis of two may be ragged."""
    shape: tuple[int, ...] = (len(nested),)
    level = nested
    while level and isinstance(level[0], list):
        lengths = [len(element) for element in level]
        shape = (*shape, max(lengths))
        level = list(chain.from_iterable(level))
        if len(set(lengths)) > 1:
            return Layout.ragged(lengths)
    return Layout(shape)


def id_batch(ids: Sequence[int], layout: Layout) -> IdBatch:
    """Flat ids as the API hands them over: those beyond int64 as -1 and exactly beside it."""
    exact = {i: n for i, n in enumerate(ids) if not -(2**63) <= n < 2**63}
    values = np.array([-1 if i in exact else n for i, n in enumerate(ids)], dtype=np.int64)
    values.flags.writeable = False
    return IdBatch(values, layout, exact)


def request_of(
    nested: Sequence[Any],
    *,
    mask: Sequence[Any] | None = None,
    weights: Sequence[Any] | None = None,
    options: LookupOptions | None = None,
) -> LookupRequest:
    """A request for nested ids or tokens; what it carries cannot be written to."""
    flat, layout = list(leaves(nested)), layout_of(nested)
    batch = TokenBatch(flat, layout) if flat and isinstance(flat[0], str) else id_batch(flat, layout)
    given_mask = None if mask is None else np.array(list(leaves(mask)), dtype=np.bool_)
    given_weights = None if weights is None else np.array(list(leaves(weights)), dtype=np.float64)
    for array in (given_mask, given_weights):
        if array is not None:
            array.flags.writeable = False
    return LookupRequest(batch, given_mask, given_weights, *(() if options is None else (options,)))


@dataclass(frozen=True)
class Question:
    """A table and a request to it. `ids` has one list per sequence, in order; `outer` is how those are arranged.

    `width` is the length of the longest sequence, also where there is none. With `by_token` the ids are asked
    for as the tokens `spelled(id)`.
    """

    rows: list[list[float]]
    ids: list[list[int]]
    outer: tuple[int, ...]
    width: int
    mask: list[list[bool]] | None = None
    weights: list[list[float]] | None = None
    padding_id: int | None = None
    unk_id: int | None = None
    own_rule: OovRule = "error"
    options: LookupOptions = field(default_factory=LookupOptions)
    by_token: bool = False

    @property
    def dim(self) -> int:
        return len(self.rows[0])

    @property
    def rule(self) -> OovRule:
        return self.options.on_oov or self.own_rule

    @property
    def length(self) -> int:
        return self.width if self.options.length is None else self.options.length

    def knows(self, token_id: int) -> bool:
        return 0 <= token_id < len(self.rows)

    def table(self) -> EmbeddingTable:
        tokens = [spelled(i) for i in range(len(self.rows))]
        return table_of(self.rows, tokens, padding_id=self.padding_id, unk_id=self.unk_id, on_oov=self.own_rule)

    def request(self) -> LookupRequest:
        flat = list(chain.from_iterable(self.ids))
        layout = Layout((*self.outer, self.width))
        if any(len(sequence) != self.width for sequence in self.ids):
            layout = Layout.ragged([len(sequence) for sequence in self.ids])
        asked = request_of(flat, mask=self.mask, weights=self.weights, options=self.options)
        batch = TokenBatch([spelled(i) for i in flat], layout) if self.by_token else id_batch(flat, layout)
        return LookupRequest(batch, asked.mask, asked.weights, asked.options)


def spelled(token_id: int) -> str:
    """The token of an id, and of an id outside the table one that no vocabulary has."""
    return f"token {token_id}"


class Refusal(NamedTuple):
    """An error that must be raised, and what it must carry."""

    kind: type[ServiceError]
    members: dict[str, object]


class Number(NamedTuple):
    """A number of the answer, and how far two float64 sums of its terms may lie apart."""

    value: float
    slack: float = 0.0


class Position(NamedTuple):
    """One position of a sequence, resolved."""

    row: list[float]
    counts: bool
    weight: float


Vector: TypeAlias = list[Number]


@dataclass(frozen=True)
class Answer:
    """`exact` numbers are the stored ones, rounded at most once; the others are within a tolerance."""

    shape: tuple[int, ...]
    mask_shape: tuple[int, ...]
    mask: list[bool] | None
    numbers: list[Number]
    exact: bool
    dtype: str

    def must_be_refused(self) -> bool:
        return any(abs(n.value) - self._doubt(n) >= BEYOND[self.dtype] for n in self.numbers)

    def may_be_refused(self) -> bool:
        return any(abs(n.value) + self._doubt(n) >= BEYOND[self.dtype] for n in self.numbers)

    def _doubt(self, number: Number) -> float:
        return 0.0 if self.exact else number.slack + 1e-6 * abs(number.value)

    def data(self) -> bytes:
        """The little-endian bytes of exact numbers."""
        return struct.pack(f"<{len(self.numbers)}{CODES[self.dtype]}", *(n.value for n in self.numbers))

    def allows(self, values: Sequence[float]) -> bool:
        """Whether these are the numbers: 1e-5 relative or 1e-6 absolute, and half a step of float16."""
        step = (2.0**-11, 2.0**-25) if self.dtype == "float16" else (0.0, 0.0)
        return len(values) == len(self.numbers) and all(
            math.isfinite(value) and abs(value - n.value) <= 1e-6 + step[1] + (1e-5 + step[0]) * abs(n.value) + n.slack
            for value, n in zip(values, self.numbers, strict=True)
        )


def expected(question: Question) -> Answer | Refusal:
    """What the contract says of a question."""
    options = question.options
    if question.rule == "unk" and question.unk_id is None:
        return Refusal(NoUnknownRow, {"table": "words", "version": 3})
    if question.rule == "error" and (outside := _outside(question)):
        return Refusal(OutOfVocabulary, _members(question, outside))
    if options.truncation == "error" and (place := _too_long(question)) is not None:
        return Refusal(InvalidRequest, {"field": place})
    sequences = [_fitted(question, s) for s in range(len(question.ids))]
    if options.pooling != "none":
        vectors = [_pooled(sequence, question.dim, options.pooling) for sequence in sequences]
        return _answer(question, (*question.outer, question.dim), None, vectors)
    positions = list(chain.from_iterable(sequences))
    last = (question.length * question.dim,) if options.flatten else (question.length, question.dim)
    mask = [position.counts for position in positions]
    return _answer(question, (*question.outer, *last), mask, [_kept(p, options) for p in positions])


def _answer(question: Question, shape: tuple[int, ...], mask: list[bool] | None, vectors: list[Vector]) -> Answer:
    options = question.options
    if options.normalize:
        vectors = [_normalised(vector) for vector in vectors]
    exact = options.pooling == "none" and not options.normalize
    mask_shape = (*question.outer, question.length)
    return Answer(shape, mask_shape, mask, list(chain.from_iterable(vectors)), exact, options.dtype)


def _indices(question: Question) -> Iterator[tuple[list[int], int]]:
    """Every id with its index as sent."""
    for place, sequence in zip(product(*map(range, question.outer)), question.ids, strict=True):
        for position, token_id in enumerate(sequence):
            yield [*place, position], token_id


def _outside(question: Question) -> list[dict[str, object]]:
    return [
        {"index": index, "token": spelled(token_id)} if question.by_token else {"index": index, "id": token_id}
        for index, token_id in _indices(question)
        if not question.knows(token_id)
    ]


def _members(question: Question, outside: list[dict[str, object]]) -> dict[str, object]:
    counts = {"num_embeddings": len(question.rows), "total": len(outside)}
    return {"table": "words", "version": 3, **counts, "errors": outside[:100]}


def _too_long(question: Question) -> str | None:
    for place, sequence in zip(product(*map(range, question.outer)), question.ids, strict=True):
        if len(sequence) > question.length:
            return "ids" + "".join(f"[{axis}]" for axis in place)
    return None


def _position(question: Question, sequence: int, position: int) -> Position:
    token_id = question.ids[sequence][position]
    counts = token_id != question.padding_id if question.mask is None else question.mask[sequence][position]
    weight = 1.0 if question.weights is None else question.weights[sequence][position]
    if question.knows(token_id):
        return Position(question.rows[token_id], counts, weight)
    if question.rule == "unk" and question.unk_id is not None:
        return Position(question.rows[question.unk_id], counts, weight)
    return Position([0.0] * question.dim, counts and question.rule != "mask", weight)


def _fitted(question: Question, sequence: int) -> list[Position]:
    """A sequence cut and padded to the length of the answer."""
    positions = [_position(question, sequence, position) for position in range(len(question.ids[sequence]))]
    surplus = len(positions) - question.length
    if surplus > 0:
        return positions[surplus:] if question.options.truncation == "pre" else positions[: question.length]
    padding = [0.0] * question.dim if question.padding_id is None else question.rows[question.padding_id]
    blanks = [Position(padding, counts=False, weight=1.0)] * -surplus
    return positions + blanks if question.options.padding == "post" else blanks + positions


def _kept(position: Position, options: LookupOptions) -> Vector:
    if options.masked == "zero" and not position.counts:
        return [Number(0.0)] * len(position.row)
    return [Number(value) for value in position.row]


def _pooled(sequence: list[Position], dim: int, pooling: Pooling) -> Vector:
    terms = [position for position in sequence if position.counts]
    if not terms or all(term.weight == 0 for term in terms):
        return [Number(0.0)] * dim
    if pooling == "max":
        return [Number(max(term.row[d] for term in terms)) for d in range(dim)]
    return [_combined([(Fraction(t.weight), Fraction(t.row[d])) for t in terms], pooling) for d in range(dim)]


def _combined(terms: list[tuple[Fraction, Fraction]], pooling: Pooling) -> Number:
    """TensorFlow's combiners, in exact arithmetic; a float64 sum errs by its terms' sizes times their number."""
    total = size = power = Fraction(0)
    for weight, value in terms:
        total += weight * value
        size += abs(weight * value)
        power += weight * weight if pooling == "sqrtn" else weight
    slack = len(terms) * 2.0**-51
    if pooling == "sqrtn":
        root = _root(total, power)
        return Number(-root if total < 0 else root, slack * _root(size, power))
    below = power if pooling == "mean" else Fraction(1)
    return Number(_float(total / below), slack * _float(size / below))


def _root(total: Fraction, power: Fraction) -> float:
    """|total| / sqrt(power), where either alone may be beyond float64."""
    return math.sqrt(total * total / power)


def _float(number: Fraction) -> float:
    """The nearest float64; beyond them all the largest, which no dtype of an answer can hold either."""
    largest = sys.float_info.max
    return float(min(max(number, Fraction(-largest)), Fraction(largest)))


def _normalised(vector: Vector) -> Vector:
    """Over its L2 norm. Of what no float64 sum can tell from zero, or float32 cannot hold, anything is allowed."""
    norm, doubt = math.hypot(*(n.value for n in vector)), math.hypot(*(n.slack for n in vector))
    if norm == 0 and doubt == 0:
        return vector
    if norm <= doubt or any(abs(n.value) + n.slack >= BEYOND["float32"] for n in vector):
        return [Number(0.0, math.inf)] * len(vector)
    return [Number(n.value / norm, 2 * doubt / norm) for n in vector]
