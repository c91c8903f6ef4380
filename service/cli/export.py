"""`export`: the rows of a version as a file for other programs, or as an ONNX model in a folder."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from safetensors.numpy import save_file

from service import npyfile
from service.cli.common import JsonOption, StoreOption, TableArgument, one_of, store_at
from service.cli.printing import out, print_json
from service.errors import Conflict, InvalidRequest
from service.onnxgraph import Part, StoredTable, lookup_model
from service.types import TableVersion
from service.version import ROW_FILES, VersionFolder

_AT_ONCE: Final = 1 << 16  # rows
_MODEL: Final = "model.onnx"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(name="export")(export)


def export(
    table: TableArgument,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            callback=one_of(("npy", "safetensors", "onnx")),
            metavar="FORMAT",
            help="npy, safetensors, or onnx: a folder with model.onnx, ids to vectors, and the stored rows.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="The file to write; for onnx the folder.")],
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Which version; the active one without it.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option("--vocabulary", metavar="FILE", help="Write the tokens too, one per line.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Writes a version's rows for other programs, after checking every byte of it, and optionally its vocabulary.

    npy and safetensors have the float32 that lookups give. What onnx writes gives them: on ids that are rows of the
    table, which is to be checked before, since a model takes a negative id for one from the end.
    """
    opened = store_at(store)
    chosen = opened.active_version(table) if version is None else version
    if chosen is None:
        opened.versions(table)  # a table that is not there is a better reason
        raise Conflict(f"table {table!r} has no active version; name one with --version")
    opened.verify(TableVersion(table, chosen))
    folder = opened.version(TableVersion(table, chosen))
    _check_target(output, force, is_folder=format_ == "onnx")
    if vocabulary is not None:
        _check_target(vocabulary, force)
        if output.absolute() in (vocabulary.absolute(), *vocabulary.absolute().parents):
            raise InvalidRequest(f"{vocabulary} would be overwritten by what is written to {output}")
    if vocabulary is not None:
        _write(vocabulary, lambda path: _write_tokens(folder, path))
    _write(output, lambda path: _WRITERS[format_](folder, path))
    if json:
        print_json({"table": table, "version": chosen, "format": format_, "output": str(output)})
    else:
        out.print(f"{folder.table} is in {output} ({_size(output):,} bytes)")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


def _check_target(path: Path, force: bool, *, is_folder: bool = False) -> None:
    if path.is_dir() and not is_folder:
        raise InvalidRequest(f"{path} is a folder")
    if path.is_file() and is_folder:
        raise InvalidRequest(f"{path} is a file; an ONNX model is a folder")
    if is_folder and path.is_dir() and not {_MODEL, *ROW_FILES}.issuperset(file.name for file in path.iterdir()):
        raise Conflict(f"{path} is there already, with other files in it")
    if path.exists() and not force:
        raise Conflict(f"{path} is there already; --force overwrites it")
    if not path.absolute().parent.is_dir():
        raise InvalidRequest(f"{path} cannot be written: {path.parent} is not a folder")


def _write(path: Path, writer: Callable[[Path], None]) -> None:
    """Whole or not at all; only of a folder in whose place another one comes, there is none for a moment."""
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        writer(aside)
        if aside.is_dir() and path.exists():
            _remove(path)
        aside.replace(path)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_npy(folder: VersionFolder, path: Path) -> None:
    manifest = folder.manifest()
    with path.open("xb") as file:
        file.write(npyfile.header_bytes((manifest.num_embeddings, manifest.embedding_dim)))
        for rows in folder.rows(_AT_ONCE):
            file.write(rows.data.cast("B"))


def _write_safetensors(folder: VersionFolder, path: Path) -> None:
    manifest = folder.manifest()
    if manifest.dtype == "float32":
        (rows,) = folder.rows(manifest.num_embeddings)  # as it is mapped, without a copy
    else:
        rows = np.concatenate(list(folder.rows(_AT_ONCE)))
    metadata = {"table": folder.table.name, "version": str(folder.table.version)}
    save_file({"embedding.weight": rows}, path, metadata)


def _write_onnx(folder: VersionFolder, path: Path) -> None:
    """A folder with the model and the files of rows that it refers to, which are those of the store."""
    manifest, files = folder.manifest(), folder.row_files()
    path.mkdir()
    parts = []
    for file in filter(None, (files.vectors, files.scales)):
        shutil.copyfile(file, path / file.name)
        with file.open("rb") as opened:
            parts.append(Part(file.name, npyfile.read_header(opened).offset))
    said = {
        "table": folder.table.name,
        "version": folder.table.version,
        "padding_id": manifest.padding_id,
        "unk_id": manifest.unk_id,
    }
    table = StoredTable(manifest.num_embeddings, manifest.embedding_dim, manifest.dtype, *parts)
    model = lookup_model(table, {key: str(value) for key, value in said.items() if value is not None})
    (path / _MODEL).write_bytes(model)


def _write_tokens(folder: VersionFolder, path: Path) -> None:
    tokens = folder.tokens()
    if tokens is None:
        raise Conflict(f"{folder.table} has no vocabulary")
    broken = [token for token in tokens if "\n" in token or "\r" in token]
    if broken:
        raise Conflict(f"the token {broken[0]!r} cannot stand on one line")
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


_WRITERS: Final[dict[str, Callable[[VersionFolder, Path], None]]] = {
    "npy": _write_npy,
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
}
