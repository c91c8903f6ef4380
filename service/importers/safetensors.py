"""safetensors: named tensors behind a JSON header, read by the format's own library, slice by slice."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.candidates import choose
from service.importers.matrix import AnyArray, Matrix, table_of
from service.importers.options import ImportOptions

_DTYPES: Final[dict[str, type[np.generic]]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
}


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table in a safetensors file; with several matrices the one that `options.tensor` names."""
    with _open(path) as file:
        found = [_matrix(path, name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
    return table_of(path, choose(path, found, options.tensor), options)


@contextmanager
def _open(path: Path) -> Iterator[Any]:  # the library has no types
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ImportFormatError(str(path), f"the file cannot be read: {error}") from None


def _matrix(path: Path, name: str, tensor: Any) -> Matrix:  # noqa: ANN401
    stored = tensor.get_dtype()
    shape = tuple(tensor.get_shape())
    slices = partial(_slices, path, name)
    if stored in _DTYPES:
        return Matrix(shape, np.dtype(_DTYPES[stored]), slices, name)
    return Matrix(shape, np.dtype(np.void), slices, name, stored_as=stored)


def _slices(path: Path, name: str, step: int) -> Iterator[AnyArray]:
    with _open(path) as file:
        tensor = file.get_slice(name)
        rows = tensor.get_shape()[0]
        for first in range(0, rows, step):
            yield tensor[first : min(first + step, rows)]
