"""Choosing one matrix among those of a file: the only one, or the one that is named."""

from collections.abc import Sequence
from pathlib import Path

from service.errors import ImportFormatError
from service.importers.matrix import Matrix


def choose(path: Path, found: Sequence[Matrix], tensor: str | None) -> Matrix:
    """The matrix named by `tensor`, in full or by an unambiguous part; without one the only matrix.

    Raises ImportFormatError that lists what there is.
    """
    if tensor is None:
        fitting = [matrix for matrix in found if len(matrix.shape) == 2]
    else:
        fitting = [matrix for matrix in found if matrix.name == tensor]
        fitting = fitting or [matrix for matrix in found if tensor in str(matrix.name)]
    if len(fitting) == 1:
        return fitting[0]
    wanted = "with two axes" if tensor is None else f"that {tensor!r} names"
    listed = "\n".join(_line(matrix) for matrix in (fitting or found))
    if not found:
        raise ImportFormatError(str(path), "there is no array in the file")
    if not fitting:
        raise ImportFormatError(str(path), f"there is no array {wanted}; the file has\n{listed}")
    raise ImportFormatError(str(path), f"there are {len(fitting)} arrays {wanted}; choose one with --tensor\n{listed}")


def _line(matrix: Matrix) -> str:
    return f"  {matrix.name}  {' x '.join(map(str, matrix.shape))}  {matrix.dtype_name}"
