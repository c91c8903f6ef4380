"""Delimited text, `.csv` and `.tsv`: numbers between commas, semicolons or tabs, and at most one column of tokens.

The delimiter, the column of tokens and whether the first line is a header are told from the first lines, and kept
in the table's source.
"""

import codecs
import csv
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import JsonValue

from service.errors import ImportFormatError
from service.imported import ImportedTable, RowBlock, first_non_finite
from service.importers.options import ImportOptions
from service.importers.text_rows import count_lines, count_numbers
from service.importers.vocabulary import with_vocabulary
from service.types import RowArray

_CHUNK: Final = 1 << 20  # numbers
_LONGEST_LINE: Final = 16 << 20  # bytes
_SAMPLE: Final = 100  # lines
_DELIMITERS: Final = (",", ";", "\t")
_NAMES: Final = {",": "comma", ";": "semicolon", "\t": "tab"}
_INTEGER: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class _Layout:
    """`token` is the column of tokens, if there is one; `width` counts it."""

    delimiter: str
    width: int
    token: int | None
    has_header: bool


def fits(_path: Path, head: bytes) -> bool:
    """Whether text that begins so has columns of numbers between delimiters, and is not GloVe with tabs."""
    if b"\0" in head or len(head.split(b"\n", 1)[0]) == len(head) > _LONGEST_LINE:
        return False
    whole = head if head.endswith(b"\n") or b"\n" not in head else head.rpartition(b"\n")[0]
    text = whole.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    lines = text.rstrip("\r\n\t ").split("\n")[:_SAMPLE]
    layout = _sniff(lines)
    if layout is None or layout.delimiter != "\t":
        return layout is not None
    first = lines[0].encode()
    as_glove = layout.token == 0 and not layout.has_header and b'"' not in first
    return not (as_glove and count_numbers(first) == layout.width - 1)


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table in a delimited file, and its vocabulary if one column has tokens."""
    if options.transpose or options.tensor is not None:
        option = "--transpose" if options.transpose else "--tensor"
        raise ImportFormatError(str(path), f"{option} has no meaning for text: its rows are its lines")
    layout = _layout(path)
    rows_in_file = count_lines(path) - layout.has_header
    rows = rows_in_file if options.rows is None else options.rows
    if rows > rows_in_file:
        raise ImportFormatError(str(path), f"{rows} rows were asked for, there are {rows_in_file}")
    source: dict[str, JsonValue] = {"file": path.name, "delimiter": _NAMES[layout.delimiter]}
    source["header"] = layout.has_header
    if layout.token is not None:
        source["token_column"] = layout.token + 1
    if rows < rows_in_file:
        source["rows"] = f"the first {rows} of {rows_in_file}"
    dim = layout.width - (layout.token is not None)
    return with_vocabulary(
        ImportedTable(rows, dim, _blocks(path, layout, rows), source=source), options.vocabulary, rows_in_file
    )


def _layout(path: Path) -> _Layout:
    lines = list(islice(_lines(path), _SAMPLE))
    while lines and not lines[-1].strip():
        lines.pop()
    layout = _sniff(lines)
    if layout is not None:
        return layout
    for delimiter in _DELIMITERS:
        records = _records(lines, delimiter)
        if records and len(records[0]) > 1:
            data = [record for record in records[1:] if len(record) == len(records[0])]
            columns = _words(data or records[:1])
            if len(columns) > 1:
                named = ", ".join(f"{column + 1} ({records[0][column][:40]!r})" for column in columns)
                reason = f"the columns {named} are not numbers; at most one column may have tokens"
                raise ImportFormatError(str(path), reason, "line 1")
    reason = "there are no columns of numbers between commas, semicolons or tabs"
    raise ImportFormatError(str(path), reason, "line 1")


def _sniff(lines: list[str]) -> _Layout | None:
    """What the first lines look like; the delimiter that gives most columns wins. None if no delimiter gives any."""
    layouts = [layout for delimiter in _DELIMITERS if (layout := _layout_by(lines, delimiter)) is not None]
    return max(layouts, key=lambda layout: layout.width, default=None)


def _layout_by(lines: list[str], delimiter: str) -> _Layout | None:
    records = _records(lines, delimiter)
    if not records or len(records[0]) < 2:
        return None
    first, *others = records
    data = [record for record in others if len(record) == len(first)]
    words = _words(data or [first])
    if len(words) > 1 or (others and not data):
        return None
    numbers = [column for column in range(len(first)) if column not in words]
    in_first = _words([first])
    if not data:
        return _Layout(delimiter, len(first), words[0] if words else None, has_header=False)
    if not words and len(in_first) == 1 and len(first) > 2:  # a token, and below it tokens that look like numbers
        return _Layout(delimiter, len(first), in_first[0], has_header=False)
    has_header = any(column in in_first for column in numbers) or _counts_up(
        [first[column] for column in numbers], data
    )
    return _Layout(delimiter, len(first), words[0] if words else None, has_header)


def _counts_up(names: list[str], data: list[list[str]]) -> bool:
    """Whether the names are 0, 1, 2, … or 1, 2, 3, … over numbers that are not written as integers."""
    if len(names) < 2 or names[0] not in ("0", "1"):
        return False
    begin = int(names[0])
    if names != [str(number) for number in range(begin, begin + len(names))]:
        return False
    return not any(_INTEGER.fullmatch(field) for record in data for field in record)


def _records(lines: list[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return []


def _words(records: list[list[str]]) -> list[int]:
    """The columns in which some field is not a number."""
    width = len(records[0])
    return [
        column
        for column in range(width)
        if not all(_is_number(record[column]) for record in records if len(record) == width)
    ]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field and field.isascii()


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                reason = f"a line has more than {_LONGEST_LINE >> 20} MiB"
                raise ImportFormatError(str(path), reason, f"line {number}")
            try:
                yield (line if number > 1 else line.removeprefix(codecs.BOM_UTF8)).decode()
            except UnicodeDecodeError as error:
                raise ImportFormatError(str(path), f"it is not UTF-8: {error.reason}", f"line {number}") from None


def _blocks(path: Path, layout: _Layout, rows: int) -> Iterator[RowBlock]:
    records = _checked(path, layout)
    first = 1 + layout.has_header
    for _ in range(layout.has_header):
        next(records, None)
    step = max(1, _CHUNK // layout.width)
    left = rows
    while left:
        taken = list(islice(records, min(left, step)))
        if not taken:
            raise ImportFormatError(str(path), f"the file ends {left} rows too early", f"line {first}")
        tokens = None if layout.token is None else [record.pop(layout.token) for record in taken]
        yield RowBlock(_numbers(path, taken, first), tokens)
        first += len(taken)
        left -= len(taken)


def _checked(path: Path, layout: _Layout) -> Iterator[list[str]]:
    """The records, each one line long and of the right width."""
    reader = csv.reader(_lines(path), delimiter=layout.delimiter, strict=True)
    number = 0
    while True:
        number += 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise ImportFormatError(str(path), f"{error}", f"line {number}") from None
        if record is None:
            return
        if reader.line_num != number:
            raise ImportFormatError(str(path), "a quoted field goes on over the end of the line", f"line {number}")
        if len(record) != layout.width:
            reason = f"there are {len(record)} columns, not {layout.width}"
            raise ImportFormatError(str(path), reason, f"line {number}")
        yield record


def _numbers(path: Path, records: list[list[str]], first: int) -> RowArray:
    count = len(records) * len(records[0])
    text = ",".join(chain.from_iterable(records))
    vectors = _parse(text) if text.count(",") == count - 1 else None
    if vectors is None or len(vectors) != count:
        raise _not_numbers(path, records, first)
    vectors = vectors.reshape(len(records), -1)
    bad = first_non_finite(vectors)
    if bad is not None:
        reason = f"{records[bad[0]][bad[1]]} is not a finite float32 number"
        raise ImportFormatError(str(path), reason, f"line {first + bad[0]}, number {bad[1] + 1}")
    return vectors


def _parse(text: str) -> RowArray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is not a number
        try:
            with np.errstate(over="ignore"):
                return np.fromstring(text, dtype=np.float32, sep=",")
        except (DeprecationWarning, ValueError):
            return None


def _not_numbers(path: Path, records: list[list[str]], first: int) -> ImportFormatError:
    for number, record in enumerate(records, first):
        for position, field in enumerate(record, 1):
            vector = _parse(field)
            if vector is None or len(vector) != 1 or "," in field:
                reason = f"{field[:60]!r} is not a number"
                return ImportFormatError(str(path), reason, f"line {number}, number {position}")
    return ImportFormatError(str(path), "a line has what is not a number", f"after line {first - 1}")
