"""The embedding table in memory, and the lookup: ids or tokens in, vectors and mask out. No files, no HTTP."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from service.backends import Backend
from service.errors import NotRepresentable, NoUnknownRow, NoVocabulary, OutOfVocabulary
from service.padding import Cells, pad, truncate
from service.pooling import pool
from service.rowtexts import RowTexts
from service.texts import BETWEEN_BLANKS, TextReader
from service.types import (
    DEFAULT_OPTIONS,
    IdArray,
    IdBatch,
    LookupOptions,
    LookupRequest,
    LookupResult,
    MaskArray,
    OovRule,
    RowArray,
    Selection,
    TableVersion,
    VectorArray,
)
from service.unitlength import over_norms
from service.vocabulary import Vocabulary

_UNSIGNED: Final = np.dtype(np.uint64)
_LARGEST: Final[dict[type, float]] = {
    np.float32: float(np.finfo(np.float32).max),
    np.float16: float(np.finfo(np.float16).max),
}
_FEW: Final = 4096
"""Values whose squares are summed without threads of the linear algebra library."""
_Narrow = TypeVar("_Narrow", bound=np.floating[Any])


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class EmbeddingTable:
    """One version's rows, immutable, with Keras `Embedding` semantics. Safe to use from several threads.

    `padding_id` is masked in every answer (Keras `mask_zero` is padding_id 0), `unk_id` is the row that the
    rule `unk` gives, `on_oov` the rule for requests that name none. `texts` are those of its rows,
    `reader` reads those of clients. `saw_outside` is told how many ids of a lookup were outside, where the rule
    for them answered.
    """

    identity: TableVersion
    backend: Backend
    vocabulary: Vocabulary | None = None
    padding_id: int | None = None
    unk_id: int | None = None
    on_oov: OovRule = "error"
    texts: RowTexts | None = None
    reader: TextReader = BETWEEN_BLANKS
    saw_outside: Callable[[int], None] = lambda _: None
    num_embeddings: int = field(init=False)
    embedding_dim: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_embeddings", self.backend.num_embeddings)
        object.__setattr__(self, "embedding_dim", self.backend.embedding_dim)

    @property
    def dtype(self) -> str:
        return self.backend.dtype

    @property
    def reads_texts(self) -> bool:
        """Whether there is a vector for a text."""
        has_tokens = self.reader.tokenize is not None or self.vocabulary is not None
        return has_tokens and self.reader.why_not is None

    def result_shape(self, request: LookupRequest) -> tuple[int, ...]:
        """The shape that the vectors of `lookup(request)` have, without looking anything up."""
        options, shape, dim = request.options, request.batch.layout.shape, self.embedding_dim
        if options.pooling != "none":
            return (*shape[:-1], dim)
        length = shape[-1] if options.length is None else options.length
        return (*shape[:-1], length * dim) if options.flatten else (*shape[:-1], length, dim)

    def lookup(self, request: LookupRequest) -> LookupResult:
        """The vectors and the mask of `request`; raises what `select` raises, and NotRepresentable."""
        selection = self.select(request)
        if selection is not None:
            return self.result(selection)
        options = request.options
        all_cells, outside = self._cells(request)
        cells = truncate(all_cells, options)
        if options.pooling != "none":
            pooled = pool(self.backend, cells, options.pooling)
            result = LookupResult(_finish(pooled, cells.layout.shape[:-1], options), None)
        else:
            result = self._unpooled(pad(cells, options, self.padding_id), options)
        self._tell(outside)
        return result

    def select(self, request: LookupRequest) -> Selection | None:
        """Which rows are the vectors of `lookup(request)`; None where rows are changed on their way into the answer.

        Raises OutOfVocabulary (under the rule `error`), NoVocabulary, NoUnknownRow, and InvalidRequest for a
        sequence longer than the length asked for.
        """
        batch, options = request.batch, request.options
        if options is DEFAULT_OPTIONS and request.mask is None and isinstance(batch, IdBatch):
            layout = batch.layout
            if layout.ragged_lengths is None and self.has_all(batch.values):
                return Selection(batch.values, layout.shape, None, self.padding_id)
        if not _keeps_rows(options):
            return None
        all_cells, outside = self._cells(request)
        cells = pad(truncate(all_cells, options), options, self.padding_id)
        self._tell(outside)
        mask = np.ones(len(cells.ids), dtype=np.bool_) if cells.mask is None else cells.mask
        return Selection(cells.ids, cells.layout.shape, mask, self.padding_id, cells.blank)

    def result(self, selection: Selection) -> LookupResult:
        """The vectors and the mask of a selection."""
        rows = self.rows(selection).reshape(*selection.shape, self.embedding_dim)
        return LookupResult(rows, selection.counting().reshape(selection.shape))

    def rows(self, selection: Selection) -> RowArray:
        """The rows of a selection: a fresh array of shape (n, dim)."""
        rows = self.backend.gather(selection.ids)
        if selection.blank is not None:
            rows[selection.blank] = 0.0
        return rows

    def _unpooled(self, cells: Cells, options: LookupOptions) -> LookupResult:
        rows = self.backend.gather(cells.ids)
        if cells.blank is not None:
            rows[cells.blank] = 0.0
        mask = np.ones(len(cells.ids), dtype=np.bool_) if cells.mask is None else cells.mask
        if options.masked == "zero":
            rows[~mask] = 0.0
        shape = cells.layout.shape
        return LookupResult(_finish(rows, shape, options), mask.reshape(shape))

    def has_all(self, ids: IdArray) -> bool:
        """Whether all of these are ids of the table."""
        # A negative id is a huge one when read as unsigned: one pass checks both ends, and argmax is the fastest.
        unsigned = ids.view(_UNSIGNED)
        return len(ids) == 0 or unsigned.item(unsigned.argmax()) < self.num_embeddings

    def _derived_mask(self, ids: IdArray) -> MaskArray:
        if self.padding_id is None:
            return np.ones(len(ids), dtype=np.bool_)
        mask: MaskArray = ids != self.padding_id
        return mask

    def _tell(self, outside: int) -> None:
        if outside:
            self.saw_outside(outside)

    def _cells(self, request: LookupRequest) -> tuple[Cells, int]:
        """Every position resolved to a row, a mask and a blank, under the rule for ids outside the table.

        With it comes how many ids that rule was applied to.
        """
        ids = self._ids(request)
        rule = request.options.on_oov or self.on_oov
        if rule == "unk" and self.unk_id is None:
            raise NoUnknownRow(f"on_oov 'unk' needs an unknown row, and {self.identity} has no unk_id", self.identity)
        explicit = request.mask
        mask = explicit if explicit is not None or self.padding_id is None else self._derived_mask(ids)
        if self.has_all(ids):
            return Cells(request.batch.layout, ids, mask, None, request.weights), 0
        known = ids.view(np.uint64) < self.num_embeddings
        if rule == "error":
            raise self._out_of_vocabulary(request, ids, known)
        if rule == "mask":
            mask = known if mask is None else mask & known
        substitute = self.unk_id if rule == "unk" and self.unk_id is not None else 0
        blank = None if rule == "unk" else ~known
        cells = Cells(request.batch.layout, np.where(known, ids, substitute), mask, blank, request.weights)
        return cells, len(ids) - int(np.count_nonzero(known))

    def _ids(self, request: LookupRequest) -> IdArray:
        batch = request.batch
        if isinstance(batch, IdBatch):
            return batch.values
        if self.vocabulary is None:
            raise NoVocabulary(f"{self.identity} has no vocabulary; send ids", self.identity)
        return self.vocabulary.ids(batch.values)

    def _out_of_vocabulary(self, request: LookupRequest, ids: IdArray, known: MaskArray) -> OutOfVocabulary:
        (outside,) = np.nonzero(~known)
        batch = request.batch
        errors: list[dict[str, object]] = []
        for position in outside[: OutOfVocabulary.reported].tolist():
            index = batch.layout.place(position)
            if isinstance(batch, IdBatch):
                errors.append({"index": index, "id": batch.exact.get(position, int(ids[position]))})
            else:
                errors.append({"index": index, "token": batch.values[position]})
        return OutOfVocabulary(self.identity, self.num_embeddings, len(outside), errors)


def _keeps_rows(options: LookupOptions) -> bool:
    """Whether vectors are rows as they are stored, each by itself."""
    changed = options.normalize or options.flatten or options.masked == "zero"
    return options.pooling == "none" and options.dtype == "float32" and not changed


def _finish(rows: RowArray | NDArray[np.float64], shape: tuple[int, ...], options: LookupOptions) -> VectorArray:
    """Normalises, flattens and converts, in this order; `shape` is that of the ids, or of the sequences."""
    dim = rows.shape[1]
    if options.normalize:
        rows = _normalized(rows)
    vectors = rows.reshape((*shape[:-1], shape[-1] * dim) if options.flatten else (*shape, dim))
    return _narrowed(vectors, np.float32 if options.dtype == "float32" else np.float16)


def _normalized(rows: RowArray | NDArray[np.float64]) -> RowArray | NDArray[np.float64]:
    """Each row over its L2 norm, in float64; those that are float64 are scaled first.

    The square of a float32 neither overflows nor vanishes in float64, that of a pooled sum may.
    """
    if rows.dtype == np.float64:
        _check_finite(rows)
        largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
        rows = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    return cast("RowArray | NDArray[np.float64]", over_norms(rows))


def _narrowed(values: NDArray[np.floating[Any]], dtype: type[_Narrow]) -> NDArray[_Narrow]:
    """`values` as `dtype`; raises NotRepresentable where a finite value would become infinite."""
    if values.dtype == dtype:
        return cast("NDArray[_Narrow]", values)
    if _is_small(values, _LARGEST[dtype]):
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    _check_finite(narrow)
    return narrow


def _is_small(values: NDArray[np.floating[Any]], largest: float) -> bool:
    """Whether no value is beyond `largest`, or not finite."""
    if 0 < values.size <= _FEW:
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = flat.dot(flat)
        if squares <= largest * largest:  # says it in a third of the time, mostly
            return True
    return bool(values.size and np.maximum.reduce(np.abs(values), axis=None) <= largest)


def _check_finite(values: NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(values).all():
        raise NotRepresentable(values.dtype.name, np.argwhere(~np.isfinite(values))[0].tolist())
