"""Texts into lookups: their tokens, and how the rows of these become one vector for each text.

A table that says nothing of texts takes what stands between white space for tokens and gives the mean of their rows.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import NoVocabulary, RequestTooLarge
from service.imported import TextModel
from service.layout import Layout
from service.manifest import TextSettings
from service.types import (
    IdArray,
    IdBatch,
    LookupOptions,
    LookupRequest,
    MaskArray,
    OovRule,
    TableVersion,
    TokenBatch,
    WeightArray,
)
from service.unitlength import over_norms

PLAIN: Final = TextSettings(normalize=False)
_FEW: Final = 8
_AT_ONCE: Final = 1 << 18
"""Characters that are tokenised at once; the library has some 200 bytes for each token until then."""
_LIBRARY: Final = "tokenizers"
_EXTRA: Final = "pip install 'embedding-table-service[text]'"

Tokenize: TypeAlias = Callable[[Sequence[str]], list[list[int]]]
"""The ids of every text, without special tokens. Lets other threads run; may be called from several."""


class Read(NamedTuple):
    """Texts as a lookup whose vectors are theirs, and how many tokens they have."""

    request: LookupRequest
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class TextReader:
    """How a table reads texts. `tokenize` is None where tokens stand between white space.

    `weights` is what each row counts with, None where all count alike; `why_not` says why texts cannot be read.
    """

    settings: TextSettings = PLAIN
    tokenize: Tokenize | None = None
    weights: WeightArray | None = None
    why_not: str | None = None

    @classmethod
    def of(cls, model: TextModel | None, why_not: str | None = None) -> Self:
        """The reader of a version; one whose texts cannot be read, here or at all, is served all the same, for ids."""
        if model is None:
            return cls(why_not=why_not)
        weights = None if model.weights is None else np.array(model.weights)
        if model.tokenizer is None:
            return cls(model.settings, None, weights)
        try:
            return cls(model.settings, _tokenizer(model.tokenizer), weights)
        except ImportError:
            why = f"the package {_LIBRARY}, which its tokenizer.json is for, is not installed: {_EXTRA}"
        except Exception as error:  # noqa: BLE001  (the library raises Exception itself)
            why = f"its tokenizer.json cannot be read: {error}"
        return cls(model.settings, None, weights, why)

    def read(self, texts: Sequence[str], table: TableVersion, most: int) -> Read:
        """The vectors of these texts, one each, which may have so many tokens in all.

        Raises NoVocabulary where the table's tokenizer is not to be had, RequestTooLarge.
        """
        if self.why_not is not None:
            raise NoVocabulary(f"{table} reads no texts: {self.why_not}", table)
        if self.tokenize is None:
            return self._between_blanks(texts)
        found: list[list[int]] = []
        for some in self._some_at_a_time(texts):
            found += self._cut(self.tokenize(some))
            if len(found) < len(texts) and sum(map(len, found)) > most:
                raise RequestTooLarge("tokens in the request", "EMBEDDING_MAX_IDS", most)
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        ids = np.fromiter(chain.from_iterable(found), dtype=np.int64, count=int(lengths.sum()))
        return Read(self.pooled(IdBatch(ids, Layout.ragged(lengths))), len(ids))

    def _some_at_a_time(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """The texts as the tokenizer gets them: so many that what it makes of them is never much memory."""
        prompt, longest = self.settings.prompt, self.settings.max_characters
        some: list[str] = []
        size = 0
        for text in texts:
            some.append(prompt + text[:longest])
            size += len(some[-1])
            if size > _AT_ONCE:
                yield some
                some, size = [], 0
        if some:
            yield some

    def _cut(self, found: list[list[int]]) -> list[list[int]]:
        most = self.settings.max_tokens
        if most is None or max(map(len, found), default=0) <= most:
            return found
        return [ids[:most] for ids in found]

    def _between_blanks(self, texts: Sequence[str]) -> Read:
        words = [text.split() for text in texts]
        flat = list(chain.from_iterable(words))
        batch = TokenBatch(flat, Layout.ragged([len(each) for each in words]))
        return Read(LookupRequest(batch, options=self.options()), len(flat))

    def options(self) -> LookupOptions:
        """How the rows of a text become its vector."""
        return LookupOptions(pooling=self.settings.pooling, normalize=self.settings.normalize)

    def pooled(
        self, batch: IdBatch, padding_id: int | None = None, on_oov: OovRule = "error", unk_id: int | None = None
    ) -> LookupRequest:
        """The vectors of sequences of ids, as if they were those of texts; `padding_id` does not count.

        The last two are the table's: how many count is the model's divisor, under the rule `mask` none outside it.
        """
        dropped = self.settings.dropped_ids if padding_id is None else [*self.settings.dropped_ids, padding_id]
        # Said for each, or the table would leave out its own padding, which a tokenizer may give for a word.
        counted = _without(batch.values, dropped)
        request = LookupRequest(batch, counted, options=self.options())
        if self.weights is None:
            return request
        # The model's own formula: the weighed rows over their number, not over the sum of the weights.
        within = (batch.values >= 0) & (batch.values < len(self.weights))
        if on_oov == "mask":
            counted &= within
        weights = self.weights.take(np.where(within, batch.values, 0 if unk_id is None else unk_id))
        if self.settings.pooling == "mean":
            owners = np.repeat(np.arange(batch.layout.rows), batch.layout.lengths())
            weights = weights / np.maximum(np.bincount(owners[counted], minlength=batch.layout.rows), 1)[owners]
        return request._replace(weights=weights, options=replace(request.options, pooling="sum"))


BETWEEN_BLANKS: Final = TextReader()
"""How tables read texts that say nothing of them."""


def _without(ids: IdArray, rows: Sequence[int]) -> MaskArray:
    """Where ids are none of these rows."""
    if len(rows) > _FEW:
        return np.isin(ids, rows, invert=True)
    kept = np.ones(len(ids), np.bool_)
    for row in rows:  # mostly one, if any: several times as fast
        kept &= ids != row
    return kept


def _tokenizer(content: bytes) -> Tokenize:
    """Raises ImportError, and Exception for what is no tokenizer."""
    made: Any = importlib.import_module(_LIBRARY).Tokenizer.from_buffer(content)
    made.no_padding()
    made.no_truncation()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in made.encode_batch_fast(texts, add_special_tokens=False)]

    return tokenize


def leading(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The first numbers of each vector, L2-normalised again; a vector of zeros stays one.

    As OpenAI documents it for its parameter `dimensions`.
    """
    return normalized(vectors[:, :dimensions])


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each vector over its L2 norm; zeros stay zeros."""
    return np.asarray(over_norms(vectors), dtype=np.float32)
