"""The mask of an answer, made here: it follows from the ids, the options and three facts of the version.

So vectors can come as bare bytes, which have no place for a mask. A test holds this to what the service answers.
"""

import numpy as np

from service.client.facts import Facts
from service.client.inputs import Batch
from service.client.options import Options
from service.layout import Layout
from service.types import MaskArray


def mask_of(batch: Batch, options: Options, facts: Facts) -> MaskArray:
    """True where a position counts, of the shape of the ids as they are padded and cut by `options`."""
    ids = batch.values
    assert isinstance(ids, np.ndarray)  # noqa: S101  (that of tokens comes with the answer)
    counts: MaskArray | None = batch.mask
    if counts is None and facts.padding_id is not None:
        counts = ids != facts.padding_id
    if options.get("on_oov", facts.on_oov) == "mask":
        known = (ids >= 0) & (ids < facts.num_embeddings)
        counts = known if counts is None else counts & known
    fitted = _fitted(counts, batch.layout, options)
    fitted.flags.writeable = False
    return fitted


def mask_shape(layout: Layout, options: Options) -> tuple[int, ...]:
    """The shape of the mask."""
    return (*layout.shape[:-1], options.get("length", layout.shape[-1]))


def _fitted(counts: MaskArray | None, layout: Layout, options: Options) -> MaskArray:
    shape = mask_shape(layout, options)
    if layout.ragged_lengths is None and shape == layout.shape:
        return np.ones(shape, dtype=np.bool_) if counts is None else counts.reshape(shape).copy()
    if counts is None:
        counts = np.ones(layout.total, dtype=np.bool_)
    return _placed(counts, layout, shape[-1], options).reshape(shape)


def _placed(counts: MaskArray, layout: Layout, length: int, options: Options) -> MaskArray:
    """Each sequence cut and padded to `length`: (sequences, length)."""
    lengths = layout.lengths() if len(layout.shape) > 1 else np.array([layout.shape[0]])
    kept = np.minimum(lengths, length)
    first = np.cumsum(lengths) - lengths
    if options.get("truncation") == "pre":
        first = first + lengths - kept
    offset = length - kept if options.get("padding") == "pre" else np.zeros_like(kept)
    column = np.arange(length) - offset[:, np.newaxis]
    inside = (column >= 0) & (column < kept[:, np.newaxis])
    placed = np.zeros(inside.shape, dtype=np.bool_)
    placed[inside] = counts[(first[:, np.newaxis] + column)[inside]]
    return placed
