"""A vocabulary file beside the rows: UTF-8 text, one token per line, line i is the token of id i."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from service.errors import ImportFormatError
from service.imported import ImportedTable, RowBlock
from service.vocabulary import describe_duplicates


def with_vocabulary(table: ImportedTable, path: Path | None, rows_in_file: int) -> ImportedTable:
    """`table` with the tokens of the file; raises ImportFormatError unless there is one for every row.

    The file may have the tokens of all `rows_in_file` where only the first rows are taken.
    """
    if path is None:
        return table
    tokens = read_tokens(path)
    if len(tokens) not in (table.num_embeddings, rows_in_file):
        raise ImportFormatError(str(path), f"there are {len(tokens)} tokens for {rows_in_file} rows")
    tokens = tokens[: table.num_embeddings]
    if len(set(tokens)) != len(tokens):
        raise ImportFormatError(str(path), describe_duplicates(tokens))
    source = {**table.source, "vocabulary": path.name}
    return replace(table, blocks=_joined(table, tokens), source=source)


def read_tokens(path: Path) -> list[str]:
    """The lines of the file; raises ImportFormatError for one that is not UTF-8, or a file that cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImportFormatError(str(path), "there is no such file") from None
    except OSError as error:
        raise ImportFormatError(str(path), f"it cannot be read: {error.strerror}") from None
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ImportFormatError(str(path), f"it is not UTF-8: {error.reason}", f"byte {error.start}") from None
    if not text:
        return []
    # Not splitlines: words of real tables contain U+0085 and other line ends of Unicode.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _joined(table: ImportedTable, tokens: Sequence[str]) -> Iterator[RowBlock]:
    first = 0
    for block in table.blocks:
        after = first + len(block.vectors)
        yield RowBlock(block.vectors, tokens[first:after])
        first = after
