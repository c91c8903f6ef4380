"""Tokens as lines of text, escaped so that every token is one line: the content of a version's vocabulary."""

from collections.abc import Iterator, Sequence
from typing import Final

from service.vocabulary import describe_duplicates

_PIECE: Final = 256 << 10  # characters; a millisecond
_SLICE: Final = 10_000  # tokens; a millisecond
_UNESCAPED: Final = {"\\": "\\", "n": "\n", "r": "\r"}


def dump(tokens: Sequence[str]) -> bytes:
    """One line for each token; raises ValueError for a token twice, or one that is not Unicode text."""
    if len(set(tokens)) != len(tokens):
        raise ValueError(describe_duplicates(tokens))
    try:
        return "".join(f"{_escape(token)}\n" for token in tokens).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a token cannot be written as UTF-8: {error}") from None


def parse(data: bytes) -> tuple[str, ...]:
    """The tokens, one of each line; raises ValueError."""
    text = data.decode()
    if not text.endswith("\n"):
        raise ValueError("the last line is not ended")
    # Few tokens have a backslash, and taking one apart costs more than the rest of this.
    tokens = tuple(_unescape(line) if "\\" in line else line for line in _lines(text))
    distinct: set[str] = set()
    for first in range(0, len(tokens), _SLICE):  # not all at once: no other thread could run meanwhile
        distinct.update(tokens[first : first + _SLICE])
    if len(distinct) != len(tokens):
        raise ValueError(describe_duplicates(tokens))
    while distinct:
        distinct.pop()
    return tokens


def _lines(text: str) -> Iterator[str]:
    """The lines of a text that is ended, split a piece at a time so that no other thread has to wait for all."""
    start = 0
    while start < len(text):
        end = text.find("\n", min(start + _PIECE, len(text) - 1))
        yield from text[start:end].split("\n")
        start = end + 1


def _escape(token: str) -> str:
    return token.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(line: str) -> str:
    pieces = iter(line)
    try:
        return "".join(_UNESCAPED[next(pieces)] if piece == "\\" else piece for piece in pieces)
    except (KeyError, StopIteration, RuntimeError):
        raise ValueError(f"the line {line[:80]!r} has a backslash that escapes nothing") from None
