"""Any tokens and any rows, written as text, come back: in every format of lines, cut anywhere."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.errors import ImportFormatError
from service.importers import text_rows
from service.importers.options import ImportOptions
from service.types import RowArray
from tests.importers.contract import read_whole
from tests.importers.samples import row_lines

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8), elements=FINITE)
TOKEN = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "), min_size=1
)
CHUNK = st.integers(1, 200)
END = st.sampled_from(["\n", " \n", "\r\n", " \r\n", "\t\n", "\n\n"])
ANY = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def tables(draw: st.DrawFn) -> tuple[RowArray, list[str]]:
    rows: RowArray = draw(ROWS)
    tokens = draw(st.lists(TOKEN, min_size=len(rows), max_size=len(rows), unique=True))
    return rows, tokens


def text_of(rows: RowArray, tokens: list[str], end: str) -> bytes:
    """As Python writes float32: the shortest digits that read back the same."""
    lines = row_lines(rows, tokens).removesuffix("\n").split("\n")
    return (end.replace("\n\n", "\n").join(lines) + end).encode()


@pytest.mark.parametrize("name", ["glove", "word2vec"])
@given(table=tables(), chunk=CHUNK, end=END)
@ANY
def test_any_table_written_as_text_reads_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, name: str, table: tuple[RowArray, list[str]], chunk: int, end: str
) -> None:
    rows, tokens = table
    header = b"" if name == "glove" else f"{rows.shape[0]} {rows.shape[1]}\n".encode()
    path = tmp_path_factory.mktemp("text") / "table"
    path.write_bytes(header + text_of(rows, tokens, end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "_CHUNK", chunk)
        vectors, found = read_whole(path, name=name)
    assert vectors.tobytes() == rows.tobytes()
    assert found == tokens


def outcome(path: Path, chunk: int, count: int | None) -> tuple[bytes, list[str] | None] | None:
    """The rows and tokens; None for a file that is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "_CHUNK", chunk)
        try:
            vectors, tokens = read_whole(path, ImportOptions(rows=count), "glove")
        except ImportFormatError:
            return None
        return vectors.tobytes(), tokens


PIECES = st.sampled_from(
    [b"a", b"b 1", b" ", b"  ", b"\t", b"\r", b"1", b"2.5", b"-3", b"1-2", b"x", b"\xff", b"\xc2\x85"]
)
LINE = st.one_of(
    st.sampled_from([b"to 1 2", b"see 3 4", b"you 5 6", b"soon  7  8", b"nice 1\t2", b"again 1 2 ", b" 9 8"]),
    st.lists(PIECES, max_size=6).map(b"".join),
)


@given(lines=st.lists(LINE, min_size=1, max_size=6), chunk=CHUNK, count=st.none() | st.integers(1, 4))
@example(lines=[b" 9 8", b"soon  7  8", b"to 1 2"], chunk=1, count=None)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_where_a_file_is_cut_into_chunks_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], chunk: int, count: int | None
) -> None:
    path = tmp_path_factory.mktemp("text") / "table"
    path.write_bytes(b"\n".join([b"hope 1 2", *lines]))
    assert outcome(path, chunk, count) == outcome(path, 1 << 20, count)


@given(lines=st.lists(st.sampled_from([b"", b" ", b"\t", b"\r", b"a", b" a", b"a "]), max_size=12), chunk=CHUNK)
@ANY
def test_lines_are_counted_without_the_blank_ones_at_the_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], chunk: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "table"
    path.write_bytes(b"\n".join(lines))
    kept = len(lines)
    while kept and not lines[kept - 1].strip():
        kept -= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "_CHUNK", chunk)
        assert text_rows.count_lines(path) == kept
