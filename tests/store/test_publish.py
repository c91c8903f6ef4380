import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service import npyfile
from service.errors import InvalidTable, ServiceError, TableNotFound, VersionNotFound
from service.history import Activation
from service.imported import ImportedTable, RowBlock
from service.store import TableStore
from service.types import RowArray, TableVersion
from tests.world import KERAS_ROWS, KERAS_TOKENS, imported, publish

REPOSITORY = Path(__file__).parents[2]


def rows_of(store: TableStore, version: TableVersion) -> RowArray:
    return npyfile.map_rows(store.version(version).vectors)[1]


def test_the_first_version_is_one_and_the_next_is_one_more(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    numbers = [publish(store, "words", KERAS_ROWS, activate=False).version for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert store.versions("words") == [1, 2, 3]


def test_a_published_version_holds_the_rows_bit_for_bit_and_the_tokens(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    version = publish(store, "words", KERAS_ROWS, KERAS_TOKENS, padding_id=0, unk_id=3, on_oov="unk")
    manifest = store.verify(version)
    assert rows_of(store, version).tobytes() == KERAS_ROWS.tobytes()
    assert store.version(version).tokens() == KERAS_TOKENS
    assert (manifest.padding_id, manifest.unk_id, manifest.on_oov) == (0, 3, "unk")


def test_special_floats_are_kept_bit_for_bit(tmp_path: Path) -> None:
    rows = np.array([[-0.0, 1e-45], [np.finfo(np.float32).max, -np.finfo(np.float32).tiny]], dtype=np.float32)
    store = TableStore(tmp_path)
    assert rows_of(store, publish(store, "words", rows)).tobytes() == rows.tobytes()


def test_a_version_without_tokens_has_no_vocabulary_file(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    folder = store.version(publish(store, "words", KERAS_ROWS))
    assert {path.name for path in folder.path.iterdir()} == {"manifest.json", "vectors.npy"}
    assert folder.tokens() is None
    assert not folder.has_vocabulary()


def test_the_rows_file_is_a_128_byte_header_and_little_endian_c_order(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    data = store.version(publish(store, "words", np.asfortranarray(KERAS_ROWS))).vectors.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    assert len(data) == 128 + KERAS_ROWS.nbytes
    assert data[128:] == KERAS_ROWS.astype("<f4").tobytes("C")


def test_blocks_are_joined_in_order_and_progress_counts_their_rows(tmp_path: Path) -> None:
    blocks = [RowBlock(KERAS_ROWS[:3], KERAS_TOKENS[:3]), RowBlock(KERAS_ROWS[3:], KERAS_TOKENS[3:])]
    counted: list[int] = []
    store = TableStore(tmp_path)
    version = store.publish("words", ImportedTable(7, 2, blocks), progress=counted.append)
    assert np.array_equal(rows_of(store, version), KERAS_ROWS)
    assert store.version(version).tokens() == KERAS_TOKENS
    assert counted == [3, 4]


def test_a_block_without_rows_changes_nothing(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    table = ImportedTable(7, 2, [RowBlock(KERAS_ROWS[:0]), RowBlock(KERAS_ROWS)])
    assert np.array_equal(rows_of(store, store.publish("words", table)), KERAS_ROWS)


def test_publish_alone_activates_nothing(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS, activate=False)
    assert store.active_version("words") is None
    assert store.history("words") == []


def test_publish_may_activate(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS)
    publish(store, "words", KERAS_ROWS)
    assert store.active_version("words") == 2


def test_tables_lists_what_has_a_version_and_nothing_else(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, "b", KERAS_ROWS, activate=False)
    publish(store, "a", KERAS_ROWS)
    (tmp_path / "README.md").write_text("not a table")
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed" / ".staging-0").mkdir(parents=True)
    assert store.tables() == ["a", "b"]


def test_a_store_that_is_not_there_has_no_tables(tmp_path: Path) -> None:
    assert TableStore(tmp_path / "nothing").tables() == []


def test_the_store_folder_is_made_by_the_first_publish(tmp_path: Path) -> None:
    store = TableStore(tmp_path / "deep" / "store")
    publish(store, "words", KERAS_ROWS)
    assert store.tables() == ["words"]


def test_other_stores_on_the_folder_see_a_version_at_once(tmp_path: Path) -> None:
    reader = TableStore(tmp_path)
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    assert reader.active_version("words") == 1


def test_a_number_of_a_deleted_version_is_not_given_again(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    for _ in range(2):
        publish(store, "words", KERAS_ROWS, activate=False)
    store.delete_version("words", 2)
    store.delete_version("words", 1)
    assert publish(store, "words", KERAS_ROWS).version == 3


def test_versions_that_are_not_there_are_named(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS)
    with pytest.raises(VersionNotFound, match="no version 2"):
        store.version(TableVersion("words", 2))
    with pytest.raises(TableNotFound, match="'nothing'"):
        store.version(TableVersion("nothing", 1))


NAN = KERAS_ROWS.copy()
NAN[5, 1] = np.nan
INFINITE = KERAS_ROWS.copy()
INFINITE[6, 0] = -np.inf
PLAIN = imported(KERAS_ROWS)

REFUSED: dict[str, tuple[ImportedTable, str]] = {
    "nan": (imported(NAN), "row 5, column 1 is nan"),
    "infinity": (imported(INFINITE), "row 6, column 0 is -inf"),
    "nan in a later block": (
        ImportedTable(14, 2, [RowBlock(KERAS_ROWS), RowBlock(NAN)]),
        "row 12, column 1 is nan",
    ),
    "no rows": (ImportedTable(0, 2, []), "0 x 2"),
    "no columns": (ImportedTable(7, 0, []), "7 x 0"),
    "fewer rows than promised": (replace(PLAIN, num_embeddings=8), "8 rows were promised, 7 came"),
    "more rows than promised": (replace(PLAIN, num_embeddings=6), "6 rows were promised, 7 came"),
    "no blocks": (replace(PLAIN, blocks=[]), "7 rows were promised, 0 came"),
    "another dimension": (replace(PLAIN, embedding_dim=3), "shape (7, 2)"),
    "a flat block": (replace(PLAIN, blocks=[RowBlock(KERAS_ROWS.reshape(-1))]), "shape (14,)"),
    "a deep block": (replace(PLAIN, blocks=[RowBlock(KERAS_ROWS.reshape(7, 2, 1))]), "shape (7, 2, 1)"),
    "too few tokens": (imported(KERAS_ROWS, KERAS_TOKENS[:6]), "6 tokens for 7 rows"),
    "too many tokens": (imported(KERAS_ROWS, (*KERAS_TOKENS, "more")), "8 tokens for 7 rows"),
    "tokens in one block only": (
        ImportedTable(14, 2, [RowBlock(KERAS_ROWS, KERAS_TOKENS), RowBlock(KERAS_ROWS)]),
        "7 tokens for 14 rows",
    ),
    "a token twice": (imported(KERAS_ROWS, ("hope", "to", "see", "you", "to", "nice", "again")), "'to' (ids 1, 4)"),
    "a lone surrogate": (imported(KERAS_ROWS, ("\udc80", *KERAS_TOKENS[1:])), "UTF-8"),
    "padding_id beyond": (imported(KERAS_ROWS, padding_id=7), "padding_id 7"),
    "padding_id negative": (imported(KERAS_ROWS, padding_id=-1), "padding_id"),
    "unk_id beyond": (imported(KERAS_ROWS, unk_id=2**40), "unk_id"),
    "unk without unk_id": (imported(KERAS_ROWS, on_oov="unk"), "unk_id"),
    "a source that is not text": (replace(PLAIN, source={"file": "caf\udce9.npy"}), "source"),
}


@pytest.mark.parametrize(("table", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_served_is_refused_and_leaves_nothing(tmp_path: Path, table: ImportedTable, named: str) -> None:
    with pytest.raises(InvalidTable) as refusal:
        TableStore(tmp_path).publish("words", table, activate=True)
    assert named in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_publish_leaves_an_existing_table_as_it_was(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS)
    before = {path.name for path in (tmp_path / "words").iterdir()}
    with pytest.raises(InvalidTable):
        store.publish("words", imported(NAN), activate=True)
    assert {path.name for path in (tmp_path / "words").iterdir()} == before
    assert store.active_version("words") == 1


class ReadError(Exception):
    """What a broken source raises."""


def test_an_error_of_the_source_passes_and_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[RowBlock]:
        yield RowBlock(KERAS_ROWS)
        raise ReadError

    with pytest.raises(ReadError):
        TableStore(tmp_path).publish("words", ImportedTable(14, 2, blocks()))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_a_file_of_the_store_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("the format")
    with pytest.raises(ServiceError):
        publish(TableStore(tmp_path), "README.md", KERAS_ROWS)
    assert (tmp_path / "README.md").read_text() == "the format"


def test_the_manifest_on_disk_says_what_was_published(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    table = replace(imported(KERAS_ROWS, KERAS_TOKENS, padding_id=0), source={"file": "a.npy", "rows": 7})
    folder = store.version(store.publish("words", table)).path
    said = json.loads((folder / "manifest.json").read_bytes())
    assert list(said) == [
        "format",
        "num_embeddings",
        "embedding_dim",
        "dtype",
        "rounding",
        "padding_id",
        "unk_id",
        "on_oov",
        "text",
        "no_text",
        "files",
        "source",
        "created",
    ]
    assert said["source"] == {"file": "a.npy", "rows": 7}
    assert {name: record["bytes"] for name, record in said["files"].items()} == {
        name: (folder / name).stat().st_size for name in ("vectors.npy", "vocabulary.txt")
    }


def publish_some(root: str, count: int) -> None:
    """Publishes and activates `count` versions; run in a process of its own."""
    for _ in range(count):
        publish(TableStore(Path(root)), "words", KERAS_ROWS, KERAS_TOKENS)


def test_processes_that_publish_at_once_get_different_numbers(tmp_path: Path) -> None:
    code = f"from tests.store.test_publish import publish_some; publish_some({str(tmp_path)!r}, 8)"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    store = TableStore(tmp_path)
    assert store.versions("words") == list(range(1, 25))
    activated = [event.version for event in store.history("words") if isinstance(event, Activation)]
    assert sorted(activated) == list(range(1, 25))


def test_threads_that_publish_at_once_get_different_numbers(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(publish(store, "words", KERAS_ROWS).version)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(numbers) == list(range(1, 9))
    assert store.active_version("words") in numbers
