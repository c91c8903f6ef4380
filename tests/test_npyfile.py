import gc
import io
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service import npyfile
from tests.oracle import QUICK

AnyArray: TypeAlias = NDArray[Any]
ROWS = np.arange(12, dtype="<f4").reshape(4, 3)

ARRAYS: dict[str, AnyArray] = {
    "float32 rows": ROWS,
    "Fortran order": np.asfortranarray(ROWS),
    "big endian": ROWS.astype(">f4"),
    "a number": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype="<f4"),
    "empty last axis": np.zeros((3, 0), dtype="<i4"),
    "uint8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False]),
    "float16, four axes": np.zeros((1, 2, 1, 3), dtype="<f2"),
    "structured": np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
}
each_array = pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())


def saved(array: AnyArray) -> bytes:
    """The bytes that numpy itself saves."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def crafted(header: bytes, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An npy file with any text for a header."""
    return (
        npyfile.MAGIC + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(header)) + header + data
    )


def described(descr: str = "'<f4'", order: str = "False", shape: str = "(2,)") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "array.npy"
    path.write_bytes(data)
    return path


@each_array
def test_what_numpy_saves_is_parsed(array: AnyArray) -> None:
    parsed = npyfile.parse(saved(array))
    assert (parsed.shape, parsed.dtype) == (array.shape, array.dtype)
    assert parsed.tobytes() == array.tobytes()


@each_array
def test_what_numpy_saves_is_mapped(tmp_path: Path, array: AnyArray) -> None:
    _, mapped = npyfile.map_array(written(tmp_path, saved(array)))
    assert type(mapped) is np.ndarray
    assert (mapped.shape, mapped.dtype) == (array.shape, array.dtype)
    assert mapped.tobytes() == array.tobytes()


@each_array
def test_what_is_dumped_numpy_loads(array: AnyArray) -> None:
    loaded = np.load(io.BytesIO(npyfile.dump(array)), allow_pickle=False)
    assert (loaded.shape, loaded.dtype, loaded.tobytes()) == (array.shape, array.dtype, array.tobytes())


def test_the_order_of_a_fortran_array_is_kept() -> None:
    parsed = npyfile.parse(saved(np.asfortranarray(ROWS)))
    assert parsed.flags.f_contiguous
    assert parsed[3].tolist() == [9.0, 10.0, 11.0]


@pytest.mark.parametrize(
    "data",
    [saved(ROWS), memoryview(saved(ROWS)), memoryview(bytearray(saved(ROWS)))],
    ids=["bytes", "memoryview", "memoryview of writeable bytes"],
)
def test_a_parsed_array_is_a_read_only_view(data: bytes | memoryview) -> None:
    parsed = npyfile.parse(data)
    assert np.may_share_memory(parsed, np.frombuffer(data, dtype=np.uint8))
    assert not parsed.flags.writeable


def test_a_mapped_array_cannot_be_written_to(tmp_path: Path) -> None:
    _, rows = npyfile.map_rows(written(tmp_path, saved(ROWS)))
    assert not rows.flags.writeable
    with pytest.raises(ValueError, match=r"WRITEABLE"):
        rows.flags.writeable = True


def test_a_mapped_array_outlives_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, saved(ROWS))
    _, rows = npyfile.map_rows(path)
    path.unlink()
    assert rows.tobytes() == ROWS.tobytes()


@pytest.mark.parametrize("array", [ROWS, np.zeros((0, 3), dtype="<f4")], ids=["rows", "empty"])
def test_every_other_number_of_bytes_is_refused(tmp_path: Path, array: AnyArray) -> None:
    whole = saved(array)
    for data in [*(whole[:length] for length in range(len(whole))), whole + b"\0"]:
        with pytest.raises(ValueError):
            npyfile.parse(data)
        with pytest.raises(ValueError):
            npyfile.map_array(written(tmp_path, data))


