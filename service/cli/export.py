"""`export`: the rows of a version as a file for other programs."""

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
from service.types import TableVersion
from service.version import VersionFolder

_AT_ONCE: Final = 1 << 16  # rows


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(name="export")(export)


def export(
    table: TableArgument,
    format_: Annotated[
        str,
        typer.Option("--format", callback=one_of(("npy", "safetensors")), metavar="FORMAT", help="npy or safetensors."),
    ],
    output: Annotated[Path, typer.Option("--output", help="The file to write.")],
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
    """Writes a version's rows as float32 to a file, after checking every byte of it, and optionally its vocabulary."""
    opened = store_at(store)
    chosen = opened.active_version(table) if version is None else version
    if chosen is None:
        opened.versions(table)  # a table that is not there is a better reason
        raise Conflict(f"table {table!r} has no active version; name one with --version")
    opened.verify(TableVersion(table, chosen))
    folder = opened.version(TableVersion(table, chosen))
    for path in filter(None, (output, vocabulary)):
        _check_target(path, force)
    if vocabulary is not None:
        _write(vocabulary, lambda path: _write_tokens(folder, path))
    _write(output, lambda path: _WRITERS[format_](folder, path))
    if json:
        print_json({"table": table, "version": chosen, "format": format_, "output": str(output)})
    else:
        out.print(f"{folder.table} is in {output} ({output.stat().st_size:,} bytes)")


def _check_target(path: Path, force: bool) -> None:
    if path.is_dir():
        raise InvalidRequest(f"{path} is a folder")
    if path.exists() and not force:
        raise Conflict(f"{path} is there already; --force overwrites it")
    if not path.absolute().parent.is_dir():
        raise InvalidRequest(f"{path} cannot be written: {path.parent} is not a folder")


def _write(path: Path, writer: Callable[[Path], None]) -> None:
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        writer(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


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
}
