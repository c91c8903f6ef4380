"""numpy's `.npy`: one array, mapped and read block by block, whatever its order and dtype."""

from pathlib import Path

from service import npyfile
from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.matrix import matrix_of, table_of
from service.importers.options import ImportOptions


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table in a `.npy` file."""
    if options.tensor is not None:
        raise ImportFormatError(str(path), "--tensor has no meaning for npy: it holds one array, without a name")
    try:
        _, array = npyfile.map_array(path)
    except ValueError as error:
        raise ImportFormatError(str(path), str(error)) from None
    return table_of(path, matrix_of(array), options)