def test_a_wrong_number_of_bytes_is_said_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="promises 48 bytes of data, there are 47"):
        npyfile.parse(saved(ROWS)[:-1])


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0\0\0", id="zero bytes"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"[1, 2]", id="a list"),
        pytest.param(b"{'descr': '<f4'}", id="keys left out"),
        pytest.param(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}", id="one key more"),
        pytest.param(b"{'descr': (", id="an open bracket"),
        pytest.param(b"'''", id="an open string"),
        pytest.param(b"{[]: 1}", id="a list as a key"),
        pytest.param(b"{1: 2, 'a': 3}", id="keys of two kinds"),
        pytest.param(b"(" * 3000, id="nested too deep"),
        pytest.param(b"-" * 5000 + b"1", id="a long chain of signs"),
        pytest.param(b"__import__('os').getpid()", id="code"),
        pytest.param(described(shape="(-2,)"), id="a negative axis"),
        pytest.param(described(shape="(-1, -2)"), id="two negative axes"),
        pytest.param(described(shape="2"), id="a number as the shape"),
        pytest.param(described(shape="(2.0,)"), id="a fraction as an axis"),
        pytest.param(described(shape="('2',)"), id="a text as an axis"),
        pytest.param(described(order="0"), id="a number as the order"),
        pytest.param(described(descr="'<q9'"), id="no such dtype"),
        pytest.param(described(descr="None"), id="None as the dtype"),
        pytest.param(described(descr="()"), id="an empty tuple as the dtype"),
        pytest.param(described(descr="[()]"), id="a field without a name"),
        pytest.param(described(descr="[('a', '<f4', 10**30)]"), id="an expression in a field"),
        pytest.param(described(descr="'|O'"), id="pickled objects"),
        pytest.param(described(descr="[('a', '|O')]"), id="pickled objects in a field"),
        pytest.param(described(shape="(0, 1180591620717411303424)"), id="an axis beyond 64 bits"),
        pytest.param(described(shape="(0, 9223372036854775807)"), id="an axis beyond all memory"),
        pytest.param(described(shape="(1, " + "1, " * 70 + ")"), id="seventy axes"),
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=["1.0", "2.0"])
def test_a_wrong_header_is_a_value_error(header: bytes, version: tuple[int, int]) -> None:
    with pytest.raises(ValueError):
        npyfile.parse(crafted(header, bytes(8), version))
    with pytest.raises(ValueError):
        npyfile.parse(crafted(header, b"", version))


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '<i4'), ('b', '|O')]"], ids=["alone", "in a field"])
def test_pickled_objects_are_refused_by_the_header(descr: str) -> None:
    with pytest.raises(ValueError, match="pickled Python objects, which are never loaded"):
        npyfile.read_header(io.BytesIO(crafted(described(descr))))


@pytest.mark.filterwarnings("ignore:Reading .*Python 2")
def test_a_header_as_python_2_wrote_it_is_read() -> None:
    parsed = npyfile.parse(crafted(described(shape="(2L,)"), np.array([1, 2], dtype="<f4").tobytes()))
    assert parsed.tolist() == [1.0, 2.0]


def test_a_header_of_format_2_is_read() -> None:
    parsed = npyfile.parse(crafted(described(), np.array([1, 2], dtype="<f4").tobytes(), (2, 0)))
    assert parsed.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (3, 0), (255, 255)], ids=str)
