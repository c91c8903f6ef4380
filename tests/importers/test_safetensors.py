from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from service.importers import read
from service.importers.options import ImportOptions
from tests.importers.contract import ImporterContract, read_whole, refusal, small_pieces
from tests.importers.samples import safetensors_bytes
from tests.world import KERAS_ROWS

OTHER_ROWS = KERAS_ROWS[:3] * np.float32(2)
SEVERAL = {
    "user.embedding.weight": KERAS_ROWS,
    "item.embedding.weight": OTHER_ROWS,
    "item.bias": np.zeros(3, dtype=np.float16),
}


def file_of(folder: Path, data: bytes) -> Path:
    path = folder / "table"
    path.write_bytes(data)
    return path


class TestSafetensors(ImporterContract):
    format = "safetensors"
    has_tokens = False

    def write(self, path: Path, rows: NDArray[np.floating], _tokens: Sequence[str]) -> Path:
        path.write_bytes(save({"weight": np.ascontiguousarray(rows)}, {"made": "by the format's own library"}))
        return path

    def truncations(self, data: bytes) -> list[bytes]:
        return [data[:length] for length in range(len(data))]


@pytest.mark.parametrize("dtype", ["f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_every_numeric_dtype_becomes_float32(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(12).reshape(6, 2).astype(dtype)
    small_pieces(monkeypatch)
    path = file_of(tmp_path, save({"weight": array}))
    assert read_whole(path)[0].tobytes() == array.astype(np.float32).tobytes()
    assert read(path, ImportOptions())[1].source["dtype"] == array.dtype.name


def test_transpose_swaps_the_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 8)
    path = file_of(tmp_path, save({"weight": np.ascontiguousarray(KERAS_ROWS.T)}))
    assert read_whole(path, ImportOptions(transpose=True))[0].tobytes() == KERAS_ROWS.tobytes()


def test_a_table_of_several_blocks_is_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((40_000, 64), dtype=np.float32)  # 10 MB; a block has 8 MiB
    assert read_whole(file_of(tmp_path, save({"weight": rows})))[0].tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    ("tensor", "rows"),
    [("user.embedding.weight", KERAS_ROWS), ("item.embedding.weight", OTHER_ROWS), ("user", KERAS_ROWS)],
)
def test_tensor_chooses_by_full_name_or_an_unambiguous_part(tmp_path: Path, tensor: str, rows: NDArray[Any]) -> None:
    path = file_of(tmp_path, save(SEVERAL))
    assert read_whole(path, ImportOptions(tensor=tensor))[0].tobytes() == rows.tobytes()
    assert tensor in str(read(path, ImportOptions(tensor=tensor))[1].source["tensor"])


@pytest.mark.parametrize("tensor", [None, "weight"], ids=["no name", "ambiguous part"])
def test_what_fits_is_listed_with_name_shape_and_dtype(tmp_path: Path, tensor: str | None) -> None:
    reason = refusal(file_of(tmp_path, save(SEVERAL)), ImportOptions(tensor=tensor)).reason
    assert "2 arrays" in reason
    assert sorted(reason.splitlines()[1:]) == [
        "  item.embedding.weight  3 x 2  float32",
        "  user.embedding.weight  7 x 2  float32",
    ]


def test_a_name_that_fits_nothing_lists_everything(tmp_path: Path) -> None:
    reason = refusal(file_of(tmp_path, save(SEVERAL)), ImportOptions(tensor="decoder")).reason
    assert sorted(line.split()[0] for line in reason.splitlines()[1:]) == sorted(SEVERAL)


def described(dtype: str, shape: Sequence[int], size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 8), ("F8_E4M3", 4), ("BOOL", 4)])
def test_a_dtype_that_is_not_read_is_called_by_its_name(tmp_path: Path, dtype: str, size: int) -> None:
    data = safetensors_bytes({"weight": described(dtype, (2, 2), size)}, bytes(size))
    reason = refusal(file_of(tmp_path, data)).reason
    assert "'weight'" in reason
    assert dtype.lower()[:4] in reason.lower()


REFUSED = {
    "no tensor": (save({}), "no array"),
    "one axis": (save({"bias": KERAS_ROWS[0]}), "no array with two axes"),
    "no rows": (save({"weight": KERAS_ROWS[:0]}), "empty"),
    "bytes behind": (save({"weight": KERAS_ROWS}) + b"\0", "cannot be read"),
    "rows that are not there": (safetensors_bytes({"w": described("F32", (8, 2), 64)}, bytes(56)), "cannot be read"),
    "a shape that does not fit": (safetensors_bytes({"w": described("F32", (8, 2), 56)}, bytes(56)), "cannot be read"),
    "a shape beyond 64 bits": (safetensors_bytes({"w": described("F32", (2**70, 2), 56)}, bytes(56)), "cannot be read"),
    "an unknown dtype": (safetensors_bytes({"w": described("F33", (7, 2), 56)}, bytes(56)), "cannot be read"),
    "a header that is not JSON": (safetensors_bytes(b"{not JSON at all", b""), "cannot be read"),
    "a header that is a list": (safetensors_bytes(b"[1]", b""), "cannot be read"),
    "a header that is too long": (b"\xff" * 7 + b"\0{}", "cannot be read"),
}


@pytest.mark.parametrize(("data", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_table_is_refused(tmp_path: Path, data: bytes, named: str) -> None:
    assert named in refusal(file_of(tmp_path, data), name="safetensors").reason
