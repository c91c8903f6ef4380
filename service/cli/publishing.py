"""What `import` and `create` share: the options of special rows, publishing with a bar, and the report of it."""

import time
from typing import Annotated, get_args

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.changing import changing
from service.cli.common import one_of
from service.cli.printing import err, out, print_json
from service.errors import ServiceError
from service.imported import ImportedTable
from service.manifest import Manifest, Rounding
from service.store import TableStore
from service.types import OovRule, TableVersion

TableOption = Annotated[str, typer.Option("--table", help="Name of the table.")]
PaddingOption = Annotated[
    int | None, typer.Option("--padding-id", min=0, help="Row of the padding token; masked in answers.")
]
UnkOption = Annotated[int | None, typer.Option("--unk-id", min=0, help="Row of the unknown token.")]
OovOption = Annotated[
    str,
    typer.Option(
        "--on-oov",
        callback=one_of(get_args(OovRule)),
        metavar="RULE",
        help="What an id outside the table gives, unless a request says otherwise: error, zeros, unk or mask.",
    ),
]
ActivateOption = Annotated[bool, typer.Option("--activate/--no-activate", help="Serve the new version at once.")]


def publish(store: TableStore, table: str, imported: ImportedTable, activate: bool, json: bool, started: float) -> None:
    """Publishes a table and says what was done; `started` is when the command began, by `time.perf_counter`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("rows", total=imported.num_embeddings)
        version = store.publish(table, imported, progress=lambda rows: progress.advance(task, rows))
    if activate:
        _activate(store, version, "import" if "format" in imported.source else "create")
    _report(store, version, activate, json, time.perf_counter() - started)


def _activate(store: TableStore, version: TableVersion, verb: str) -> None:
    """Or takes the version back: a command that fails leaves nothing behind."""
    with changing(store) as changes:
        try:
            changes.activate_new(version, verb)
        except (ServiceError, OSError) as error:
            try:
                changes.delete_version(version.name, version.version)
            except (ServiceError, OSError):
                error.args = (f"{error}; {version} stays published",)
            raise


def _report(store: TableStore, version: TableVersion, active: bool, json: bool, seconds: float) -> None:
    folder = store.version(version)
    manifest = folder.manifest()
    vocabulary = folder.has_vocabulary()
    if json:
        content = {"table": version.name, "version": version.version, "active": active, "has_vocabulary": vocabulary}
        print_json(content | manifest.model_dump(mode="json", exclude={"files"}) | {"seconds": round(seconds, 3)})
        return
    out.print(f"{version}: {_size(manifest)}" + (", with a vocabulary" if vocabulary else ""))
    out.print(f"from {', '.join(f'{key} {value}' for key, value in manifest.source.items())}")
    if manifest.rounding is not None:
        out.print(f"rounded to {manifest.dtype}: {_errors(manifest.rounding)}")
    special = {"padding_id": manifest.padding_id, "unk_id": manifest.unk_id}
    said = [f"{name} {row}" for name, row in special.items() if row is not None]
    out.print(", ".join([*said, f"on_oov {manifest.on_oov}", "active" if active else "not active"]), end="")
    out.print(f"; {seconds:.1f} s")


def _errors(rounding: Rounding) -> str:
    errors = f"max abs error {rounding.max_abs_error:.3g}, mean abs error {rounding.mean_abs_error:.3g}"
    return f"{errors}, mean cosine {rounding.mean_cosine:.6f}"


def _size(manifest: Manifest) -> str:
    return f"{manifest.num_embeddings:,} x {manifest.embedding_dim} {manifest.dtype}"
