"""`create`: a new version from an initializer."""

import time
from typing import Annotated

import typer

from service.cli.common import JsonOption, StoreOption, one_of, store_at
from service.cli.publishing import ActivateOption, OovOption, PaddingOption, TableOption, UnkOption, publish
from service.importing import with_special_rows
from service.initializers import INITIALIZERS, new_table
from service.types import OovRule

_MOST = 1 << 40


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(name="create")(create)


def create(
    table: TableOption,
    num_embeddings: Annotated[int, typer.Option("--num-embeddings", min=1, max=_MOST, help="Rows of the table.")],
    embedding_dim: Annotated[int, typer.Option("--embedding-dim", min=1, max=_MOST, help="Numbers in a row.")],
    initializer: Annotated[
        str,
        typer.Option(
            "--initializer",
            callback=one_of(INITIALIZERS),
            metavar="NAME",
            help=f"How rows are drawn, by Keras' names: {', '.join(INITIALIZERS)}.",
        ),
    ] = "uniform",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed draws the same rows.")] = 0,
    padding_id: PaddingOption = None,
    unk_id: UnkOption = None,
    on_oov: OovOption = "error",
    activate: ActivateOption = True,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Makes a new table with one of Keras' initializers: something to try a client with before training is done."""
    outside: OovRule = on_oov  # type: ignore[assignment]  # the callback has checked it
    started = time.perf_counter()
    drawn = new_table(num_embeddings, embedding_dim, initializer, seed)
    publish(
        store_at(store, new=True), table, with_special_rows(drawn, padding_id, unk_id, outside), activate, json, started
    )
