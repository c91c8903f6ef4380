"""A file into a table that can be published: what `import` on the command line and an upload have in common."""

from dataclasses import dataclass, replace
from pathlib import Path

from service.imported import ImportedTable
from service.importers import read
from service.importers.options import ImportOptions
from service.types import OovRule, RowDtype


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

    def read(self, path: Path) -> ImportedTable:
        """The table in `path`, a file or a model's folder; raises ImportFormatError."""
        found, imported = read(path, self.options, self.format)
        said = {} if self.note is None else {"note": self.note}
        table = replace(imported, dtype=self.dtype, source={**imported.source, "format": found, **said})
        return with_special_rows(table, self.padding_id, self.unk_id, self.on_oov)


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
