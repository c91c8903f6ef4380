"""Rows gathered by a CUDA device against how fast it copies its own memory: `python -m load_tests.bench.cuda`.

Needs onnxruntime-gpu and a device. Ids and vectors stay on the device, so that what is measured is the gather; beside
it the same with ids and vectors in the memory of the host, which is what a lookup takes.
"""

import argparse
import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from service import npyfile, onnxgraph
from service.backends import CPU, Fetching, RowFiles, open_rows
from service.backends.device import cuda_driver
from service.backends.onnx import OnnxRows
from service.backends.runtime import CUDA, check_providers, onnxruntime

DIM: Final = 128
IDS: Final = 1 << 18
_ROUNDS: Final = 20


@dataclass(frozen=True, slots=True)
class Throughput:
    """Gigabytes of rows in a second, each byte counted once."""

    gathered: float
    copied: float
    looked_up: float

    def __str__(self) -> str:
        return (
            f"{IDS:,} rows of {4 * DIM} bytes: gathered on the device {self.gathered:,.1f} GB/s, "
            f"{self.gathered / self.copied:.2f} of its copying ({self.copied:,.1f} GB/s); "
            f"from ids to vectors on the host {self.looked_up:,.2f} GB/s"
        )


def measure(folder: Path, megabytes: int, device_id: int = 0) -> Throughput:
    """Raises NoSuchProvider without a device."""
    check_providers([CUDA], device_id)
    rows = np.random.default_rng(0).standard_normal((megabytes * 1_000_000 // (4 * DIM), DIM), dtype=np.float32)
    path = folder / "vectors.npy"
    path.write_bytes(npyfile.dump(rows))
    ids = np.random.default_rng(1).integers(0, len(rows), IDS)
    backend = open_rows(RowFiles(path), Fetching("onnx", providers=(CUDA, CPU), device_id=device_id))
    assert isinstance(backend, OnnxRows)
    looked_up = _seconds(lambda: backend.gather(ids))
    backend.release()
    size = 4 * DIM * IDS
    gathered = _seconds(_on_device(path, rows.shape, ids, device_id))
    return Throughput(size / gathered / 1e9, size / _copying(size, device_id) / 1e9, size / looked_up / 1e9)


def _on_device(path: Path, shape: tuple[int, ...], ids: Any, device_id: int) -> Callable[[], object]:  # noqa: ANN401
    """One run of the graph between values that stay on the device."""
    ort = onnxruntime()
    table = onnxgraph.StoredTable(shape[0], shape[1], "float32", onnxgraph.Part(path.name, 128))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = ort.InferenceSession(
        onnxgraph.lookup_model(table), options, providers=[CUDA], provider_options=[{"device_id": str(device_id)}]
    )
    binding = session.io_binding()
    binding.bind_ortvalue_input(onnxgraph.IDS, ort.OrtValue.ortvalue_from_numpy(ids, "cuda", device_id))
    vectors = ort.OrtValue.ortvalue_from_shape_and_type((len(ids), shape[1]), np.float32, "cuda", device_id)
    binding.bind_ortvalue_output(onnxgraph.VECTORS, vectors)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _copying(size: int, device_id: int) -> float:
    """Seconds in which the device copies so many bytes from one place in its memory to another."""
    with cuda_driver(device_id) as driver:
        assert driver is not None
        with _allocated(driver, size) as source, _allocated(driver, size) as target:

            def copy() -> None:
                assert driver.cuMemcpyDtoD_v2(target, source, ctypes.c_size_t(size)) == 0
                assert driver.cuCtxSynchronize() == 0

            return _seconds(copy)


@contextmanager
def _allocated(driver: ctypes.CDLL, size: int) -> Iterator[ctypes.c_uint64]:
    address = ctypes.c_uint64()
    assert driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)) == 0
    try:
        yield address
    finally:
        driver.cuMemFree_v2(address)


def _seconds(work: Callable[[], object]) -> float:
    """The median of several times; the first, in which memory is allocated, does not count."""
    times = []
    for _ in range(_ROUNDS + 1):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return median(times[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=3000, help="of the table")
    parser.add_argument("--device-id", type=int, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(measure(Path(folder), given.mb, given.device_id))


if __name__ == "__main__":
    main()
