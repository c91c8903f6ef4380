from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from service.backends.runtime import onnxruntime
from service.loader import load
from service.store import TableStore
from service.types import RowDtype, TableVersion
from tests.cli.command import command, contents, default_store, done, nothing_changes, stored_rows
from tests.importers.contract import AWKWARD_ROWS
from tests.world import KERAS_ROWS, KERAS_TOKENS, imported, publish

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` with version 1, and the active 2 with a vocabulary."""
    opened = default_store(tmp_path)
    publish(opened, "words", AWKWARD_ROWS)
    publish(opened, "words", KERAS_ROWS, KERAS_TOKENS)
    return opened


@pytest.mark.parametrize("name", ["npy", "safetensors"])
def test_what_was_exported_comes_back_bit_for_bit(store: TableStore, tmp_path: Path, name: str) -> None:
    said = done(tmp_path, "export", "words", "--format", name, "--output", "out", "--version", 1, "--json").json()
    assert said == {"table": "words", "version": 1, "format": name, "output": "out"}
    assert done(tmp_path, "import", "out", "--table", "again", "--json").json()["source"]["format"] == name
    assert stored_rows(store, "again", 1).tobytes() == AWKWARD_ROWS.tobytes()


def test_an_npy_is_what_numpy_loads(store: TableStore, tmp_path: Path) -> None:
    with nothing_changes(store.root):
        done(tmp_path, "export", "words", "--format", "npy", "--output", tmp_path / "rows.npy")
    assert np.load(tmp_path / "rows.npy").tobytes() == KERAS_ROWS.tobytes()


def test_a_safetensors_is_what_its_library_loads_and_says_where_it_is_from(store: TableStore, tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    done(tmp_path, "export", "words", "--format", "safetensors", "--output", path)
    tensors = load_file(path)
    assert list(tensors) == ["embedding.weight"]
    assert tensors["embedding.weight"].tobytes() == KERAS_ROWS.tobytes()
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"table": "words", "version": "2"}


def test_the_vocabulary_is_written_too_and_can_be_imported_again(store: TableStore, tmp_path: Path) -> None:
    done(tmp_path, "export", "words", "--format", "npy", "--output", "rows", "--vocabulary", "tokens")
    assert (tmp_path / "tokens").read_text() == "".join(f"{token}\n" for token in KERAS_TOKENS)
    done(tmp_path, "import", "rows", "--table", "again", "--vocabulary", "tokens")
    assert done(tmp_path, "show", "again", "--json").json()["versions"][0]["has_vocabulary"] is True


def test_a_file_that_is_there_is_overwritten_only_by_force(store: TableStore, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_text("precious")
    arguments = ("export", "words", "--format", "npy", "--output", "rows.npy")
    with nothing_changes(tmp_path):
        ended = command(tmp_path, *arguments)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == "error: rows.npy is there already; --force overwrites it\n"
    done(tmp_path, *arguments, "--force")
    assert np.load(tmp_path / "rows.npy").tobytes() == KERAS_ROWS.tobytes()


@pytest.mark.parametrize("there", ["rows", "tokens"])
def test_neither_file_is_written_where_one_is_there_already(store: TableStore, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with nothing_changes(tmp_path):
        ended = command(tmp_path, "export", "words", "--format", "npy", "--output", "rows", "--vocabulary", "tokens")
    assert ended.code == 4
    assert f"{there} is there already" in ended.err


def test_nothing_is_written_of_a_vocabulary_that_is_not_there(store: TableStore, tmp_path: Path) -> None:
    arguments = ("--format", "npy", "--output", "rows", "--vocabulary", "tokens", "--version", 1)
    with nothing_changes(tmp_path):
        ended = command(tmp_path, "export", "words", *arguments)
    assert (ended.code, ended.out) == (4, "")
    assert "words version 1 has no vocabulary" in ended.err


def test_a_token_with_a_newline_is_refused_and_named(tmp_path: Path) -> None:
    publish(default_store(tmp_path), "odd", KERAS_ROWS[:2], ["a", "b\nc"])
    with nothing_changes(tmp_path):
        ended = command(tmp_path, "export", "odd", "--format", "npy", "--output", "rows", "--vocabulary", "tokens")
    assert (ended.code, ended.out) == (4, "")
    assert r"'b\nc'" in ended.err


def test_the_output_is_named_as_it_is(store: TableStore, tmp_path: Path) -> None:
    ended = done(tmp_path, "export", "words", "--format", "npy", "--output", "rows[en].npy")
    assert "rows[en].npy" in ended.out
    assert "rows[en].npy" in contents(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("name", ["npy", "safetensors"])
def test_rows_in_fewer_bits_are_exported_as_the_float32_that_lookups_give(
    tmp_path: Path, name: str, dtype: RowDtype
) -> None:
    store = default_store(tmp_path)
    version = store.publish("words", replace(imported(KERAS_ROWS), dtype=dtype), activate=True)
    done(tmp_path, "export", "words", "--format", name, "--output", "out")
    exported = np.load(tmp_path / "out") if name == "npy" else load_file(tmp_path / "out")["embedding.weight"]
    looked_up = load(store, version).table.backend.gather(np.arange(7))
    assert (exported.dtype, exported.shape) == (np.float32, (7, 2))
    assert exported.tobytes() == looked_up.tobytes() != KERAS_ROWS.tobytes()


# ONNX


def onnx_store(folder: Path, dtype: RowDtype) -> TableStore:
    store = default_store(folder)
    rows = AWKWARD_ROWS.clip(-65504, 65504) if dtype == "float16" else AWKWARD_ROWS
    table = replace(imported(rows, padding_id=0, unk_id=1), dtype=dtype)
    store.publish("words", table, activate=True)
    return store


@every_dtype
def test_an_onnx_model_gives_the_vectors_of_the_service_anywhere(tmp_path: Path, dtype: RowDtype) -> None:
    store = onnx_store(tmp_path, dtype)
    done(tmp_path, "export", "words", "--format", "onnx", "--output", "out")
    moved = tmp_path / "elsewhere" / "model"
    moved.parent.mkdir()
    (tmp_path / "out").rename(moved)
    onnx.checker.check_model(moved / "model.onnx", full_check=True)
    session = onnxruntime().InferenceSession(moved / "model.onnx", providers=["CPUExecutionProvider"])
    looked_up = load(store, TableVersion("words", 1)).table.backend
    for ids in ([], [0], [1, 0, len(AWKWARD_ROWS) - 1], list(range(len(AWKWARD_ROWS)))):
        (vectors,) = session.run(None, {"ids": np.array(ids, dtype=np.int64)})
        assert vectors.dtype == np.float32
        assert vectors.tobytes() == looked_up.gather(np.array(ids, dtype=np.int64)).tobytes()


@every_dtype
def test_an_onnx_folder_has_the_files_of_the_store_and_says_what_they_are(tmp_path: Path, dtype: RowDtype) -> None:
    store = onnx_store(tmp_path, dtype)
    said = done(tmp_path, "export", "words", "--format", "onnx", "--output", "out", "--json").json()
    assert said == {"table": "words", "version": 1, "format": "onnx", "output": "out"}
    rows = {"vectors.npy", "scales.npy"} if dtype == "int8" else {"vectors.npy"}
    assert contents(tmp_path / "out").keys() == {"model.onnx", *rows}
    for name in rows:
        assert (tmp_path / "out" / name).read_bytes() == (store.root / "words" / "1" / name).read_bytes()
    model = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata == {"table": "words", "version": "1", "padding_id": "0", "unk_id": "1"}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_exported_model_can_be_imported_again(tmp_path: Path, dtype: RowDtype) -> None:
    store = onnx_store(tmp_path, dtype)
    done(tmp_path, "export", "words", "--format", "onnx", "--output", "out")
    done(tmp_path, "import", "out/model.onnx", "--table", "again")
    everything = load(store, TableVersion("words", 1)).table.backend.gather(np.arange(len(AWKWARD_ROWS)))
    assert stored_rows(store, "again", 1).tobytes() == everything.tobytes()


def test_an_onnx_folder_that_is_there_is_overwritten_only_by_force_and_only_if_it_is_one(tmp_path: Path) -> None:
    onnx_store(tmp_path, "int8")
    arguments = ("export", "words", "--format", "onnx", "--output", "out")
    done(tmp_path, *arguments)
    with nothing_changes(tmp_path):
        ended = command(tmp_path, *arguments)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == "error: out is there already; --force overwrites it\n"
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "model.onnx").write_bytes(b"")
    done(tmp_path, *arguments, "--force")
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with nothing_changes(tmp_path):
        ended = command(tmp_path, *arguments, "--force")
    assert (ended.code, ended.err) == (4, "error: out is there already, with other files in it\n")


@pytest.mark.parametrize(("name", "vocabulary"), [("npy", "out"), ("onnx", "out/words.txt")])
def test_a_vocabulary_is_not_written_where_the_rows_come(
    store: TableStore, tmp_path: Path, name: str, vocabulary: str
) -> None:
    arguments = ("export", "words", "--format", name, "--output", "out", "--force")
    done(tmp_path, *arguments)
    with nothing_changes(tmp_path):
        ended = command(tmp_path, *arguments, "--vocabulary", vocabulary)
    assert (ended.code, ended.out) == (5, "")
    assert "would be overwritten by what is written to out" in ended.err


@pytest.mark.parametrize(("name", "there"), [("onnx", "a file"), ("npy", "a folder")])
def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path, name: str, there: str) -> None:
    onnx_store(tmp_path, "float32")
    if there == "a file":
        (tmp_path / "out").write_text("precious")
    else:
        (tmp_path / "out").mkdir()
    with nothing_changes(tmp_path):
        ended = command(tmp_path, "export", "words", "--format", name, "--output", "out", "--force")
    assert ended.code == 5
    assert f"out is {there}" in ended.err


@pytest.mark.parametrize("name", ["npy", "safetensors"])
def test_many_reduced_rows_are_exported_in_their_order(tmp_path: Path, name: str) -> None:
    rows = np.arange(2 * 70_000, dtype=np.float32).reshape(-1, 2)
    store = default_store(tmp_path)
    version = store.publish("many", replace(imported(rows), dtype="int8"), activate=True)
    done(tmp_path, "export", "many", "--format", name, "--output", "out")
    exported = np.load(tmp_path / "out") if name == "npy" else load_file(tmp_path / "out")["embedding.weight"]
    assert exported.tobytes() == load(store, version).table.backend.gather(np.arange(70_000)).tobytes()
