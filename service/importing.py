"""A file into a table that can be published: what `import` on the command line and an upload have in common."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from service.errors import ImportFormatError, InvalidTable
from service.imported import ImportedTable, TextModel
from service.importers import read
from service.importers.json_file import read_object
from service.importers.options import ImportOptions
from service.importers.tokenizer import tokens_in
from service.manifest import TextPooling, TextSettings
from service.types import OovRule, RowDtype


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How texts are to be read, beyond what a static text model says; `tokenizer` is a `tokenizer.json`."""

    tokenizer: Path | None = None
    pooling: TextPooling | None = None
    normalize: bool = False

    def applied(self, imported: ImportedTable) -> ImportedTable:
        """`imported` with what is said here before what its file says; raises ImportFormatError, InvalidTable."""
        if self == AS_THE_FILE_SAYS:
            return imported
        before = imported.text
        tokenizer = None if before is None else before.tokenizer
        settings = TextSettings(normalize=False, tokenizer="whitespace") if before is None else before.settings
        if self.tokenizer is not None:
            tokenizer = _tokenizer_for(self.tokenizer, imported.num_embeddings)
            # What is cut and left out is a matter of the tokenizer: nothing of another one's stays.
            most = _most_tokens(self.tokenizer)
            settings = TextSettings(normalize=settings.normalize, pooling=settings.pooling, max_tokens=most)
        weights = None if before is None else before.weights
        if self.pooling is not None:
            if weights is not None and self.pooling not in ("mean", "sum"):
                raise InvalidTable(f"its tokens have weights, which have no meaning with pooling {self.pooling!r}")
            settings = settings.model_copy(update={"pooling": self.pooling})
        if self.normalize:
            settings = settings.model_copy(update={"normalize": True})
        return replace(imported, text=TextModel(tokenizer, settings, weights), no_text=None)


def _most_tokens(path: Path) -> int | None:
    """Where the tokenizer itself cuts texts; raises ImportFormatError for one that cuts them at their beginning."""
    truncation = read_object(path).get("truncation")
    if truncation is None:
        return None
    most = truncation.get("max_length") if isinstance(truncation, dict) else None
    if type(most) is not int or most < 0:
        raise ImportFormatError(str(path), "there is no max_length", "truncation")
    if truncation.get("direction", "Right") != "Right":
        raise ImportFormatError(str(path), "texts are cut at their beginning", "truncation.direction")
    return most


AS_THE_FILE_SAYS: Final = TextOptions()


def _tokenizer_for(path: Path, rows: int) -> bytes:
    """Raises ImportFormatError for a tokenizer that gives ids which are no rows."""
    tokens = tokens_in(path)
    last = max(tokens, default=-1)
    if last >= rows:
        raise ImportFormatError(str(path), f"its token {tokens[last]!r} has the id {last}, there are {rows} rows")
    return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Import:
    """How a file is read, which rows are special, how rows are stored; `note` is kept with the version.

    `format` None: told by the content. What is said of special rows goes before what the file says of them.
    """

    options: ImportOptions
    format: str | None = None
    padding_id: int | None = None
    unk_id: int | None = None
    on_oov: OovRule = "error"
    dtype: RowDtype = "float32"
    note: str | None = None
    text: TextOptions = AS_THE_FILE_SAYS

    def read(self, path: Path) -> ImportedTable:
        """The table in `path`, a file or a model's folder; raises ImportFormatError."""
        found, imported = read(path, self.options, self.format)
        said = {} if self.note is None else {"note": self.note}
        table = replace(imported, dtype=self.dtype, source={**imported.source, "format": found, **said})
        return with_special_rows(self.text.applied(table), self.padding_id, self.unk_id, self.on_oov)


def with_special_rows(
    imported: ImportedTable, padding_id: int | None, unk_id: int | None, on_oov: OovRule
) -> ImportedTable:
    """What the user says of special rows; what the user does not say is as the file has it."""
    return replace(
        imported,
        padding_id=imported.padding_id if padding_id is None else padding_id,
        unk_id=imported.unk_id if unk_id is None else unk_id,
        on_oov=on_oov,
    )
