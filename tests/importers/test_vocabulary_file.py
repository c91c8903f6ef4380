from pathlib import Path

import numpy as np
import pytest

from service.errors import ImportFormatError
from service.importers.options import ImportOptions
from service.importers.vocabulary import read_tokens
from tests.importers.contract import read_whole
from tests.importers.samples import npy_bytes

CONTENTS: dict[str, tuple[bytes, list[str]]] = {
    "plain": (b"hope\nto\nsee\n", ["hope", "to", "see"]),
    "no newline at the end": (b"hope\nto\nsee", ["hope", "to", "see"]),
    "CRLF": (b"hope\r\nto\r\nsee\r\n", ["hope", "to", "see"]),
    "byte order mark": (b"\xef\xbb\xbfhope\nto\nsee\n", ["hope", "to", "see"]),
    "spaces are kept": (b" hope\nto \n s e e \n", [" hope", "to ", " s e e "]),
    "tabs are kept": (b"hope\t\n\tto\ns\tee\n", ["hope\t", "\tto", "s\tee"]),
    "an empty token": (b"\nto\nsee\n", ["", "to", "see"]),
    "an empty token inside": (b"hope\n\nsee\n", ["hope", "", "see"]),
    "next line": ("hope\n\x85\na\x85b\n".encode(), ["hope", "\x85", "a\x85b"]),
    "line separators": ("hope\n\u2028\n\u2029\n".encode(), ["hope", "\u2028", "\u2029"]),
    "other separators": (b"\x0b\n\x0c\n\x1c\n", ["\x0b", "\x0c", "\x1c"]),
    "a carriage return inside": (b"hope\na\rb\nsee\n", ["hope", "a\rb", "see"]),
    "backslashes are not escapes": (b"a\\nb\n\\\\\n\\\n", ["a\\nb", "\\\\", "\\"]),
    "a comment is a token": (b"# words\nto\nsee\n", ["# words", "to", "see"]),
    "other scripts": ("日本語\n🙂\ne\u0301\n".encode(), ["日本語", "🙂", "e\u0301"]),
}


def matrix_of(folder: Path, rows: int) -> Path:
    path = folder / "table.npy"
    path.write_bytes(npy_bytes(np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)))
    return path


def words(folder: Path, content: bytes) -> ImportOptions:
    path = folder / "words.txt"
    path.write_bytes(content)
    return ImportOptions(vocabulary=path)


@pytest.mark.parametrize(("content", "tokens"), CONTENTS.values(), ids=CONTENTS.keys())
def test_line_i_is_the_token_of_id_i(tmp_path: Path, content: bytes, tokens: list[str]) -> None:
    _, found = read_whole(matrix_of(tmp_path, 3), words(tmp_path, content))
    assert found == tokens


REFUSED: dict[str, tuple[bytes, str]] = {
    "a token too few": (b"hope\nto\n", "2 tokens for 3 rows"),
    "a token too many": (b"hope\nto\nsee\nyou\n", "4 tokens for 3 rows"),
    "blank lines at the end": (b"hope\nto\nsee\n\n", "4 tokens for 3 rows"),
    "a token twice": (b"hope\nto\nhope\n", "'hope' (ids 0, 2)"),
    "twice but for the line end": (b"hope\nto\nhope\r\n", "'hope' (ids 0, 2)"),
    "nothing": (b"", "0 tokens for 3 rows"),
}


@pytest.mark.parametrize(("content", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_vocabulary_of_the_table_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    options = words(tmp_path, content)
    with pytest.raises(ImportFormatError) as refused:
        read_whole(matrix_of(tmp_path, 3), options)
    assert refused.value.file == str(options.vocabulary)
    assert named in refused.value.reason


@pytest.mark.parametrize(
    ("content", "byte"),
    [(b"hope\ncaf\xe9\nsee\n", 8), (b"\xef\xbb\xbfhope\ncaf\xe9\n", 11), (b"hope\nto\ncaf\xc3", 11)],
    ids=["latin-1", "behind a byte order mark", "cut at the end"],
)
def test_bytes_that_are_not_utf8_are_named_with_their_place(tmp_path: Path, content: bytes, byte: int) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ImportFormatError, match="not UTF-8") as refused:
        read_tokens(path)
    assert refused.value.place == f"byte {byte}"
    assert refused.value.file == str(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="there is no such file"):
        read_tokens(tmp_path / "nothing")


def test_a_folder_is_no_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError):
        read_tokens(tmp_path)


def test_only_the_tokens_of_the_rows_that_are_taken_must_differ(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"hope\nto\nhope\n")
    _, tokens = read_whole(matrix_of(tmp_path, 3), ImportOptions(rows=2, vocabulary=path))
    assert tokens == ["hope", "to"]


def test_a_vocabulary_of_the_rows_that_are_taken_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"hope\nto\n")
    _, tokens = read_whole(matrix_of(tmp_path, 3), ImportOptions(rows=2, vocabulary=path))
    assert tokens == ["hope", "to"]
