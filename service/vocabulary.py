"""Token to id. Reading tokens from files is the store's and the importers' business."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, repeat
from typing import Final

import numpy as np

from service.types import IdArray

UNKNOWN: Final = -1
"""What stands for a token that is not in the vocabulary: never a row, and refused by the range check."""


_SLICE: Final = 10_000
"""Tokens taken in at once: a millisecond, after which another thread of the process may have its turn."""


class Vocabulary:
    """An immutable, injective map from tokens to the ids 0 .. len - 1, in the order given.

    Raises ValueError naming the first tokens that occur twice.
    """

    __slots__ = ("_ids",)

    def __init__(self, tokens: Iterable[str]) -> None:
        listed = tokens if isinstance(tokens, Sequence) else tuple(tokens)
        self._ids: dict[str, int] = {}
        for first in range(0, len(listed), _SLICE):
            self._ids.update(zip(listed[first : first + _SLICE], count(first), strict=False))
        if len(self._ids) != len(listed):
            raise ValueError(describe_duplicates(listed))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    def ids(self, tokens: Sequence[str]) -> IdArray:
        """The id of each token, int64 of shape (len(tokens),); `UNKNOWN` where there is none."""
        return np.fromiter(map(self._ids.get, tokens, repeat(UNKNOWN)), dtype=np.int64, count=len(tokens))

    def release(self) -> None:
        """Forgets the tokens one by one: to drop 400,000 at once stops every thread of the process for 20 ms."""
        while self._ids:
            self._ids.popitem()


def describe_duplicates(tokens: Sequence[str], at_most: int = 5) -> str:
    """Names the first tokens that occur more than once, with the ids at which they do."""
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    named = ", ".join(
        f"{token!r} (ids {', '.join(str(i) for i, other in enumerate(tokens) if other == token)})"
        for token in twice[:at_most]
    )
    more = f" and {len(twice) - at_most} more" if len(twice) > at_most else ""
    return f"tokens occur more than once: {named}{more}"
