"""A table on its way into the store: what an importer reads and `TableStore.publish` writes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from service.manifest import TextSettings
from service.types import OovRule, RowArray, RowDtype, WeightArray


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Consecutive rows, float32 of shape (n, dim), and their tokens where the source has them."""

    vectors: RowArray
    tokens: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class TextModel:
    """What makes the rows of a table a static text model: a tokenizer whose ids are the ids of the rows.

    `tokenizer` is the content of a Hugging Face `tokenizer.json`, `weights` a number for each row, or None where
    all weigh 1.
    """

    tokenizer: bytes | None
    settings: TextSettings
    weights: WeightArray | None = None


@dataclass(frozen=True, slots=True)
class ImportedTable:
    """A table that is read block by block, once.

    `blocks` yields exactly `num_embeddings` rows of `embedding_dim` numbers, all with tokens or all without.
    `dtype` is what they are to be stored as. `no_text` says why the model that they are from cannot be had for texts.
    `source` says where they come from and is kept in the manifest.
    """

    num_embeddings: int
    embedding_dim: int
    blocks: Iterable[RowBlock]
    padding_id: int | None = None
    unk_id: int | None = None
    on_oov: OovRule = "error"
    dtype: RowDtype = "float32"
    text: TextModel | None = None
    no_text: str | None = None
    source: Mapping[str, JsonValue] = field(default_factory=dict)


def first_non_finite(vectors: NDArray[np.floating]) -> tuple[int, int] | None:
    """Row and column of the first NaN or infinity, None where there is neither."""
    if np.isfinite(vectors).all():
        return None
    row, column = np.argwhere(~np.isfinite(vectors))[0].tolist()
    return row, column
