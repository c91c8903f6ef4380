import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.errors import ImportFormatError
from service.importers import read
from service.importers.options import ImportOptions
from service.types import RowArray
from tests.importers.contract import ImporterContract, read_whole, refusal, small_pieces
from tests.world import KERAS_ROWS

Array: TypeAlias = NDArray[Any] | np.generic
DATA = Path(__file__).parent.parent / "data" / "onnx"
ROWS, DIM = KERAS_ROWS.shape
BYTES = np.arange(ROWS * DIM, dtype=np.int8).reshape(ROWS, DIM) - np.int8(7)
SCALE = np.float32(0.0371)
ROW_SCALES = np.linspace(0.01, 0.3, ROWS, dtype=np.float32)
COLUMN_SCALES = np.linspace(0.02, 0.07, DIM, dtype=np.float32)


def node(
    kind: str,
    inputs: Sequence[str],
    output: str,
    domain: str | None = None,
    **attributes: int | TensorProto | onnx.GraphProto,
) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], None, None, domain, None, **attributes)


def model_of(
    nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, Array] | Sequence[TensorProto], output: int = 1
) -> onnx.ModelProto:
    """A model from ids to `rows`, whose dtype is `output`."""
    stored = (
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
        if isinstance(tensors, Mapping)
        else list(tensors)
    )
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [None])
    rows = helper.make_tensor_value_info("rows", output, None)
    graph = helper.make_graph(list(nodes), "g", [ids], [rows], stored)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def gather(table: str = "weight", output: str = "rows") -> onnx.NodeProto:
    return node("Gather", [table, "ids"], output)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def run(model: onnx.ModelProto, count: int = ROWS) -> NDArray[Any]:
    """What onnxruntime gives for all ids."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (rows,) = session.run(["rows"], {"ids": np.arange(count, dtype=np.int64)})
    return np.asarray(rows)


class TestOnnx(ImporterContract):
    format = "onnx"
    has_tokens = False

    def write(self, path: Path, rows: NDArray[np.floating], _tokens: Sequence[str]) -> Path:
        code = helper.np_dtype_to_tensor_dtype(rows.dtype)
        return write(path, model_of([gather()], {"weight": np.ascontiguousarray(rows)}, code))

    def truncations(self, data: bytes) -> list[bytes]:
        return [data[:length] for length in range(len(data) // 2)]  # later cuts may fall between two fields


@pytest.mark.parametrize("name", ["torch", "quantized", "external"])
def test_files_of_real_exporters_give_the_rows_of_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.load(DATA / f"{name}.npy")
    for _ in range(2):
        assert read_whole(DATA / f"{name}.onnx")[0].tobytes() == expected.tobytes()
        small_pieces(monkeypatch, 32)


CONSTANT = node("Constant", [], "table", value=numpy_helper.from_array(KERAS_ROWS, "inner"))
MODELS: dict[str, onnx.ModelProto] = {
    "initializer": model_of([gather()], {"weight": KERAS_ROWS}),
    "float16": model_of([gather()], {"weight": KERAS_ROWS.astype(np.float16)}, TensorProto.FLOAT16),
    "constant": model_of([CONSTANT, gather("table")], {}),
    "identity": model_of([node("Identity", ["weight"], "table"), gather("table")], {"weight": KERAS_ROWS}),
    "cast of float16": model_of(
        [node("Cast", ["weight"], "table", to=1), gather("table")], {"weight": KERAS_ROWS.astype(np.float16)}
    ),
    "cast of int8, times a scale": model_of(
        [node("Cast", ["weight"], "cast", to=1), node("Mul", ["cast", "scale"], "table"), gather("table")],
        {"weight": BYTES, "scale": SCALE},
    ),
    "a scale for each row, first": model_of(
        [node("Cast", ["weight"], "cast", to=1), node("Mul", ["scale", "cast"], "table"), gather("table")],
        {"weight": BYTES, "scale": ROW_SCALES[:, None]},
    ),
    "a scale for each column": model_of(
        [node("Mul", ["weight", "scale"], "table"), gather("table")], {"weight": KERAS_ROWS, "scale": COLUMN_SCALES}
    ),
    "divided by a scale of the table's shape": model_of(
        [node("Div", ["weight", "scale"], "table"), gather("table")],
        {"weight": KERAS_ROWS, "scale": KERAS_ROWS + np.float32(2)},
    ),
    "dequantised": model_of(
        [node("DequantizeLinear", ["weight", "scale", "zero"], "table"), gather("table")],
        {"weight": BYTES, "scale": SCALE, "zero": np.int8(-3)},
    ),
    "dequantised by row": model_of(
        [node("DequantizeLinear", ["weight", "scale", "zero"], "table", axis=0), gather("table")],
        {"weight": BYTES, "scale": ROW_SCALES, "zero": np.arange(ROWS, dtype=np.int8)},
    ),
    "dequantised by column": model_of(
        [node("DequantizeLinear", ["weight", "scale"], "table"), gather("table")],
        {"weight": BYTES, "scale": COLUMN_SCALES},
    ),
    "dequantised behind the Gather": model_of(
        [gather(output="bytes"), node("DequantizeLinear", ["bytes", "scale", "zero"], "rows")],
        {"weight": BYTES.view(np.uint8), "scale": SCALE, "zero": np.uint8(128)},
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_rows_are_those_of_onnxruntime_bit_for_bit(
    tmp_path: Path, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m", model)
    expected = run(model).astype(np.float32)
    for _ in range(2):
        assert read_whole(path)[0].tobytes() == expected.tobytes()
        small_pieces(monkeypatch, 16)
    assert read_whole(path, ImportOptions(rows=3))[0].tobytes() == expected[:3].tobytes()


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    halves = (KERAS_ROWS.view(np.uint32) >> 16).astype("<u2")
    tensor = helper.make_tensor("weight", TensorProto.BFLOAT16, KERAS_ROWS.shape, halves.tobytes(), raw=True)
    path = write(tmp_path / "m", model_of([gather()], [tensor], TensorProto.BFLOAT16))
    assert read_whole(path)[0].tobytes() == (halves.astype(np.uint32) << 16).tobytes()
    assert read(path, ImportOptions())[1].source["dtype"] == "bfloat16"


@pytest.mark.parametrize("code", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_numbers_in_typed_fields_are_read(tmp_path: Path, code: int) -> None:
    values = [1.0, -0.5, 2.0, 0.25]
    tensor = helper.make_tensor("weight", code, [2, 2], values)
    assert not tensor.HasField("raw_data")
    rows, _ = read_whole(write(tmp_path / "m", model_of([gather()], [tensor], code)))
    assert rows.ravel().tolist() == values


# Which table

OTHER: RowArray = KERAS_ROWS[:3] * np.float32(2)
TWO = model_of([gather("word"), gather("position", "other")], {"word": KERAS_ROWS, "position": OTHER, "rest": OTHER})


def test_several_tables_are_listed_to_choose_from(tmp_path: Path) -> None:
    path = write(tmp_path / "m", TWO)
    reason = refusal(path).reason
    assert "choose one with --tensor\n  word  7 x 2  float32\n  position  3 x 2  float32" in reason
    assert read_whole(path, ImportOptions(tensor="pos"))[0].tobytes() == OTHER.tobytes()


def test_a_tensor_that_is_not_looked_up_can_be_named(tmp_path: Path) -> None:
    assert read_whole(write(tmp_path / "m", TWO), ImportOptions(tensor="rest"))[0].tobytes() == OTHER.tobytes()


def test_a_table_that_two_nodes_look_up_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "m", model_of([gather(), gather(output="again")], {"weight": KERAS_ROWS}))
    assert read_whole(path)[0].tobytes() == KERAS_ROWS.tobytes()


def test_a_gather_of_what_the_model_computes_is_none(tmp_path: Path) -> None:
    nodes = [node("Shape", ["ids"], "shape"), node("Gather", ["shape", "zero"], "n"), gather()]
    path = write(tmp_path / "m", model_of(nodes, {"weight": KERAS_ROWS, "zero": np.int64(0)}))
    assert read_whole(path)[0].tobytes() == KERAS_ROWS.tobytes()


def test_the_word_table_of_a_fused_node_is_found(tmp_path: Path) -> None:
    names = ["ids", "segments", "word", "position", "segment", "gamma", "beta"]
    fused = node("EmbedLayerNormalization", names, "rows", domain="com.microsoft")
    path = write(tmp_path / "m", model_of([fused], {"word": KERAS_ROWS, "position": OTHER}))
    assert read_whole(path)[0].tobytes() == KERAS_ROWS.tobytes()


def inner(nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "branch", [], [helper.make_tensor_value_info(output, 1, None)])


WORDS: RowArray = KERAS_ROWS * np.float32(3)
INT4 = helper.make_tensor("word", TensorProto.INT4, WORDS.shape, [1] * WORDS.size)
BLOCKS = node("DequantizeLinear", ["word", "scales"], "table", axis=1, block_size=1)
SCALED = [gather("word", "a"), node("Cast", ["a"], "b", to=1), gather("scales", "c")]
NOT_READ: dict[str, tuple[Sequence[onnx.NodeProto], Mapping[str, Array | TensorProto], str]] = {
    "transposed": (
        [node("Transpose", ["word"], "table"), gather("table", "a")],
        {"word": WORDS.T.copy()},
        "made by Transpose",
    ),
    "reshaped": (
        [node("Reshape", ["word", "shape"], "table"), gather("table", "a")],
        {"word": WORDS.ravel(), "shape": np.array([ROWS, DIM])},
        "made by Reshape",
    ),
    "reshaped to what a Shape says": (
        [node("Shape", ["position"], "s"), node("Expand", ["word", "s"], "table"), gather("table", "a")],
        {"word": WORDS},
        "made by Expand",
    ),
    "a sum": (
        [node("Add", ["word", "word"], "table"), gather("table", "a")],
        {"word": WORDS},
        "made by Add",
    ),
    "dequantised in blocks": (
        [BLOCKS, gather("table", "a")],
        {"word": BYTES, "scales": np.ones((ROWS, DIM), dtype=np.float32)},
        "this kind of DequantizeLinear",
    ),
    "4 bits": (
        [node("DequantizeLinear", ["word", "scale"], "table"), gather("table", "a")],
        {"word": INT4, "scale": SCALE},
        "this kind of DequantizeLinear",
    ),
    "4 bits alone": ([gather("word", "a")], {"word": INT4}, "the type 22"),
    "along the other axis": (
        [node("Gather", ["word", "ids"], "a", axis=1)],
        {"word": WORDS.T.copy()},
        "the Gather is along its axis 1",
    ),
    "three axes": ([gather("word", "a")], {"word": WORDS[None]}, "a table has two axes"),
    "a missing file": (
        [gather("word", "a")],
        {"word": TensorProto(name="word", data_type=1, dims=WORDS.shape, data_location=TensorProto.EXTERNAL)},
        "no location",
    ),
    "GatherND": ([node("GatherND", ["word", "ids"], "a")], {"word": WORDS}, "looked up by GatherND"),
    "GatherBlockQuantized": (
        [node("GatherBlockQuantized", ["word", "ids", "scales"], "a", domain="com.microsoft")],
        {"word": BYTES, "scales": ROW_SCALES[:, None]},
        "looked up by GatherBlockQuantized",
    ),
    "in a branch": (
        [node("If", ["yes"], "a", then_branch=inner([node("GatherND", ["word", "ids"], "b")], "b"))],
        {"word": WORDS, "yes": np.bool_(True)},
        "looked up by GatherND",
    ),
    "a scale for each row behind the Gather": (
        [*SCALED, node("Mul", ["b", "c"], "d")],
        {"word": BYTES, "scales": ROW_SCALES[:, None]},
        "scaled by what is gathered from 'scales'",
    ),
    "floats with a list of scales behind the Gather": (
        [
            gather("word", "a"),
            gather("scales", "c"),
            node("Unsqueeze", ["c", "last"], "e"),
            node("Mul", ["e", "a"], "d"),
        ],
        {"word": WORDS, "scales": ROW_SCALES, "last": np.array([-1])},
        "scaled by what is gathered from 'scales'",
    ),
    "a DequantizeLinear with gathered scales": (
        [gather("word", "a"), gather("scales", "c"), node("DequantizeLinear", ["a", "c"], "d", axis=0)],
        {"word": BYTES, "scales": ROW_SCALES[:, None]},
        "scaled by what is gathered from 'scales'",
    ),
    "bytes that a Cast makes numbers": (
        [gather("word", "a"), node("Cast", ["a"], "b", to=1)],
        {"word": BYTES},
        "no DequantizeLinear follows",
    ),
}


def tensors_of(tensors: Mapping[str, Array | TensorProto]) -> list[TensorProto]:
    return [
        array if isinstance(array, TensorProto) else numpy_helper.from_array(np.asarray(array), name)
        for name, array in tensors.items()
    ]


@pytest.mark.parametrize(("nodes", "tensors", "why"), NOT_READ.values(), ids=NOT_READ.keys())
def test_a_table_that_is_looked_up_and_not_read_is_never_passed_over(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, Array | TensorProto], why: str
) -> None:
    alone = write(tmp_path / "alone", model_of(nodes, tensors_of(tensors)))
    assert why in refusal(alone, name="onnx").reason
    model = model_of([*nodes, gather("position")], tensors_of({**tensors, "position": OTHER}))
    path = write(tmp_path / "m", model)
    first, read_ones, heading, unread = refusal(path, name="onnx").reason.splitlines()
    assert first.endswith("choose one with --tensor")
    assert read_ones == "  position  3 x 2  float32"
    assert heading == "not read, though it is looked up:"
    assert unread.startswith("  word  ")
    assert why in unread
    assert read_whole(path, ImportOptions(tensor="position"))[0].tobytes() == OTHER.tobytes()


def test_a_table_that_a_function_of_the_model_looks_up_is_not_passed_over(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    inside = helper.make_function("own", "Inside", ["i", "w"], ["r"], [node("Gather", ["w", "i"], "r")], opset)
    outside = node("Inside", ["i", "w"], "r", domain="own")
    outer = helper.make_function("own", "Embedding", ["w", "i"], ["r"], [outside], opset)
    call = node("Embedding", ["word", "ids"], "a", domain="own")
    model = model_of([call, gather("position")], {"word": WORDS, "position": OTHER})
    model.functions.extend([outer, inside])
    path = write(tmp_path / "m", model)
    assert "  word  tensor 'word': it is looked up by Embedding" in refusal(path, name="onnx").reason
    assert read_whole(path, ImportOptions(tensor="position"))[0].tobytes() == OTHER.tobytes()


def test_a_part_of_a_name_that_also_fits_what_is_not_read_chooses_nothing(tmp_path: Path) -> None:
    nodes = [node("Neg", ["a.word"], "table"), gather("table", "a"), gather("b.word")]
    path = write(tmp_path / "m", model_of(nodes, {"a.word": WORDS, "b.word": OTHER}))
    assert "'word' fits several tables" in refusal(path, ImportOptions(tensor="word")).reason
    assert read_whole(path, ImportOptions(tensor="b.word"))[0].tobytes() == OTHER.tobytes()
    assert read_whole(path, ImportOptions(tensor="a.word"))[0].tobytes() == WORDS.tobytes()


def test_bytes_that_are_named_are_not_taken_without_the_scales_they_are_looked_up_with(tmp_path: Path) -> None:
    nodes = [*SCALED, node("Mul", ["b", "c"], "rows")]
    path = write(tmp_path / "m", model_of(nodes, {"word": BYTES, "scales": ROW_SCALES[:, None]}))
    assert "scaled by" in refusal(path, ImportOptions(tensor="word")).reason


NO_TABLES: dict[str, tuple[Sequence[onnx.NodeProto], Mapping[str, Array]]] = {
    "positions": ([gather("ints", "a")], {"ints": np.arange(6)[None]}),
    "turned positions": (
        [node("Unsqueeze", ["ints", "first"], "i"), gather("i", "a")],
        {"ints": np.arange(6)[None], "first": np.array([0])},
    ),
    "a boolean mask": ([gather("mask", "a")], {"mask": np.ones((3, 3), dtype=np.bool_)}),
    "the shape of a table": (
        [node("Shape", ["weight"], "s"), node("Neg", ["s"], "t"), gather("t", "a")],
        {},
    ),
    "a list of numbers": ([node("Sqrt", ["list"], "s"), gather("s", "a")], {"list": ROW_SCALES}),
    "a stored list": ([gather("list", "a")], {"list": ROW_SCALES}),
    "activations": (
        [gather(output="x"), node("Gather", ["x", "zero"], "a", axis=1), node("GatherND", ["x", "ids"], "b")],
        {"zero": np.int64(0)},
    ),
    "a single layer of a stack": (
        [node("Gather", ["stack", "zero"], "a")],
        {"stack": np.ones((2, 2, 2), dtype=np.float32), "zero": np.int64(0)},
    ),
}


@pytest.mark.parametrize(("nodes", "tensors"), NO_TABLES.values(), ids=NO_TABLES.keys())
def test_what_is_gathered_and_is_no_table_needs_no_choice(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, Array]
) -> None:
    path = write(tmp_path / "m", model_of([*nodes, gather()], {"weight": KERAS_ROWS, **tensors}))
    assert read_whole(path, name="onnx")[0].tobytes() == KERAS_ROWS.tobytes()


def test_a_table_of_one_column_is_one_where_it_scales_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "m", model_of([gather()], {"weight": ROW_SCALES[:, None]}))
    assert read_whole(path)[0].tobytes() == ROW_SCALES.tobytes()


def test_a_table_that_a_branch_looks_up_is_a_choice(tmp_path: Path) -> None:
    then, otherwise = inner([gather("word", "b")], "b"), inner([gather("word", "c")], "c")
    nodes = [node("If", ["yes"], "a", then_branch=then, else_branch=otherwise), gather("position")]
    tensors: dict[str, Array] = {"word": WORDS, "yes": np.bool_(True), "position": OTHER}
    path = write(tmp_path / "m", model_of(nodes, tensors))
    assert "  position  3 x 2  float32\n  word  7 x 2  float32" in refusal(path).reason
    assert read_whole(path, ImportOptions(tensor="word"))[0].tobytes() == WORDS.tobytes()


def test_a_node_that_gives_nothing_is_passed_over(tmp_path: Path) -> None:
    model = model_of([gather(), gather("other", "b")], {"weight": KERAS_ROWS, "other": OTHER})
    del model.graph.node[1].output[:]
    assert read_whole(write(tmp_path / "m", model))[0].tobytes() == KERAS_ROWS.tobytes()


def scaled_twice(*others: str) -> onnx.ModelProto:
    products = [node("Mul", ["W", f"scale {name}"], name) for name in others]
    gathers = [gather(name, f"rows of {name}") for name in others]
    scales = {f"scale {name}": np.float32(at + 2) for at, name in enumerate(others)}
    return model_of([*products, gather("W"), *gathers], {"W": KERAS_ROWS, **scales})


def test_tables_of_one_stored_tensor_have_names_to_choose_by(tmp_path: Path) -> None:
    path = write(tmp_path / "m", scaled_twice("M", "N"))
    assert "\n  W  7 x 2  float32\n  W:M  7 x 2  float32\n  W:N  7 x 2  float32" in refusal(path).reason
    for factor, name in enumerate(["W", "W:M", "W:N"], 1):
        rows, _ = read_whole(path, ImportOptions(tensor=name))
        assert rows.tobytes() == (KERAS_ROWS * np.float32(factor)).tobytes()
    assert read(path, ImportOptions(tensor="W:M"))[1].source["tensor"] == "W:M"


def test_tables_of_one_name_in_two_branches_can_be_told_apart(tmp_path: Path) -> None:
    branches = {}
    for factor, branch in enumerate(["then_branch", "else_branch"], 1):
        graph = inner([gather("W", f"of {branch}")], f"of {branch}")
        graph.initializer.append(numpy_helper.from_array(KERAS_ROWS * np.float32(factor), "W"))
        branches[branch] = graph
    path = write(tmp_path / "m", model_of([node("If", ["yes"], "rows", **branches)], {"yes": np.bool_(True)}))
    for factor, branch in enumerate(["then_branch", "else_branch"], 1):
        rows, _ = read_whole(path, ImportOptions(tensor=f"W:of {branch}"))
        assert rows.tobytes() == (KERAS_ROWS * np.float32(factor)).tobytes()


# External data


def external(folder: Path, **entries: str) -> Path:
    (folder / "rows.data").write_bytes(b"\xff" * 8 + KERAS_ROWS.tobytes())
    tensor = TensorProto(name="weight", data_type=1, dims=KERAS_ROWS.shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "rows.data", "offset": "8", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return write(folder / "m", model_of([gather()], [tensor]))


@pytest.mark.parametrize("size", [8, 24, 1 << 20])
def test_external_data_is_read_in_pieces(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, size)
    assert read_whole(external(tmp_path))[0].tobytes() == KERAS_ROWS.tobytes()


WRONG_PLACES: dict[str, tuple[dict[str, str], str]] = {
    "above": ({"location": "../rows.data"}, "outside the model's folder"),
    "absolute": ({"location": "/etc/passwd"}, "outside the model's folder"),
    "above by a detour": ({"location": "link/../../rows.data"}, "outside the model's folder"),
    "above a link": ({"location": "link/../rows.txt"}, "there is no file"),
    "not there": ({"location": "none"}, "there is no file 'none'"),
    "the folder": ({"location": "."}, "there is no file '.'"),
    "nowhere": ({"location": ""}, "no location"),
    "a long name": ({"location": "x" * 5000}, "outside|no file"),
    "behind the end": ({"offset": "16"}, "56 bytes"),
    "far behind": ({"offset": "9" * 18}, "56 bytes"),
    "too far": ({"offset": "9" * 40}, "the offset"),
    "a negative offset": ({"offset": "-8"}, "the offset"),
    "another length": ({"length": "48"}, "needs 56 bytes"),
    "no length": ({"length": "x"}, "the length"),
}


@pytest.mark.parametrize(("entries", "named"), WRONG_PLACES.values(), ids=WRONG_PLACES.keys())
def test_external_data_elsewhere_is_refused(tmp_path: Path, entries: dict[str, str], named: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "rows.data").write_bytes(bytes(100))
    (tmp_path / "rows.txt").write_bytes(bytes(100))
    (tmp_path / "other").mkdir()
    (folder / "link").symlink_to(tmp_path / "other")
    with pytest.raises(ImportFormatError, match=named):
        read_whole(external(folder, **entries))


def test_external_data_may_be_linked_from_the_folder_as_in_the_cache_of_hugging_face(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    external(blobs)  # names rows.data
    (snapshot / "m.onnx").symlink_to("../blobs/m")
    (blobs / "rows.data").rename(blobs / "a2")
    (snapshot / "rows.data").symlink_to("../blobs/a2")
    assert read_whole(snapshot / "m.onnx")[0].tobytes() == KERAS_ROWS.tobytes()


def test_external_data_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    _, table = read(external(tmp_path), ImportOptions())
    (tmp_path / "rows.data").write_bytes(b"")
    with pytest.raises(ImportFormatError, match="ends too early"):
        list(table.blocks)


# What is refused


def raw(shape: Sequence[int], data: bytes, code: int = TensorProto.FLOAT) -> list[TensorProto]:
    return [TensorProto(name="weight", data_type=code, dims=shape, raw_data=data)]


TWICE = [node("Mul", [f"t{i}", f"t{i}"], f"t{i + 1}") for i in range(40)]
WRONG: dict[str, tuple[onnx.ModelProto, str]] = {
    "no graph": (onnx.ModelProto(ir_version=10, producer_name="x"), "no graph"),
    "no node": (model_of([], {}), "no Gather from a stored table"),
    "no Gather": (model_of([node("Identity", ["weight"], "rows")], {"weight": KERAS_ROWS}), "--tensor"),
    "the other axis": (model_of([node("Gather", ["weight", "ids"], "rows", axis=1)], {"weight": KERAS_ROWS}), "Gather"),
    "bytes missing": (model_of([gather()], raw((7, 2), bytes(55))), "55 bytes"),
    "a negative axis": (model_of([gather()], raw((-7, -2), bytes(56))), "shape"),
    "huge": (model_of([gather()], raw((2**62, 2**62), bytes(56))), "56 bytes"),
    "no rows": (model_of([gather()], raw((0, 2), b"")), "empty"),
    "no numbers": (model_of([gather()], [TensorProto(name="weight", data_type=1, dims=[7, 2])]), "0 numbers"),
    "texts": (model_of([gather()], raw((7, 2), b"", TensorProto.STRING)), "the type 8"),
    "4 bits": (model_of([gather()], raw((7, 2), b"", TensorProto.INT4)), "the type 22"),
    "an operator that is not followed": (
        model_of([node("Relu", ["weight"], "table"), gather("table")], {"weight": KERAS_ROWS}),
        "made by Relu",
    ),
    "divided by the table": (
        model_of([node("Div", ["scale", "weight"], "table"), gather("table")], {"weight": KERAS_ROWS, "scale": SCALE}),
        "Div by the table",
    ),
    "a scale that does not fit": (
        model_of(
            [node("Mul", ["weight", "scale"], "table"), gather("table")],
            {"weight": KERAS_ROWS, "scale": np.ones(3, dtype=np.float32)},
        ),
        "does not go with",
    ),
    "dequantised in blocks": (
        model_of(
            [node("DequantizeLinear", ["weight", "scale"], "table", axis=1, block_size=1), gather("table")],
            {"weight": BYTES, "scale": np.ones((7, 2), dtype=np.float32)},
        ),
        "this kind of DequantizeLinear",
    ),
    "a circle": (model_of([node("Identity", ["table"], "table"), gather("table")], {}), "no Gather|not stored"),
    "a tower of products": (model_of([*TWICE, gather("t40")], {"t0": KERAS_ROWS}), "not stored"),
}


@pytest.mark.parametrize(("model", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_table_is_refused(tmp_path: Path, model: onnx.ModelProto, named: str) -> None:
    with pytest.raises(ImportFormatError, match=named):
        read_whole(write(tmp_path / "m", model), name="onnx")


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    source = np.random.default_rng(1)
    path = tmp_path / "m"
    for data in [(DATA / "quantized.onnx").read_bytes(), (DATA / "torch.onnx").read_bytes()] * 300:
        bad = bytearray(data)
        for place in source.integers(0, len(bad), size=3):
            bad[place] = source.integers(0, 256)
        path.write_bytes(bad)
        try:
            read_whole(path, name="onnx")
        except ImportFormatError:
            continue


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    path = write(tmp_path / "m", TWO)
    assert "pip install 'embedding-table-service[onnx]'" in refusal(path, name="onnx").reason
