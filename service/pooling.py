"""Sum, mean, max and sqrtn over the unmasked positions of each sequence, in bounded memory.

Sums are taken in float64: a float32 sum of a few hundred terms already misses 1e-6 where terms cancel. The
combiners are TensorFlow's (`tf.nn.embedding_lookup_sparse`): mean is sum(w x) / sum(w), sqrtn is
sum(w x) / sqrt(sum(w^2)); without weights each position weighs 1.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.backends import Backend
from service.backends.combining import combined
from service.padding import Cells
from service.types import Combination, IdArray, MaskArray, Pooling, WeightArray

_BLOCK: Final = 1 << 19
"""Numbers gathered at once (2 MiB of float32): what is pooled never lies in memory as a whole.

Below the allocator's threshold (`server/allocator.py`), so that no block is of fresh pages.
"""


@dataclass(frozen=True, slots=True)
class _Terms:
    """The unmasked positions of a batch, flat; sequence s has `counts[s]` of them from `starts[s]` on."""

    ids: IdArray
    blank: MaskArray | None
    weights: WeightArray | None
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]


def pool(backend: Backend, cells: Cells, pooling: Pooling) -> NDArray[np.float64]:
    """One vector per sequence, float64 of shape (sequences, dim); zeros where nothing counts.

    A sum beyond float64 is infinite or NaN: whoever narrows the result has to look.
    """
    if _is_plain(cells) and cells.layout.shape[-1] * backend.embedding_dim <= _BLOCK:
        return _rectangle(backend, cells, pooling)
    terms = _unmasked(cells, pooling)
    pooled = np.zeros((len(terms.counts), backend.embedding_dim), dtype=np.float64)
    # Sequences of one count form a rectangle; numpy reduces those many times faster than ragged segments.
    for count in np.unique(terms.counts[terms.counts > 0]).tolist():
        (members,) = np.nonzero(terms.counts == count)
        at_once = max(1, _BLOCK // (count * backend.embedding_dim))
        for first in range(0, len(members), at_once):
            chosen = members[first : first + at_once]
            pooled[chosen] = _reduce(backend, terms, terms.starts[chosen], count, pooling)
    _divide(pooled, terms, pooling)
    return pooled


def _is_plain(cells: Cells) -> bool:
    """Whether every position counts, and all alike."""
    special = cells.weights is not None or cells.blank is not None or cells.layout.ragged_lengths is not None
    return not special and len(cells.ids) > 0 and (cells.mask is None or bool(cells.mask.all()))


def _rectangle(backend: Backend, cells: Cells, pooling: Pooling) -> NDArray[np.float64]:
    """The common case in a third of the time: sequences of one length, nothing masked, no weights."""
    count = cells.layout.shape[-1]
    pooled = backend.combine(cells.ids, count, "max" if pooling == "max" else "sum")
    if pooling in ("mean", "sqrtn"):
        pooled /= count if pooling == "mean" else math.sqrt(count)
    return pooled


def _unmasked(cells: Cells, pooling: Pooling) -> _Terms:
    lengths = cells.layout.lengths()
    ids, blank, weights, counts = cells.ids, cells.blank, cells.weights, lengths
    if cells.mask is not None and not cells.mask.all():
        owner = np.repeat(np.arange(len(lengths)), lengths)
        counts = np.bincount(owner[cells.mask], minlength=len(lengths))
        ids = ids[cells.mask]
        blank = None if blank is None else blank[cells.mask]
        weights = None if weights is None else weights[cells.mask]
    starts = np.cumsum(counts) - counts
    if weights is not None and pooling != "sum":
        weights = _scaled(weights, starts, counts)
    return _Terms(ids, blank, weights, starts, counts)


def _scaled(weights: WeightArray, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> WeightArray:
    """Each sequence's weights over their largest: mean and sqrtn stay, their sums neither overflow nor vanish."""
    if weights.size == 0:
        return weights
    some = counts > 0
    largest = np.maximum.reduceat(weights, starts[some])
    scaled: WeightArray = weights / np.repeat(np.where(largest > 0, largest, 1.0), counts[some])
    return scaled


def _reduce(
    backend: Backend, terms: _Terms, starts: NDArray[np.int64], count: int, pooling: Pooling
) -> NDArray[np.float64]:
    """Reduces `count` terms from each of `starts`; long sequences in pieces of at most a block."""
    step = max(1, _BLOCK // (len(starts) * backend.embedding_dim))
    combine = np.maximum if pooling == "max" else np.add
    total: NDArray[np.float64] | None = None
    for first in range(0, count, step):
        positions = starts[:, np.newaxis] + np.arange(first, min(first + step, count))
        part = _part(backend, terms, positions, pooling)
        with np.errstate(over="ignore", invalid="ignore"):
            total = part if total is None else np.asarray(combine(total, part))
    assert total is not None  # noqa: S101  (count is at least 1)
    return total


def _part(backend: Backend, terms: _Terms, positions: NDArray[np.int64], pooling: Pooling) -> NDArray[np.float64]:
    flat, count = positions.ravel(), positions.shape[1]
    combination: Combination = "max" if pooling == "max" else "sum"
    if terms.blank is None and terms.weights is None:
        return backend.combine(terms.ids[flat], count, combination)
    rows = backend.gather(terms.ids[flat])
    if terms.blank is not None:
        rows[terms.blank[flat]] = 0.0
    if terms.weights is None:
        return combined(rows, count, combination)
    rows = rows.reshape(*positions.shape, backend.embedding_dim)
    with np.errstate(over="ignore", invalid="ignore"):
        part: NDArray[np.float64] = np.einsum("spd,sp->sd", rows.astype(np.float64), terms.weights[positions])
    return part


def _divide(pooled: NDArray[np.float64], terms: _Terms, pooling: Pooling) -> None:
    if pooling not in ("mean", "sqrtn"):
        return
    weighed = terms.counts.astype(np.float64)
    if terms.weights is not None:
        power = terms.weights if pooling == "mean" else np.square(terms.weights)
        some = terms.counts > 0
        weighed[some] = np.add.reduceat(power, terms.starts[some]) if power.size else 0.0
    if pooling == "sqrtn":
        np.sqrt(weighed, out=weighed)
    np.divide(pooled, weighed[:, np.newaxis], out=pooled, where=weighed[:, np.newaxis] > 0)
    pooled[weighed == 0] = 0.0
