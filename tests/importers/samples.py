"""Files in foreign formats, made byte by byte, and the real ones of an installed package."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as numpy saves it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_header(shape: Sequence[int], descr: str = "<f4", *, fortran_order: bool = False) -> bytes:
    """A header that may say anything."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran_order, "shape": tuple(shape)})
    return file.getvalue()


def zip_bytes(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of anything."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def safetensors_bytes(header: Mapping[str, object] | bytes, data: bytes) -> bytes:
    """A safetensors file with a header that may say anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def row_lines(rows: NDArray[np.floating], tokens: Sequence[str]) -> str:
    """A line for each row: the token and the shortest text of each number, with single spaces."""
    return "".join(
        f"{token} {' '.join(str(number) for number in row)}\n" for token, row in zip(tokens, rows, strict=True)
    )


def gensim_data(name: str) -> Path:
    """A file of gensim's tests, from the installed package; it cannot be imported, it lacks its dependencies."""
    path = Path(str(distribution("gensim").locate_file("gensim/test/test_data"))) / name
    assert path.is_file()
    return path
