"""word2vec text, also fastText's `.vec`: a header `rows dim`, then a token and its numbers on each line."""

from pathlib import Path

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.options import ImportOptions
from service.importers.text_rows import count_lines, first_line, text_table


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table and the vocabulary in a word2vec text file; its header must be true."""
    fields = first_line(path).split()
    if len(fields) != 2 or not all(field.isdigit() and len(field) < 19 for field in fields):
        raise ImportFormatError(str(path), "the header is not two integers, rows and dimension", "line 1")
    rows, dim = map(int, fields)
    if rows == 0 or dim == 0:
        raise ImportFormatError(str(path), f"the header promises {rows} rows of {dim} numbers", "line 1")
    found = count_lines(path) - 1
    if found != rows:
        raise ImportFormatError(str(path), f"the header promises {rows} rows, there are {found}", "line 1")
    return text_table(path, dim, rows, 2, options)
