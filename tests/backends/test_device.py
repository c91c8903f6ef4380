"""The memory of devices: what it says of a version that has no room, and that the version before serves on."""

import gc
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from load_tests.running import until
from service import npyfile, onnxgraph
from service.backends import Fetching, RowFiles, device, open_rows, runtime
from service.backends.device import SCRATCH, DeviceMemory
from service.errors import Conflict, DeviceFull
from service.store import TableStore
from tests.api.test_admin import administrating
from tests.world import publish

KILOBYTES = np.ones((10, 25), dtype=np.float32)
"""A table of 1,000 bytes."""


def test_tables_are_counted_up_to_the_limit_and_given_back() -> None:
    memory = DeviceMemory("device 1 of X", 1000, lambda: None)
    memory.take(600)
    with pytest.raises(DeviceFull) as refused:
        memory.take(401)
    assert (refused.value.needed, refused.value.available) == (401, 400)
    assert str(refused.value) == (
        "device 1 of X has no room for it: 401 bytes are needed, EMBEDDING_DEVICE_MEMORY_BYTES leaves 400"
    )
    memory.take(400)
    memory.give_back(600)
    memory.take(600)


def test_what_is_free_has_to_hold_the_table_and_what_it_is_gathered_with() -> None:
    free = [1000 + SCRATCH]
    memory = DeviceMemory("device 0 of X", None, lambda: free[0])
    memory.take(1000)
    with pytest.raises(DeviceFull) as refused:
        memory.take(1001)
    assert (refused.value.needed, refused.value.available) == (1001 + SCRATCH, 1000 + SCRATCH)
    free[0] = 2000 + SCRATCH
    memory.take(1001)


def test_all_tables_of_a_process_have_one_account() -> None:
    fetching = Fetching("onnx", providers=("CUDAExecutionProvider",), device_bytes=5)
    assert device.memory_of(fetching) is device.memory_of(Fetching("onnx", 1, ("CUDAExecutionProvider",), 0, 5))
    assert device.memory_of(fetching) is not device.memory_of(Fetching("onnx", 1, ("CUDAExecutionProvider",), 1, 5))


def test_where_there_is_no_device_nothing_is_said_of_its_memory() -> None:
    if runtime.usable("CUDAExecutionProvider", 0):
        pytest.skip("there is a CUDA device")
    assert device.cuda_free(0) is None


@pytest.fixture
def administrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Of a service over version 1 of a table, with room for 2,500 bytes in a device. The processor stands in for it."""
    monkeypatch.setattr(runtime, "has_own_memory", lambda _: True)
    device.memory_of.cache_clear()
    publish(TableStore(tmp_path), "words", KILOBYTES)
    with administrating(tmp_path, "onnx", device_memory_bytes=2500) as client:
        yield client
    device.memory_of.cache_clear()


def served(client: httpx.Client) -> int:
    answer = client.post("/v1/tables/words/lookup", json={"ids": [1]})
    assert answer.status_code == 200
    return int(answer.json()["version"])


def activated(client: httpx.Client, version: int) -> httpx.Response:
    return client.post("/v1/admin/tables/words/activate", json={"version": version})


def test_a_version_without_room_is_not_put_in_force_and_the_one_before_serves_on(
    administrator: httpx.Client, tmp_path: Path
) -> None:
    publish(TableStore(tmp_path), "words", np.ones((16, 25), dtype=np.float32), activate=False)
    refused = activated(administrator, 2)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert refused.json()["reason"] == (
        "device 0 of CPUExecutionProvider has no room for it: "
        "1,600 bytes are needed, EMBEDDING_DEVICE_MEMORY_BYTES leaves 1,500"
    )
    assert served(administrator) == 1
    assert administrator.get("/health/ready").status_code == 200


def test_memory_of_versions_out_of_force_is_there_for_the_next(administrator: httpx.Client, tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    for version in range(2, 8):
        publish(store, "words", KILOBYTES * version, activate=False)

        def is_in_force(version: int = version) -> bool:
            gc.collect()
            return activated(administrator, version).status_code == 200

        until(is_in_force)  # the memory of the one before the last comes back when it is let go of
        assert served(administrator) == version


def test_memory_that_was_counted_for_a_version_that_cannot_be_opened_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "has_own_memory", lambda _: True)
    narrow = Fetching("onnx", device_bytes=1500)
    (tmp_path / "rows").write_bytes(npyfile.dump(KILOBYTES))
    with monkeypatch.context() as broken:
        real = onnxgraph.lookup_model
        broken.setattr(onnxgraph, "lookup_model", lambda table: real(table).replace(b"Gather", b"Gathem"))
        with pytest.raises(Conflict, match="ONNX Runtime cannot open it"):
            open_rows(RowFiles(tmp_path / "rows"), narrow)
    open_rows(RowFiles(tmp_path / "rows"), narrow).release()
