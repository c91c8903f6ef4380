"""Lookups beyond the service's limits, as several of one version: how they are cut and joined, and their errors."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from service.client.answers import Lookup
from service.client.errors import EmbeddingServiceError, NotRepresentable, OutOfVocabulary, Problem
from service.client.inputs import Batch
from service.client.lookups import Question

_REPORTED: Final = 100
_PLACE: Final = re.compile(r"(ids|tokens|mask|weights)\[(\d+)\](.*)")
_BYTES: Final = {"float32": 4, "float16": 2}
_BY_SETTING: Final = {
    "EMBEDDING_MAX_IDS": "max_ids",
    "EMBEDDING_MAX_BODY_BYTES": "max_body_bytes",
    "EMBEDDING_MAX_RESPONSE_BYTES": "max_response_bytes",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may have, as the service is set: a lookup beyond them is divided.

    They need not be true: where the service refuses a part as too large, smaller ones are sent, and what it has said
    of its limits is kept.
    """

    max_ids: int = 262_144
    max_body_bytes: int = 16 << 20
    max_response_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if min(self.max_ids, self.max_body_bytes, self.max_response_bytes) < 1:
            raise ValueError("limits must be positive")

    def told(self, setting: object, allowed: object) -> "Limits":
        """These, lowered by what the service has said of one of them."""
        name = _BY_SETTING.get(str(setting))
        if name is None or not isinstance(allowed, int):
            return self
        found = {each: getattr(self, each) for each in _BY_SETTING.values()}
        return Limits(**{**found, name: max(1, min(found[name], allowed))})


def is_divisible(question: Question) -> bool:
    """Whether parts of the first axis can be asked for by themselves: not those of one padded or pooled sequence."""
    if len(question.batch.layout.shape) > 1:
        return True
    return not question.is_pooled and "length" not in question.options


def fitting(question: Question, first: int, limits: Limits, dim: int | None) -> int:
    """How many elements of the first axis, from `first` on, one request may have; at least one."""
    layout = question.batch.layout
    rows = min(layout.shape[0] - first, limits.max_ids)
    if layout.ragged_lengths is not None:
        ends = np.cumsum(layout.ragged_lengths[first : first + rows])
        rows = int(np.searchsorted(ends, limits.max_ids, side="right"))
    elif len(layout.shape) > 1:
        rows = min(rows, limits.max_ids // max(1, question.batch.bound(1)))
    if dim is not None:
        rows = min(rows, limits.max_response_bytes // max(1, _row_bytes(question, dim)))
    return max(1, rows)


def _row_bytes(question: Question, dim: int) -> int:
    """The bytes of the answer for one element of the first axis."""
    shape, options = question.batch.layout.shape, question.options
    axes = shape[1:]
    if question.is_pooled:
        axes = axes[:-1]
    elif axes and "length" in options:
        axes = (*axes[:-1], options["length"])
    return math.prod(axes) * dim * _BYTES.get(str(options.get("dtype")), 4)


def part_of(question: Question, first: int, stop: int) -> Question:
    """The question for some elements of the first axis; one of all of them is the question itself."""
    batch, options = question.batch, question.options
    if first == 0 and stop == batch.layout.shape[0]:
        return question
    if batch.layout.ragged_lengths is not None and not question.is_pooled and "length" not in options:
        # Parts are padded as the whole would be.
        options = {**options, "length": batch.layout.shape[1]}
    return question._replace(batch=batch.rows(first, stop), options=options)


def joined(parts: Sequence[Lookup]) -> Lookup:
    """The answers of all parts as one."""
    if len(parts) == 1:
        return parts[0]
    vectors: Any = np.concatenate([part.vectors for part in parts])
    masks = [part.mask for part in parts if part.mask is not None]
    mask = np.concatenate(masks) if masks else None
    for array in (vectors, mask):
        if array is not None:
            array.flags.writeable = False
    return Lookup(vectors, mask, parts[0].table, parts[0].version)


def shifted(error: EmbeddingServiceError, whole: Batch, first: int, vectors: int) -> EmbeddingServiceError:
    """The error of the part that begins with the element `first`, told of the whole, as if that had been sent.

    `vectors` is how many elements the first axis of the answer has before this part. Of ids outside the table all are
    listed and counted, also those of later parts; of tokens those of this part are, as only the service knows them.
    """
    if isinstance(error, OutOfVocabulary):
        return _of_whole(error, whole) if isinstance(whole.values, np.ndarray) else _moved(error, first)
    if first == 0:
        return error
    if isinstance(error, NotRepresentable) and error.members.get("index"):
        index = list(error.members["index"])
        return _retold(error, str(index), {"index": [index[0] + vectors, *index[1:]]})
    match = _PLACE.fullmatch(str(error.members.get("field")))
    if isinstance(error, Problem) and match is not None:
        name, row, rest = match.groups()
        return _retold(error, match.group(), {"field": f"{name}[{int(row) + first}]{rest}"})
    return error


def _retold(error: Problem, place: str, members: dict[str, Any]) -> Problem:
    (moved,) = members.values()
    return _like(error, error.detail.replace(place, str(moved)), {**error.members, **members})


def _like(error: Problem, detail: str, members: dict[str, Any]) -> Problem:
    told = type(error)(detail, error.status, members)
    told.request_id, told.retry_after = error.request_id, error.retry_after
    return told


def _of_whole(error: OutOfVocabulary, whole: Batch) -> Problem:
    values = whole.values
    assert isinstance(values, np.ndarray)  # noqa: S101  (that is asked before)
    (outside,) = np.nonzero((values < 0) | (values >= error.num_embeddings))
    errors = [
        {"index": whole.layout.place(position), "id": whole.exact.get(position, int(values[position]))}
        for position in outside[:_REPORTED].tolist()
    ]
    return _outside(error, errors, len(outside))


def _moved(error: OutOfVocabulary, first: int) -> Problem:
    errors = [{**each, "index": [each["index"][0] + first, *each["index"][1:]]} for each in error.errors]
    return _outside(error, errors, error.total)


def _outside(error: OutOfVocabulary, errors: list[dict[str, Any]], total: int) -> Problem:
    """The same in the words of the service."""
    now, was = errors[0], error.errors[0]
    more = "" if total == 1 else f" (and {total - 1} more)"
    text = error.detail.removesuffix(f" (and {error.total - 1} more)")
    return _like(
        error,
        text.replace(f" at {was['index']} ", f" at {now['index']} ", 1) + more,
        {**error.members, "errors": errors, "total": total},
    )