def test_other_formats_are_refused_by_their_number(version: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{version[0]}.{version[1]}|{version[0]}, {version[1]}"):
        npyfile.parse(crafted(described(), bytes(8), version))


def test_a_header_longer_than_the_limit_is_refused() -> None:
    assert npyfile.parse(crafted(described().rstrip().ljust(9_999) + b"\n", bytes(8), (2, 0))).shape == (2,)
    with pytest.raises(ValueError):
        npyfile.parse(crafted(described().rstrip().ljust(10_000) + b"\n", bytes(8), (2, 0)))


@pytest.mark.parametrize(
    "middle", [b" " * 9_000 + b"$", b"\t\f " * 3_000 + b"?", b"'\\" * 4_500], ids=["spaces", "white space", "escapes"]
)
def test_a_long_header_that_is_no_literal_is_refused_at_once(middle: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match="the npy header cannot be read"):
        npyfile.parse(crafted(b"{'descr' " + middle + b"}", bytes(8), (2, 0)))
    assert time.process_time() - begun < 0.5


def test_a_promise_of_more_than_all_memory_is_refused_without_taking_it(tmp_path: Path) -> None:
    data = crafted(described(shape="(1099511627776, 1024)"), bytes(8))
    with pytest.raises(ValueError, match="4503599627370496"):
        npyfile.parse(data)
    with pytest.raises(ValueError, match="4503599627370496"):
        npyfile.map_array(written(tmp_path, data))


header_parts = st.sampled_from(
    [
        "{",
        "}",
        "'descr'",
        ": ",
        "'<f4'",
        ", ",
        "'fortran_order'",
        "False",
        "'shape'",
        "(2,)",
        "(",
        ")",
        "[",
        "]",
        "0",
        "'",
    ]
)
fields = st.sampled_from(
    ["'<f4'", "'|V0'", "'<f4', (2,)", "()", "(2,)", "[('a', '<i2')]", "''", "{}", "-1", "True", "1L"]
)
headers = st.one_of(
    st.lists(header_parts, max_size=14).map("".join),
    st.builds(lambda d, f, s: f"{{'descr': {d}, 'fortran_order': {f}, 'shape': {s}}}", fields, fields, fields),
    st.text(max_size=20),
)


@settings(QUICK, max_examples=400)
@pytest.mark.filterwarnings("ignore")  # of literals that Python or numpy finds odd
@given(headers, st.sampled_from([(1, 0), (2, 0)]), st.sampled_from([0, 8]))
def test_any_header_is_read_or_is_a_value_error(header: str, version: tuple[int, int], length: int) -> None:
    data = crafted(header.encode(), bytes(length), version)
    try:
        parsed = npyfile.parse(data)
    except ValueError:
        return
    assert parsed.nbytes in (0, length)


@settings(QUICK, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 200), st.booleans())
def test_any_bytes_are_one_array_or_a_value_error(noise: bytes, place: int, magic: bool) -> None:
    whole = saved(ROWS)
    data = whole[:place] + noise + whole[place + len(noise) :] if magic else noise
    try:
        npyfile.parse(data)
    except ValueError:
        return
    assert data[:6] == npyfile.MAGIC


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(ROWS.astype(">f4"), id="big endian"),
        pytest.param(ROWS.astype("<f8"), id="float64"),
        pytest.param(ROWS.astype("<f2"), id="float16"),
        pytest.param(ROWS.astype("<i4"), id="int32"),
        pytest.param(np.asfortranarray(ROWS), id="Fortran order"),
        pytest.param(ROWS.ravel(), id="one axis"),
        pytest.param(ROWS.reshape(2, 2, 3), id="three axes"),
        pytest.param(np.zeros((0, 3), dtype="<f4"), id="no rows"),
        pytest.param(np.zeros((3, 0), dtype="<f4"), id="no columns"),
    ],
)
def test_only_a_float32_matrix_with_rows_and_columns_is_mapped_as_rows(tmp_path: Path, array: AnyArray) -> None:
    with pytest.raises(ValueError, match="not a C-ordered float32 matrix"):
        npyfile.map_rows(written(tmp_path, saved(array)))


@pytest.mark.parametrize("shape", [(4, 3), (1, 1), (1, 12), (12, 1)], ids=str)
def test_a_float32_matrix_is_mapped_as_rows(tmp_path: Path, shape: tuple[int, int]) -> None:
    matrix = np.arange(shape[0] * shape[1], dtype="<f4").reshape(shape)
    _, rows = npyfile.map_rows(written(tmp_path, saved(matrix)))
    assert (rows.shape, rows.dtype.str, rows.tobytes()) == (shape, "<f4", matrix.tobytes())


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (400_000, 50), (2**40, 2**20)], ids=str)
def test_a_header_of_rows_has_128_bytes_and_says_the_shape(shape: tuple[int, int]) -> None:
    data = npyfile.header_bytes(shape)
    header = npyfile.read_header(io.BytesIO(data))
    assert len(data) == header.offset == 128
    assert (header.shape, header.fortran_order, header.dtype) == (shape, False, np.dtype("<f4"))
    assert header.data_bytes == shape[0] * shape[1] * 4


def test_a_header_and_the_rows_behind_it_are_what_numpy_saves() -> None:
    assert npyfile.header_bytes((4, 3)) + ROWS.tobytes() == saved(ROWS)


def test_the_data_begin_where_the_header_says() -> None:
    data = saved(ROWS)
    file = io.BytesIO(data)
    assert data[npyfile.read_header(file).offset :] == ROWS.tobytes()


def test_objects_are_not_dumped() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        npyfile.dump(np.array([{}], dtype=object))


def test_threads_that_parse_at_once_do_not_disturb_each_other() -> None:
    data = npyfile.dump(np.zeros((3, 4), np.float32))

    def give_way(*_: object) -> None:
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(give_way)  # a collection within the parser is where another thread may come in
    gc.set_threshold(7)
    try:
        with ThreadPoolExecutor(4) as threads:
            parsed = list(threads.map(npyfile.parse, [data] * 2000))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(give_way)
    assert all(array.shape == (3, 4) for array in parsed)
