"""Questions drawn ahead: what a user sends costs no time to make while it is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Final

import numpy as np

from load_tests.locust_users.batch import Batch, BoolArray
from load_tests.locust_users.kinds import KINDS, Kind
from load_tests.locust_users.options import Options
from load_tests.locust_users.question import Beyond, Question
from load_tests.locust_users.table import Table
from load_tests.locust_users.writing import WRITERS
from load_tests.locust_users.zipf import IdArray, zipf_ids

_MOST_IDS: Final = 1 << 18  # of all questions of a kind
_MOST_BEYOND: Final = 3  # ids outside the table in one request
_KEPT: Final = 0.75  # of the positions, in masks that are sent


@dataclass(frozen=True, slots=True)
class Questions:
    """Those of every kind, and those with ids outside the table, each without an end."""

    within: Mapping[str, Iterator[Question]]
    beyond: Mapping[str, Iterator[Question]]

    @classmethod
    def drawn(cls, table: Table, options: Options, process: int) -> "Questions":
        """Different ones in each process of a load generator; the same ones in every run with the same seed."""
        maker = Maker(table, options, np.random.default_rng([options.seed, process]))
        return cls(
            {name: cycle(maker.questions(name, kind)) for name, kind in KINDS.items()},
            {name: cycle(maker.questions_beyond(kind)) for name, kind in KINDS.items()},
        )


class Maker:
    """Draws the questions of one table."""

    def __init__(self, table: Table, options: Options, draw: np.random.Generator) -> None:
        self._table = table
        self._options = options
        self._draw = draw
        self._count = max(1, min(options.questions, _MOST_IDS // options.ids_per_request))

    def questions(self, name: str, kind: Kind) -> Sequence[Question]:
        """Those whose ids are all in the table."""
        return [self._question(name, kind, self._batch(kind)) for _ in range(self._count)]

    def questions_beyond(self, kind: Kind) -> Sequence[Question]:
        """Those with some that are not; a tenth as many, since few are sent."""
        if not self._options.oov_share:
            return []
        return [self._with_beyond(kind, self._batch(kind)) for _ in range(max(1, self._count // 10))]

    def _batch(self, kind: Kind) -> Batch:
        lengths = None if kind.layout == "flat" else self._lengths(rectangular=kind.layout == "batch")
        count = self._options.ids_per_request if lengths is None else int(lengths.sum())
        ids = zipf_ids(self._draw, count, self._table.num_embeddings, self._options.zipf)
        given: BoolArray | None = self._draw.random(count) < _KEPT if kind.masked else None
        return Batch(ids, lengths, self._table.padding_id, given)

    def _lengths(self, *, rectangular: bool) -> IdArray:
        """As many sequences as it takes for the ids of a request; the last one is cut."""
        shortest, longest = self._options.lengths
        wanted = self._options.ids_per_request
        if rectangular:
            length = min(wanted, int(self._draw.integers(shortest, longest, endpoint=True)))
            return np.full(wanted // length, length)
        drawn = self._draw.integers(shortest, longest, wanted, endpoint=True)
        ends = np.minimum(np.cumsum(drawn), wanted)
        lengths: IdArray = np.diff(ends, prepend=0)
        return lengths[lengths > 0]

    def _with_beyond(self, kind: Kind, batch: Batch) -> Question:
        count = int(self._draw.integers(1, min(_MOST_BEYOND, len(batch.ids)), endpoint=True))
        places = np.sort(self._draw.choice(len(batch.ids), count, replace=False))
        ids = batch.ids.copy()
        rows = self._table.num_embeddings
        ids[places] = np.where(self._draw.random(count) < 0.25, -1, rows + self._draw.integers(0, rows, count))
        beyond = tuple(Beyond(batch.index_of(int(place)), int(ids[place])) for place in places)
        return replace(self._question(f"{kind.form} oov", kind, replace(batch, ids=ids)), beyond=beyond)

    def _question(self, name: str, kind: Kind, batch: Batch) -> Question:
        request = WRITERS[kind.form](kind, self._table.name, batch)
        return Question(
            name=name,
            form=kind.form,
            path=request.path,
            headers=request.headers,
            body=request.body,
            cells=batch.cells(zero_masked=kind.masked),
            mask=batch.mask,
            has_mask=not kind.pooled and kind.form != "raw",
            pooled=kind.pooled,
            beyond=(),
        )
