from pathlib import Path

import numpy as np
import pytest

from service.importers.options import ImportOptions
from tests.importers.contract import read_whole, refusal
from tests.importers.samples import gensim_data
from tests.importers.text_contract import TextContract


class TestGlove(TextContract):
    format = "glove"
    first_row = 1

    def header(self, _rows: int, _dim: int) -> bytes:
        return b""


def test_a_real_file_is_read() -> None:
    path = gensim_data("test_glove.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    vectors, tokens = read_whole(path)
    assert tokens == [line.split(" ")[0] for line in lines]
    expected = [[float(field) for field in line.split(" ")[1:]] for line in lines]
    assert vectors.shape == (76, 50)
    assert vectors.tobytes() == np.array(expected, dtype=np.float32).tobytes()


def test_the_first_rows_of_a_real_file_are_read() -> None:
    path = gensim_data("test_glove.txt")
    assert read_whole(path, ImportOptions(rows=10))[0].tobytes() == read_whole(path)[0][:10].tobytes()


@pytest.mark.parametrize("data", [b"hope\n", b"hope \nto \n", b"\nhope 1 2\n"], ids=["a word", "words", "blank first"])
def test_a_first_line_without_numbers_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "table"
    path.write_bytes(data)
    error = refusal(path, name="glove")
    assert error.place == "line 1"
    assert "no token with numbers" in error.reason


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"\xef\xbb\xbfhope 1 2\nto 3 4\n")
    assert read_whole(path)[1] == ["hope", "to"]
