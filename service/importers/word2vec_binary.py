"""word2vec binary: a header `rows dim`, then for each row a token, a space and little-endian float32 numbers.

The C tool ends each row with a newline and gensim does not; both are read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from service.errors import ImportFormatError
from service.imported import ImportedTable, RowBlock
from service.importers.matrix import AnyArray, Matrix, table_of
from service.importers.options import ImportOptions
from service.importers.text_rows import count_numbers

_CHUNK: Final = 4 << 20  # bytes
_LONGEST_TOKEN: Final = 64 << 10  # bytes
_HEADER_LIMIT: Final = 64  # bytes
_HEADER: Final = re.compile(rb"([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]*\r?\n")
_TEXT: Final = re.compile(rb"[\t-\r -~]*")


@dataclass(frozen=True, slots=True)
class _Header:
    rows: int
    dim: int
    length: int  # bytes


def fits(_path: Path, head: bytes) -> bool:
    """Whether a file that begins so has the header of word2vec with binary numbers behind its first token."""
    header = _HEADER.match(head)
    if header is None:
        return False
    row = head[header.end() :]
    numbers = row.partition(b" ")[2][: 4 * int(header[2])]
    return count_numbers(row.partition(b"\n")[0]) == 0 and _TEXT.fullmatch(numbers) is None


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table and the vocabulary in a word2vec binary file; its header must be true."""
    if options.transpose or options.tensor is not None:
        option = "--transpose" if options.transpose else "--tensor"
        raise ImportFormatError(str(path), f"{option} has no meaning for word2vec: its rows have tokens")
    header = _read_header(path)
    tokens: list[str] = []
    matrix = Matrix((header.rows, header.dim), np.dtype("<f4"), partial(_slices, path, header, tokens))
    table = table_of(path, matrix, options)
    return table if options.vocabulary is not None else replace(table, blocks=_with_tokens(table, tokens))


def _with_tokens(table: ImportedTable, tokens: list[str]) -> Iterator[RowBlock]:
    """`tokens` grows while the blocks are read; they are handed on with their rows and dropped."""
    for block in table.blocks:
        taken = tokens[: len(block.vectors)]
        tokens.clear()
        yield RowBlock(block.vectors, taken)


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        match = _HEADER.match(file.read(_HEADER_LIMIT))
    if match is None:
        raise ImportFormatError(str(path), "the header is not two integers, rows and dimension", "line 1")
    header = _Header(int(match[1]), int(match[2]), match.end())
    if header.rows == 0 or header.dim == 0:
        reason = f"the header promises {header.rows} rows of {header.dim} numbers"
        raise ImportFormatError(str(path), reason, "line 1")
    size = path.stat().st_size
    if header.length + header.rows * (1 + 4 * header.dim) > size:
        reason = f"the header promises {header.rows} rows of {header.dim} numbers, the file has only {size} bytes"
        raise ImportFormatError(str(path), reason, "line 1")
    return header


def _slices(path: Path, header: _Header, tokens: list[str], step: int) -> Iterator[AnyArray]:
    left = header.rows
    buffer = b""
    with path.open("rb") as file:
        file.seek(header.length)
        while left:
            fresh = file.read(max(_CHUNK, 4 * header.dim))
            buffer += fresh
            first = header.rows - left
            names, starts, end = _scan(buffer, 4 * header.dim, min(left, step))
            if not names:
                _check_progress(path, buffer, fresh, first)
                continue
            tokens += _decode(path, names, first)
            left -= len(names)
            yield _gather(buffer, starts, header.dim)
            buffer = buffer[end:]
        _check_end(path, buffer, file)


def _scan(buffer: bytes, width: int, most: int) -> tuple[list[bytes], list[int], int]:
    """Tokens of the whole rows in `buffer`, where their numbers start, and where the last row ends."""
    names, starts = [], []
    end, last = 0, len(buffer) - width
    for _ in range(most):
        space = buffer.find(b" ", end)
        if space < 0 or space >= last:
            break
        names.append(buffer[end:space])
        starts.append(space + 1)
        end = space + 1 + width
    return names, starts, end


def _gather(buffer: bytes, starts: list[int], dim: int) -> AnyArray:
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(buffer, dtype=np.uint8), 4 * dim)
    rows: AnyArray = windows[np.array(starts)].view("<f4")
    return rows


def _decode(path: Path, names: list[bytes], first: int) -> list[str]:
    tokens = []
    for row, name in enumerate(names, first):
        try:
            tokens.append(name.lstrip(b"\n").decode())
        except UnicodeDecodeError as error:
            raise ImportFormatError(str(path), f"the token is not UTF-8: {error.reason}", f"row {row}") from None
        if len(name) > _LONGEST_TOKEN:
            raise _endless(path, row)
    return tokens


def _check_progress(path: Path, buffer: bytes, fresh: bytes, row: int) -> None:
    """Raises ImportFormatError if more bytes would not make a row of what there is."""
    space = buffer.find(b" ")
    if (space if space >= 0 else len(buffer)) > _LONGEST_TOKEN:
        raise _endless(path, row)
    if not fresh:
        what = "a token" if space < 0 else "the numbers"
        raise ImportFormatError(str(path), f"the file ends within {what}", f"row {row}")


def _check_end(path: Path, buffer: bytes, file: BinaryIO) -> None:
    if (buffer + file.read(_HEADER_LIMIT)).strip(b"\r\n"):
        raise ImportFormatError(str(path), "there are bytes behind the rows that the header promises", "line 1")


def _endless(path: Path, row: int) -> ImportFormatError:
    return ImportFormatError(str(path), f"a token has more than {_LONGEST_TOKEN >> 10} KiB", f"row {row}")
