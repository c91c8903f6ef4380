"""The contract on a CUDA device, and how fast it gathers. Without a device all of it is skipped."""

import sys
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import pytest

from load_tests.bench.cuda import measure
from load_tests.running import running
from service.backends import Fetching, open_rows
from service.backends.device import cuda_free, memory_of
from service.backends.runtime import CUDA, usable
from service.errors import DeviceFull
from service.store import TableStore
from tests.backends.contract import ROWS, BackendContract, files_of, ids_of
from tests.world import publish

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not usable(CUDA, 0), reason="there is no CUDA device, or onnxruntime-gpu is not installed"),
]

ON_DEVICE = Fetching("onnx", providers=(CUDA,))


class TestCuda(BackendContract):
    fetching: ClassVar = ON_DEVICE

    def test_rows_are_in_the_devices_memory_and_leave_it(self, tmp_path: Path) -> None:
        rows = np.ones((1 << 18, 128), dtype=np.float32)
        open_rows(files_of(tmp_path, "float32", rows[:1]), ON_DEVICE).release()  # what it takes for itself is there
        files = files_of(tmp_path, "float32", rows)
        before = cuda_free(0)
        backend = open_rows(files, ON_DEVICE)
        beside = cuda_free(0)
        assert before is not None
        assert beside is not None
        assert before - beside >= rows.nbytes
        backend.release()
        after = cuda_free(0)
        assert after is not None
        assert after > beside


class TestCudaBeforeTheProcessor(BackendContract):
    fetching: ClassVar = Fetching("onnx", providers=(CUDA, "CPUExecutionProvider"))


def test_a_table_without_room_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    narrow = Fetching("onnx", providers=(CUDA,), device_bytes=ROWS.nbytes * 2 - 1)
    first = open_rows(files_of(tmp_path, "float32"), narrow)
    with pytest.raises(DeviceFull):
        open_rows(files_of(tmp_path, "float32"), narrow)
    assert first.gather(ids_of([3])).tobytes() == ROWS[3].tobytes()
    first.release()
    open_rows(files_of(tmp_path, "float32"), narrow).release()
    memory_of.cache_clear()


def test_a_server_on_a_device_answers_and_swaps(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    for version in (1, 2):
        publish(store, "words", ROWS * version, activate=version == 1)
    settings = {"ADMIN_TOKEN": "secret"}
    with (
        running(tmp_path, "--backend", "onnx", "--providers", CUDA, settings=settings) as server,
        httpx.Client(base_url=server.url, headers={"authorization": "Bearer secret"}) as client,
    ):
        for version in (1, 2):
            client.post("/v1/admin/tables/words/activate", json={"version": version}).raise_for_status()
            answer = client.post("/v1/tables/words/lookup", json={"ids": [1, 8]}).json()
            assert np.array_equal(np.array(answer["vectors"], dtype=np.float32), ROWS[[1, 8]] * version)
        refused = client.post("/v1/tables/words/lookup", json={"ids": [[1, 9], [-1, 0]]})
        assert refused.json()["errors"] == [{"index": [0, 1], "id": 9}, {"index": [1, 0], "id": -1}]


def test_the_gather_is_measured_against_the_devices_own_copying(tmp_path: Path) -> None:
    found = measure(tmp_path, megabytes=1000)
    sys.stdout.write(f"{found}\n")
    assert found.gathered > 0
