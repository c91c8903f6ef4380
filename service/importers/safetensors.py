"""safetensors: named tensors behind a JSON header, read by the format's own library, slice by slice."""

from collections.abc import Iterator
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

_DTYPES: Final = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
}


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table in a safetensors file; with several matrices the one that `options.tensor` names."""
    try:
        with safe_open(path, framework="numpy") as file:
            found = [_matrix(path, name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ImportFormatError(str(path), f"the file cannot be read: {error}") from None
    return table_of(path, choose(path, found, options.tensor), options)


def _matrix(path: Path, name: str, tensor: Any) -> Matrix:  # noqa: ANN401  (the library has no types)
    dtype = _DTYPES.get(tensor.get_dtype(), np.void)
    return Matrix(tuple(tensor.get_shape()), np.dtype(dtype), partial(_slices, path, name), name)


def _slices(path: Path, name: str, step: int) -> Iterator[AnyArray]:
    with safe_open(path, framework="numpy") as file:
        tensor = file.get_slice(name)
        for first in range(0, tensor.get_shape()[0], step):
            yield tensor[first : first + step]
