"""The graphs as the onnx package reads them, and as its reference implementation evaluates them."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from service import npyfile
from service.backends.combining import combined
from service.onnxgraph import OPSET, Part, StoredTable, lookup_model, pooling_model, probe_model
from service.reduction import REDUCTIONS
from service.types import Combination, RowArray, RowDtype

ROWS: RowArray = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
DTYPES: tuple[RowDtype, ...] = get_args(RowDtype)
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def stored(folder: Path, dtype: RowDtype) -> StoredTable:
    """Writes the files that a graph refers to."""
    written = REDUCTIONS[dtype](ROWS)
    (folder / "vectors.npy").write_bytes(npyfile.dump(written.values))
    part = Part("vectors.npy", 128)
    if written.scales is None:
        return StoredTable(7, 3, dtype, part)
    (folder / "scales.npy").write_bytes(npyfile.dump(written.scales))
    return StoredTable(7, 3, dtype, part, Part("scales.npy", 128))


def evaluated(folder: Path, model: bytes, ids: Any) -> Any:  # noqa: ANN401
    path = folder / "model.onnx"
    path.write_bytes(model)
    (output,) = ReferenceEvaluator(onnx.load(path)).run(None, {"ids": np.array(ids)})
    return output


def models(table: StoredTable) -> dict[str, bytes]:
    return {
        "lookup": lookup_model(table),
        "sum": pooling_model(table, "sum"),
        "max": pooling_model(table, "max"),
        "probe": probe_model(),
    }


@every_dtype
@pytest.mark.parametrize("kind", ["lookup", "sum", "max", "probe"])
def test_a_model_is_one(tmp_path: Path, dtype: RowDtype, kind: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models(stored(tmp_path, dtype))[kind])
    onnx.checker.check_model(path, full_check=True)


@every_dtype
@pytest.mark.parametrize("kind", ["lookup", "sum", "max", "probe"])
def test_a_model_is_written_as_the_package_would(tmp_path: Path, dtype: RowDtype, kind: str) -> None:
    """So it has no field that the package does not know, and none twice."""
    model = models(stored(tmp_path, dtype))[kind]
    assert onnx.load_from_string(model).SerializeToString(deterministic=True) == model


def test_a_model_refers_to_the_rows_and_does_not_hold_them(tmp_path: Path) -> None:
    table = StoredTable(10**10, 10**3, "int8", Part("rows", 128), Part("scales", 256))
    model = onnx.load_from_string(lookup_model(table))
    rows, scales = model.graph.initializer
    assert len(lookup_model(table)) < 1000
    assert [list(rows.dims), list(scales.dims)] == [[10**10, 10**3], [10**10, 1]]
    assert {entry.key: entry.value for entry in rows.external_data} == {
        "location": "rows",
        "offset": "128",
        "length": str(10**13),
    }
    assert {entry.key: entry.value for entry in scales.external_data} == {
        "location": "scales",
        "offset": "256",
        "length": str(4 * 10**10),
    }
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, 8)


@every_dtype
@pytest.mark.parametrize("ids", [[5], [6, 0, 6], list(range(7))], ids=str)
def test_a_lookup_gives_the_rows_of_the_ids(tmp_path: Path, dtype: RowDtype, ids: list[int]) -> None:
    found = evaluated(tmp_path, lookup_model(stored(tmp_path, dtype)), ids)
    wanted = REDUCTIONS[dtype](ROWS).widened()[np.array(ids)]
    assert (found.dtype, found.shape) == (np.float32, wanted.shape)
    assert found.tobytes() == wanted.tobytes()


@every_dtype
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_pooling_gives_a_vector_for_each_sequence(tmp_path: Path, dtype: RowDtype, combination: Combination) -> None:
    ids = [[1, 2, 6], [0, 0, 5]]
    found = evaluated(tmp_path, pooling_model(stored(tmp_path, dtype), combination), ids)
    wanted = combined(REDUCTIONS[dtype](ROWS).widened()[np.ravel(ids)], 3, combination)
    assert (found.dtype, found.shape) == (np.float64, (2, 3))
    assert np.allclose(found, wanted, rtol=1e-12)


def test_what_is_said_of_a_table_is_in_the_metadata(tmp_path: Path) -> None:
    said = {"table": "w\u00f6rter", "padding_id": "0"}
    model = onnx.load_from_string(lookup_model(stored(tmp_path, "float32"), said))
    assert {entry.key: entry.value for entry in model.metadata_props} == said
