"""From a version on disk to a table in memory. Slow and blocking by nature: never called on an event loop."""

from collections.abc import Callable

from service.backends import NUMPY, Backend, Fetching, open_rows
from service.errors import DamagedVersion
from service.registry import LoadedTable
from service.rowtexts import RowTexts
from service.store import TableStore
from service.table import EmbeddingTable
from service.texts import TextReader
from service.types import TableVersion
from service.vocabulary import Vocabulary


def load(
    store: TableStore,
    version: TableVersion,
    fetching: Fetching = NUMPY,
    make_texts: Callable[[Backend], RowTexts | None] = lambda _: None,
    saw_outside: Callable[[int], None] = lambda _: None,
    *,
    gently: bool = True,
) -> LoadedTable:
    """Checks and opens a version; its pages are in memory on return. `make_texts` makes what keeps JSON text;
    `saw_outside` is told of ids outside the table.

    `gently` is for a process that serves meanwhile: its lookups find the processor free.
    Raises TableNotFound, VersionNotFound, DamagedVersion, and what the backend raises beside ValueError.
    """
    folder = store.version(version)
    manifest = folder.check()
    tokens = folder.tokens()
    try:
        rows = open_rows(folder.row_files(), fetching, gently=gently)
    except (OSError, ValueError) as error:
        raise DamagedVersion(version, f"{folder.vectors.name}: {error}") from error
    table = EmbeddingTable(
        identity=version,
        backend=rows,
        vocabulary=None if tokens is None else Vocabulary(tokens),
        padding_id=manifest.padding_id,
        unk_id=manifest.unk_id,
        on_oov=manifest.on_oov,
        texts=make_texts(rows),
        reader=TextReader.of(folder.text(), manifest.no_text),
        saw_outside=saw_outside,
    )
    return LoadedTable(table, manifest, fetching.backend, folder.identity())
