"""`*.safetensors.index.json`: which safetensors file beside it holds which tensor."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.candidates import choose
from service.importers.matrix import Matrix, table_of
from service.importers.options import ImportOptions
from service.importers.safetensors import matrices as matrices_of

_LONGEST: Final = 64 << 20  # bytes


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table in one of the files that the index names."""
    return table_of(path, choose(path, matrices(path), options.tensor), options)


def matrices(path: Path) -> list[Matrix]:
    """Every tensor of the index; raises ImportFormatError for a file or a tensor that is not where it says."""
    places = _weight_map(path)
    found = {file: {str(matrix.name): matrix for matrix in matrices_of(file)} for file in _files(path, places.values())}
    for name, file_name in places.items():
        if name not in found[path.with_name(file_name)]:
            raise ImportFormatError(str(path), f"{file_name} does not have it", f"tensor {name!r}")
    return [found[path.with_name(file_name)][name] for name, file_name in places.items()]


def _weight_map(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ImportFormatError(str(path), f"an index has at most {_LONGEST >> 20} MiB")
    try:
        content = orjson.loads(data)
    except ValueError as error:
        raise ImportFormatError(str(path), f"it is not JSON: {error}") from None
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ImportFormatError(str(path), "it has no weight_map from tensors to files")
    return places


def _files(path: Path, names: Iterable[str]) -> list[Path]:
    files = []
    for name in dict.fromkeys(names):
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ImportFormatError(str(path), f"{name!r} is not the name of a file beside it", "weight_map")
        file = path.with_name(name)
        if not file.is_file():
            raise ImportFormatError(str(path), f"there is no file {name} beside it", "weight_map")
        files.append(file)
    return files
