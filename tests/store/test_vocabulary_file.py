from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidTable
from service.store import TableStore
from tests.world import publish

AWKWARD = {
    "backslashes": ["\\", "\\\\", "\\n", "\\\\n", "a\\", "\\r", "C:\\new\\r"],
    "newlines": ["\n", "\n\n", "a\nb", "\\\n", "a\n"],
    "carriage returns": ["\r", "\r\n", "a\rb", "a\r", "\n\r"],
    "next line": ["\x85", "a\x85b"],
    "line and paragraph separator": ["\u2028", "a\u2028b", "\u2029"],
    "other separators": ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e"],
    "empty": [""],
    "empty first": ["", "a"],
    "empty last": ["a", ""],
    "spaces": [" ", "  ", " a", "a ", "\t", "\xa0"],
    "emoji": ["🙂", "👩‍👩‍👧", "🏳️‍🌈", "e\u0301", "é"],
    "other scripts": ["日本語", "العربية", "Ω", "ß", "İ"],
    "control": ["\x00", "\x01", "\x7f", "a\x00b"],
    "byte order mark": ["\ufeff", "\ufeffa", "a"],
    "noncharacters": ["\uffff", "\U0010ffff", "\ufffd"],
    "json": ['"', '{"a":1}', "null"],
    "case": ["a", "A"],
    "long": ["a" * 100_000],
}


def round_trip(root: Path, tokens: Sequence[str]) -> tuple[str, ...] | None:
    store = TableStore(root)
    version = publish(store, "words", np.zeros((len(tokens), 1)), tokens)
    store.verify(version)
    return TableStore(root).version(version).tokens()


@pytest.mark.parametrize("tokens", AWKWARD.values(), ids=AWKWARD.keys())
def test_tokens_come_back_as_they_went_in(tmp_path: Path, tokens: list[str]) -> None:
    assert round_trip(tmp_path, tokens) == tuple(tokens)


def test_all_awkward_tokens_live_in_one_vocabulary(tmp_path: Path) -> None:
    tokens = list(dict.fromkeys(token for group in AWKWARD.values() for token in group))
    assert round_trip(tmp_path, tokens) == tuple(tokens)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20, unique=True))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_distinct_tokens_come_back(tmp_path_factory: pytest.TempPathFactory, tokens: list[str]) -> None:
    assert round_trip(tmp_path_factory.mktemp("store"), tokens) == tuple(tokens)


def test_the_file_has_one_escaped_line_for_each_id(tmp_path: Path) -> None:
    tokens = ["a\nb", "c\\n", "\r", "", "é"]
    version = publish(TableStore(tmp_path), "words", np.zeros((5, 1)), tokens)
    content = (tmp_path / "words" / str(version.version) / "vocabulary.txt").read_bytes()
    assert content == b"a\\nb\nc\\\\n\n\\r\n\n\xc3\xa9\n"


@pytest.mark.parametrize("token", ["\ud800", "a\udfffb"], ids=ascii)
def test_a_lone_surrogate_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(InvalidTable, match="UTF-8"):
        round_trip(tmp_path, ["a", token])
    assert list(tmp_path.iterdir()) == []


def test_tokens_that_differ_only_in_escaping_are_different(tmp_path: Path) -> None:
    assert round_trip(tmp_path, ["\n", "\\n", "\\\\n"]) == ("\n", "\\n", "\\\\n")
