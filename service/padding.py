"""Fitting sequences to one length, as Keras' `pad_sequences` does. Works on whole batches, never per sequence."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.layout import Layout
from service.types import IdArray, LookupOptions, MaskArray, WeightArray

_Flat = TypeVar("_Flat", bound=NDArray[np.generic])


@dataclass(frozen=True, slots=True)
class Cells:
    """What each position of a batch asks for, flat.

    `ids` are rows of the table. `mask` is true where the position counts, None where all do. `blank` is true
    where zeros stand for a row, None where nowhere. `weights` are given by the client, or None.
    """

    layout: Layout
    ids: IdArray
    mask: MaskArray | None = None
    blank: MaskArray | None = None
    weights: WeightArray | None = None


def truncate(cells: Cells, options: LookupOptions) -> Cells:
    """Cuts every sequence to at most `options.length` positions."""
    length = options.length
    if length is None or cells.layout.shape[-1] <= length:
        return cells
    if options.truncation == "error" and cells.layout.rows > 0:
        raise _too_long(cells.layout, length)
    lengths = cells.layout.lengths()
    kept = np.minimum(lengths, length)
    first = lengths - kept if options.truncation == "pre" else np.zeros_like(lengths)
    within = np.arange(cells.layout.total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    keep = (within >= np.repeat(first, lengths)) & (within < np.repeat(first + kept, lengths))
    return _select(cells, keep, _cut(cells.layout, kept, length))


def pad(cells: Cells, options: LookupOptions, padding_id: int | None) -> Cells:
    """Makes a rectangle: every sequence gets `options.length` positions, or those of the longest one.

    The new positions are masked; they hold the row `padding_id`, without one they are blank.
    """
    layout = cells.layout
    length = layout.shape[-1] if options.length is None else options.length
    if layout.ragged_lengths is None and layout.shape[-1] == length:
        return cells
    lengths = layout.lengths()[:, np.newaxis]
    column = np.arange(length)
    sent = column < lengths if options.padding == "post" else column >= length - lengths
    no_blank = padding_id is not None and cells.blank is None
    return Cells(
        Layout((*layout.shape[:-1], length)),
        _spread(cells.ids, sent, 0 if padding_id is None else padding_id),
        _spread(cells.mask, sent, fill=False) if cells.mask is not None else sent.ravel(),
        None if no_blank else _blank(cells, sent, blank_padding=padding_id is None),
    )


def _spread(flat: _Flat, sent: MaskArray, fill: int | bool) -> _Flat:
    """Row-major order of the true cells of `sent` is the order in which they were sent."""
    spread = np.full(sent.shape, fill, dtype=flat.dtype)
    spread[sent] = flat
    return spread.ravel()  # type: ignore[return-value]


def _blank(cells: Cells, sent: MaskArray, *, blank_padding: bool) -> MaskArray:
    blank = np.zeros(len(cells.ids), dtype=np.bool_) if cells.blank is None else cells.blank
    return _spread(blank, sent, fill=blank_padding)


def _select(cells: Cells, keep: MaskArray, layout: Layout) -> Cells:
    def kept(flat: _Flat | None) -> _Flat | None:
        return None if flat is None else flat[keep]  # type: ignore[return-value]

    return replace(
        cells,
        layout=layout,
        ids=cells.ids[keep],
        mask=kept(cells.mask),
        blank=kept(cells.blank),
        weights=kept(cells.weights),
    )


def _cut(layout: Layout, kept: NDArray[np.int64], length: int) -> Layout:
    if layout.ragged_lengths is None:
        return Layout((*layout.shape[:-1], length))
    return Layout.ragged(kept)


def _too_long(layout: Layout, length: int) -> InvalidRequest:
    lengths = layout.lengths()
    row = int(np.argmax(lengths > length))
    place = np.unravel_index(row, layout.shape[:-1]) if len(layout.shape) > 1 else ()
    where = "".join(f"[{int(axis)}]" for axis in place)
    return InvalidRequest(
        f"the sequence ids{where} has {int(lengths[row])} positions, more than length {length}; "
        "truncation 'post' or 'pre' would cut it",
        field=f"ids{where}",
    )
