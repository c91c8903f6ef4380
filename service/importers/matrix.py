"""A two-dimensional array of any numeric dtype into a table of float32 rows. Shared by the array formats."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from service.errors import ImportFormatError
from service.imported import ImportedTable, RowBlock, first_non_finite
from service.importers.options import ImportOptions
from service.importers.vocabulary import with_vocabulary

AnyArray: TypeAlias = NDArray[Any]
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in a file: its shape, and `slices(first, step)`, which gives its rows from the first, `step` each.

    `slices` is asked once, and may read as it goes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slices: Callable[[int], Iterable[AnyArray]]
    name: str | None = None
    stored_as: str | None = None
    """The file's own word for its dtype, where that is not numpy's."""

    @property
    def dtype_name(self) -> str:
        """What messages call the dtype."""
        return self.stored_as or ("pickled Python objects" if self.dtype.hasobject else self.dtype.name)


def matrix_of(array: AnyArray, name: str | None = None) -> Matrix:
    """An array that lies in memory or in a mapping."""

    def slices(step: int) -> Iterator[AnyArray]:
        return (array[first : first + step] for first in range(0, len(array), step))

    return Matrix(array.shape, array.dtype, slices, name)


def table_of(path: Path, matrix: Matrix, options: ImportOptions) -> ImportedTable:
    """The table in a matrix, under the options; raises ImportFormatError for what is not a table."""
    _check(path, matrix)
    if options.transpose:  # needs all of it: the rows of the table are columns of the file
        matrix = matrix_of(_whole(path, matrix).T, matrix.name)
    rows = matrix.shape[0] if options.rows is None else options.rows
    if rows > matrix.shape[0]:
        raise ImportFormatError(str(path), f"{rows} rows were asked for, there are {matrix.shape[0]}")
    source: dict[str, JsonValue] = {"file": path.name}
    if matrix.name is not None:
        source["tensor"] = matrix.name
    if matrix.dtype != np.float32 or matrix.stored_as is not None:
        source["dtype"] = matrix.dtype_name
    if options.transpose:
        source["transposed"] = True
    if rows < matrix.shape[0]:
        source["rows"] = f"the first {rows} of {matrix.shape[0]}"
    table = ImportedTable(rows, matrix.shape[1], _blocks(path, matrix, rows), source=source)
    return with_vocabulary(table, options.vocabulary, matrix.shape[0])


def _whole(path: Path, matrix: Matrix) -> AnyArray:
    try:
        whole = np.empty(matrix.shape, dtype=matrix.dtype)
    except (MemoryError, ValueError) as error:
        raise ImportFormatError(str(path), f"{list(matrix.shape)} does not fit into memory: {error}") from None
    first = 0
    for block in matrix.slices(_step(matrix)):
        whole[first : first + len(block)] = block
        first += len(block)
    return whole


def _step(matrix: Matrix) -> int:
    return max(1, _BLOCK_BYTES // max(1, matrix.shape[1] * matrix.dtype.itemsize))


def _check(path: Path, matrix: Matrix) -> None:
    what = "the array" if matrix.name is None else f"the array {matrix.name!r}"
    if len(matrix.shape) != 2:
        raise ImportFormatError(str(path), f"{what} has the shape {list(matrix.shape)}; a table has two axes")
    if matrix.dtype.kind not in "fiu":
        raise ImportFormatError(str(path), f"{what} holds {matrix.dtype_name}; a table holds numbers")
    if 0 in matrix.shape:
        raise ImportFormatError(str(path), f"{what} is empty: its shape is {list(matrix.shape)}")


def _blocks(path: Path, matrix: Matrix, rows: int) -> Iterator[RowBlock]:
    first = 0
    for block in matrix.slices(_step(matrix)):
        taken = block[: rows - first]
        yield RowBlock(_float32(path, taken, first))
        first += len(taken)
        if first == rows < matrix.shape[0]:  # a file that is read to its end is also checked there
            return
    if first != rows:
        raise ImportFormatError(str(path), f"{rows} rows were promised, {first} came")


def _float32(path: Path, block: AnyArray, first: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(block, dtype=np.float32)
    bad = first_non_finite(vectors)
    if bad is not None:
        row, column = bad
        value = block[row, column]
        reason = "is beyond float32" if np.isfinite(value) else "cannot be served"
        raise ImportFormatError(str(path), f"{value} {reason}", f"row {first + row}, column {column}")
    return vectors
