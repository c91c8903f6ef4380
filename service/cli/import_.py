"""`import`: a new version from a file."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args

import typer

from service.cli.common import JsonOption, StoreOption, one_of, store_at
from service.cli.publishing import ActivateOption, OovOption, PaddingOption, TableOption, UnkOption, publish
from service.errors import InvalidTable
from service.importers import IMPORTERS
from service.importers.options import ImportOptions, Missing
from service.importing import Import, TextOptions
from service.manifest import TextPooling
from service.types import OovRule, RowDtype

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The trained table.", show_default=False)]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        callback=one_of(IMPORTERS),
        metavar="FORMAT",
        help=f"One of {', '.join(IMPORTERS)}; told by the content without it.",
    ),
]
TensorOption = Annotated[
    str | None, typer.Option("--tensor", help="Which array of several, by name or an unambiguous part of it.")
]
VocabularyOption = Annotated[
    Path | None,
    typer.Option(
        "--vocabulary", metavar="FILE", help="The token of every row: lines of text, JSON, or a tokenizer.json."
    ),
]
TokenColumnOption = Annotated[
    str | None,
    typer.Option(
        "--token-column",
        metavar="NAME",
        help="Which column of a CSV or Parquet file has the tokens, by name or number.",
    ),
]
RowsOption = Annotated[int | None, typer.Option("--rows", min=1, help="Take only the first so many rows.")]
TransposeOption = Annotated[
    bool, typer.Option("--transpose", help="The matrix is dimension x vocabulary: swap its axes.")
]
SelectOption = Annotated[
    Path | None,
    typer.Option("--select", metavar="FILE", help="Word list: one row for each of its words, in their order."),
]
MissingOption = Annotated[
    str | None,
    typer.Option(
        "--missing",
        callback=one_of(get_args(Missing)),
        metavar="RULE",
        help="What a word of --select without a row gets: error (as without this option), zeros or random.",
    ),
]
NormalizeOption = Annotated[bool, typer.Option("--normalize", help="Scale every row to an L2 norm of 1.")]
MaxNormOption = Annotated[
    float | None, typer.Option("--max-norm", help="Scale rows of a larger L2 norm down to this one.")
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        callback=one_of(get_args(RowDtype)),
        metavar="DTYPE",
        help="What rows are stored as: float32, float16, or int8 with a scale for each row; lookups give float32.",
    ),
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        help="A tokenizer.json whose ids are the rows, for vectors of texts; white space without it.",
    ),
]
PoolingOption = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        callback=one_of(get_args(TextPooling)),
        metavar="KIND",
        help="How the rows of a text's tokens become its vector: mean (as without this option), sum, max or sqrtn.",
    ),
]
NormalizeTextsOption = Annotated[
    bool, typer.Option("--normalize-texts", help="Scale the vector of every text to an L2 norm of 1.")
]
NoteOption = Annotated[str | None, typer.Option("--note", help="Origin or licence, kept with the version.")]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(name="import")(import_)


def import_(
    file: FileArgument,
    table: TableOption,
    format_: FormatOption = None,
    tensor: TensorOption = None,
    vocabulary: VocabularyOption = None,
    token_column: TokenColumnOption = None,
    padding_id: PaddingOption = None,
    unk_id: UnkOption = None,
    on_oov: OovOption = "error",
    rows: RowsOption = None,
    transpose: TransposeOption = False,
    select: SelectOption = None,
    missing: MissingOption = None,
    normalize: NormalizeOption = False,
    max_norm: MaxNormOption = None,
    dtype: DtypeOption = "float32",
    tokenizer: TokenizerOption = None,
    pooling: PoolingOption = None,
    normalize_texts: NormalizeTextsOption = False,
    note: NoteOption = None,
    activate: ActivateOption = True,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Takes a trained table from a file into the store and, unless told otherwise, activates it.

    The format is told by the content of FILE, which may also be the folder of a Hugging Face or static text model.
    """
    if max_norm is not None and not 0 < max_norm < math.inf:
        raise typer.BadParameter("--max-norm must be a positive number")
    if missing is not None and select is None:
        raise typer.BadParameter("--missing is about the words of --select, which is not given")
    rule: Missing = missing or "error"  # type: ignore[assignment]  # the callbacks have checked these
    stored: RowDtype = dtype  # type: ignore[assignment]
    outside: OovRule = on_oov  # type: ignore[assignment]
    options = ImportOptions(
        tensor, rows, transpose, vocabulary, select, rule, normalize, max_norm, token_column=token_column
    )
    kind: TextPooling | None = pooling  # type: ignore[assignment]
    texts = TextOptions(tokenizer, kind, normalize_texts)
    started = time.perf_counter()
    imported = Import(options, format_, padding_id, unk_id, outside, stored, note, texts).read(file)
    with _named_in_errors(file, table):
        publish(store_at(store, new=True), table, imported, activate, json, started)


@contextmanager
def _named_in_errors(file: Path, table: str) -> Iterator[None]:
    """Puts the file before the store's reason why it cannot be a table, unless that is the table's name."""
    try:
        yield
    except InvalidTable as error:
        reason = str(error)
        raise InvalidTable(reason if reason.startswith(repr(table)) else f"{file}: {reason}") from None
