import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.importers import word2vec_binary
from service.importers.detection import detect
from service.importers.options import ImportOptions
from service.types import RowArray
from tests.importers.contract import ImporterContract, read_whole, refusal
from tests.importers.samples import gensim_data
from tests.world import KERAS_ROWS, KERAS_TOKENS

REAL = {"euclidean_vectors.bin": (2747, 10), "poincare_vectors.bin": (1182, 10), "high_precision.kv.bin": (2, 2)}


def rows_bytes(rows: NDArray[np.floating], tokens: Sequence[str], end: bytes = b"") -> bytes:
    with np.errstate(over="ignore"):
        numbers = rows.astype("<f4")
    return b"".join(token.encode() + b" " + row.tobytes() + end for token, row in zip(tokens, numbers, strict=True))


def file_of(folder: Path, data: bytes, header: bytes = b"7 2\n") -> Path:
    path = folder / "table"
    path.write_bytes(header + data)
    return path


class Word2vecBinary(ImporterContract):
    format = "word2vec-binary"
    has_tokens = True
    end: bytes

    @pytest.fixture(autouse=True, params=[None, 7], ids=["large reads", "small reads"])
    def _reads(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param is not None:
            monkeypatch.setattr(word2vec_binary, "_CHUNK", request.param)

    def write(self, path: Path, rows: NDArray[np.floating], tokens: Sequence[str]) -> Path:
        header = f"{rows.shape[0]} {rows.shape[1]}\n".encode()
        path.write_bytes(header + rows_bytes(rows, tokens, self.end))
        return path

    def truncations(self, data: bytes) -> list[bytes]:
        # Without the newline of the last row it is whole; with a part of the header it may be text.
        return [data[:length] for length in (*range(3), *range(4, len(data) - len(self.end)))]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
    @pytest.mark.parametrize("size", [None], ids=["one piece"])
    def test_a_value_that_float32_cannot_hold_is_named_with_its_place(
        self, tmp_path: Path, value: float, size: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        super().test_a_value_that_float32_cannot_hold_is_named_with_its_place(tmp_path, value, size, monkeypatch)


class TestWord2vecBinaryOfGensim(Word2vecBinary):
    end = b""


class TestWord2vecBinaryOfTheCTool(Word2vecBinary):
    end = b"\n"


@pytest.mark.parametrize(("name", "shape"), REAL.items(), ids=REAL.keys())
def test_a_real_file_is_read(name: str, shape: tuple[int, int]) -> None:
    path = gensim_data(name)
    data = path.read_bytes()
    at = data.index(b"\n") + 1
    expected_tokens, expected = [], []
    for _ in range(shape[0]):
        space = data.index(b" ", at)
        expected_tokens.append(data[at:space].decode())
        at = space + 1 + 4 * shape[1]
        expected.append(data[space + 1 : at])
    vectors, tokens = read_whole(path)
    assert detect(path) == "word2vec-binary"
    assert tokens == expected_tokens
    assert vectors.shape == shape
    assert vectors.tobytes() == b"".join(expected)


def test_a_table_of_several_reads_is_read_fast(tmp_path: Path) -> None:
    rows: RowArray = np.random.default_rng(0).random((100_000, 50), dtype=np.float32)
    words = [f"word{i}" for i in range(len(rows))]
    path = file_of(tmp_path, rows_bytes(rows, words), b"100000 50\n")
    started = time.perf_counter()
    vectors, tokens = read_whole(path)
    seconds = time.perf_counter() - started
    assert vectors.tobytes() == rows.tobytes()
    assert tokens == words
    assert seconds < 5  # takes 0.1


@pytest.mark.parametrize("token", ["日本語", "New_York", "\x85", "", '"', "7", "a\tb"])
def test_a_token_is_any_text_without_a_space(tmp_path: Path, token: str) -> None:
    tokens = ["hope", token, *KERAS_TOKENS[2:]]
    assert read_whole(file_of(tmp_path, rows_bytes(KERAS_ROWS, tokens)))[1] == tokens


@pytest.mark.parametrize("byte", [b" ", b"\n"], ids=["space", "newline"])
def test_a_number_may_have_any_bytes(tmp_path: Path, byte: bytes) -> None:
    rows = np.frombuffer(byte * 56, dtype="<f4").reshape(7, 2)
    for end in (b"", b"\n"):
        path = file_of(tmp_path, rows_bytes(rows, KERAS_TOKENS, end))
        assert read_whole(path, name="word2vec-binary")[0].tobytes() == byte * 56


DATA = rows_bytes(KERAS_ROWS, KERAS_TOKENS)
REFUSED = {
    "a row too many": (b"8 2\n", DATA, "row 7", "the file ends within a token"),
    "a row too few": (b"6 2\n", DATA, "line 1", "bytes behind the rows"),
    "far too many": (b"999999999999999999 2\n", DATA, "line 1", "the file has only"),
    "far too wide": (b"7 999999999999999999\n", DATA, "line 1", "the file has only"),
    "no rows": (b"0 2\n", DATA, "line 1", "promises 0 rows"),
    "no numbers": (b"7 0\n", DATA, "line 1", "rows of 0 numbers"),
    "no header": (b"", DATA, "line 1", "the header is not two integers"),
    "a fraction": (b"7.0 2\n", DATA, "line 1", "the header is not two integers"),
    "beyond 64 bits": (b"99999999999999999999 2\n", DATA, "line 1", "the header is not two integers"),
    "an endless header": (b"7" * 1000, DATA, "line 1", "the header is not two integers"),
    "a token that is not UTF-8": (b"7 2\n", DATA.replace(b"you", b"y\xe9u"), "row 3", "not UTF-8"),
    "cut within a number": (b"7 2\n", DATA[:-1], "row 6", "ends within the numbers"),
    "an endless token": (b"2 2\n", DATA[:13] + b"x" * 200_000 + b" " + bytes(8), "row 1", "more than 64 KiB"),
    "a token without an end": (b"2 2\n", DATA[:13] + b"x" * 200_000, "row 1", "more than 64 KiB"),
    "bytes behind": (b"7 2\n", DATA + b"\0", "line 1", "bytes behind the rows"),
}


@pytest.mark.parametrize(("header", "data", "place", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_broken_file_is_refused(tmp_path: Path, header: bytes, data: bytes, place: str, named: str) -> None:
    error = refusal(file_of(tmp_path, data, header), name="word2vec-binary")
    assert error.place == place
    assert named in error.reason


@pytest.mark.parametrize(
    ("options", "named"),
    [(ImportOptions(transpose=True), "--transpose"), (ImportOptions(tensor="weight"), "--tensor")],
    ids=["transpose", "tensor"],
)
def test_options_of_arrays_are_refused(tmp_path: Path, options: ImportOptions, named: str) -> None:
    assert named in refusal(file_of(tmp_path, DATA), options).reason
