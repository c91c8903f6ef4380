"""Reading in a process of its own, with the real child: what it reads, what it refuses, what ends it."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service import importers
from service.errors import ImportFormatError
from service.importers import importer, isolation, read
from service.importers.options import ImportOptions
from tests.importers.contract import refusal
from tests.world import KERAS_ROWS, KERAS_TOKENS

pytestmark = pytest.mark.isolated
KERAS = Path(__file__).parents[1] / "data" / "keras"
FUZZ = Path(__file__).parents[1] / "data" / "fuzz"  # files that `make fuzz` has damaged


def parquet(path: Path, rows: int = len(KERAS_ROWS)) -> Path:
    table = np.resize(KERAS_ROWS, (rows, 2))
    tokens = [
        f"{KERAS_TOKENS[row % 7]}\n\ud83d\ude42{row}".encode("utf-16", "surrogatepass").decode("utf-16")
        for row in range(rows)
    ]
    pl.DataFrame({"word": tokens, "a": table[:, 0], "b": table[:, 1]}).write_parquet(path)
    return path


@pytest.mark.parametrize("name", sorted(importers.IN_CHILD))
def test_a_child_reads_what_the_importer_reads(tmp_path: Path, name: str) -> None:
    files = {"keras": KERAS / "sequential.keras", "onnx": KERAS.parent / "onnx" / "torch.onnx"}
    path = files.get(name) or parquet(tmp_path / "table", 20_000)
    found, table = read(path, ImportOptions())
    there = importer(name)(path, ImportOptions())
    assert found == name
    assert (table.padding_id, table.unk_id, table.source) == (there.padding_id, there.unk_id, there.source)
    blocks, others = list(table.blocks), list(there.blocks)
    assert [block.vectors.tobytes() for block in blocks] == [block.vectors.tobytes() for block in others]
    assert [block.tokens for block in blocks] == [block.tokens for block in others]
    assert sum(len(block.vectors) for block in blocks) == table.num_embeddings


@pytest.mark.parametrize("module", ["json", "h5py", "service", "numpy"])
def test_modules_in_the_working_folder_are_not_run(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text("open('sprung', 'w').close()")
    monkeypatch.chdir(tmp_path)
    _, table = read(KERAS / "sequential.keras", ImportOptions())
    assert [len(block.vectors) for block in table.blocks] == [7]
    assert not (tmp_path / "sprung").exists()


def test_options_reach_the_child(tmp_path: Path) -> None:
    words = tmp_path / "wörter"
    words.write_text("".join(f"{i}\n" for i in range(4)), encoding="utf-8")
    _, table = read(KERAS / "two.keras", ImportOptions(tensor="user", rows=4, vocabulary=words))
    (block,) = table.blocks
    assert (table.num_embeddings, block.tokens) == (4, ["0", "1", "2", "3"])


def test_a_refusal_of_the_child_is_that_of_the_importer() -> None:
    path = KERAS / "two.keras"
    with pytest.raises(ImportFormatError) as refused:
        importer("keras")(path, ImportOptions())
    there = refusal(path)
    assert (there.reason, there.place) == (refused.value.reason, refused.value.place)


def test_a_refusal_between_blocks_comes_with_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "table"
    rows = np.zeros((20_000, 2), np.float32)
    rows[19_999, 1] = np.nan
    pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1]}).write_parquet(path)
    _, table = read(path, ImportOptions())
    with pytest.raises(ImportFormatError, match="row 19999, column 1") as refused:
        list(table.blocks)
    assert refused.value.file == str(path)


def test_a_file_that_keeps_the_library_busy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_SECONDS", 0.01)
    reason = refusal(KERAS / "sequential.keras").reason
    assert reason == "it could not be read in 0.01 seconds of processor time"


def test_a_file_that_takes_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_MEMORY", 16 << 20)
    assert "memory" in refusal(parquet(tmp_path / "table")).reason


@pytest.mark.parametrize(
    ("limit", "value", "named"),
    [("_SECONDS", 1, "in 1 seconds of processor time"), ("_MEMORY", 256 << 20, "memory")],
    ids=["seconds", "memory"],
)
def test_a_damaged_file_on_which_hdf5_never_ends_is_refused(
    limit: str, value: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, limit, value)
    assert named in refusal(FUZZ / "endless.weights.h5").reason


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_child_that_dies_is_a_refusal(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = ["-c", f"import os; os.kill(os.getpid(), {int(number)})"]
    start = subprocess.Popen

    def popen(command: list[str], **options: int) -> subprocess.Popen[bytes]:
        return start([command[0], *dying], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert f"crashed ({number.name})" in refusal(KERAS / "sequential.keras").reason


def test_a_mistake_in_the_child_is_shown_and_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ImportOptions(max_norm=1.0)
    monkeypatch.setattr(isolation, "asdict", lambda value: {"rows": 1} if value is options else {"memory": 1 << 40})
    with pytest.raises(RuntimeError, match="KeyError"):
        read(KERAS / "sequential.keras", options)


def children() -> set[int]:
    """The processes that this one has started and that are there (those of earlier tests may end at any time)."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_table_that_nobody_reads_leaves_no_child() -> None:
    before = children()
    _, table = read(KERAS / "sequential.keras", ImportOptions())
    assert len(children() - before) == 1
    del table
    assert children() <= before


def test_a_table_that_was_read_leaves_no_child() -> None:
    before = children()
    _, table = read(KERAS / "sequential.keras", ImportOptions())
    list(table.blocks)
    assert children() <= before
