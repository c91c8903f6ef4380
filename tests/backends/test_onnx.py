"""Rows through ONNX Runtime on the processor."""

import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from service import onnxgraph
from service.backends import Fetching, onnx, open_rows, runtime
from service.errors import Conflict
from service.types import RowArray, RowDtype
from tests.backends.contract import ROWS, BackendContract, MappedContract, every_dtype, files_of, ids_of, served

ONNX = Fetching("onnx")


class TestOnnx(MappedContract):
    fetching: ClassVar = ONNX


class TestOnnxInThreads(MappedContract):
    fetching: ClassVar = Fetching("onnx", threads=2)

    @pytest.fixture(autouse=True)
    def large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnx, "_LARGE", 0)

    def test_a_small_table_has_no_threads_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def threads() -> int:
            return len(list(Path("/proc/self/task").iterdir()))

        before = threads()
        large = open_rows(files_of(tmp_path, "float32"), self.fetching)
        assert threads() == before + 3
        monkeypatch.setattr(onnx, "_LARGE", ROWS.nbytes + 1)
        small = open_rows(files_of(tmp_path, "float32"), self.fetching)
        assert threads() == before + 3
        large.release()
        assert threads() == before
        small.release()


class TestOnnxOnADevice(BackendContract):
    """The way of devices: rows are put into memory of their own. The processor stands in for one."""

    fetching: ClassVar = ONNX

    @pytest.fixture(autouse=True)
    def device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "has_own_memory", lambda _: True)
        monkeypatch.setattr(onnx, "_DEVICE_AT_ONCE", 1 << 12)

    def test_the_rows_are_there_though_the_file_is_gone(self, tmp_path: Path) -> None:
        files = files_of(tmp_path, "float32")
        backend = open_rows(files, ONNX)
        files.vectors.unlink()
        assert backend.gather(ids_of([3, 8])).tobytes() == served("float32")[[3, 8]].tobytes()


@every_dtype
@pytest.mark.parametrize("model", ["lookup_model", "pooling_model"])
def test_a_graph_that_onnx_runtime_refuses_is_no_damage_but_a_conflict(
    tmp_path: Path, dtype: RowDtype, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(onnxgraph, model)
    monkeypatch.setattr(onnxgraph, model, lambda *arguments: real(*arguments).replace(b"Gather", b"Gathem"))
    with pytest.raises(Conflict, match=r"ONNX Runtime cannot open it with CPUExecutionProvider: .*Gathem"):
        open_rows(files_of(tmp_path, dtype), ONNX)


def test_a_released_table_gathers_no_more_and_its_sessions_are_gone(tmp_path: Path) -> None:
    backend = open_rows(files_of(tmp_path, "float32"), ONNX)
    assert backend.gather(ids_of([3])).tobytes() == served("float32")[3].tobytes()
    run = weakref.ref(backend._run)  # type: ignore[attr-defined]
    backend.release()
    assert run() is None
    with pytest.raises(AssertionError, match="released"):
        backend.gather(ids_of([3]))


def test_the_rows_are_those_of_the_file_and_not_a_copy(tmp_path: Path) -> None:
    """Who writes into the file, as nobody may, sees it."""
    files = files_of(tmp_path, "float32")
    backend = open_rows(files, ONNX)
    with files.vectors.open("r+b") as file:
        file.seek(128 + 5 * 4)
        file.write(np.full(5, 42, dtype="<f4").tobytes())
    expected: RowArray = np.vstack([ROWS[0], np.full(5, 42, dtype=np.float32)])
    assert backend.gather(ids_of([0, 1])).tobytes() == expected.tobytes()
    assert backend.combine(ids_of([0, 1]), 2, "max").tobytes() == expected.max(axis=0).astype(np.float64).tobytes()


def test_nothing_is_kept_of_a_run(tmp_path: Path) -> None:
    backend = open_rows(files_of(tmp_path, "float32"), ONNX)
    gathered = backend.gather(ids_of([3, 5]))
    gone = weakref.ref(gathered)
    del gathered
    assert gone() is None
