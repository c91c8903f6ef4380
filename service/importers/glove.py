"""GloVe text: a token and its numbers on each line, no header."""

from pathlib import Path

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.options import ImportOptions
from service.importers.text_rows import count_lines, count_numbers, first_line, text_table


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table and the vocabulary in a GloVe file; the first line says how many numbers a row has."""
    dim = count_numbers(first_line(path))
    if dim == 0:
        raise ImportFormatError(str(path), "there is no token with numbers behind it", "line 1")
    return text_table(path, dim, count_lines(path), 1, options)
