from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.vocabulary import UNKNOWN, Vocabulary, describe_duplicates
from tests.oracle import QUICK

WORDS = ("hope", "to", "see", "you")


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(["you", "hope"], [3, 0], id="in the order asked"),
        pytest.param(["to", "to"], [1, 1], id="a token twice"),
        pytest.param(["zzz", "see"], [UNKNOWN, 2], id="an unknown token"),
        pytest.param(["See", "see ", ""], [UNKNOWN] * 3, id="case and blanks count"),
    ],
)
def test_a_token_has_the_id_of_its_place(asked: list[str], ids: list[int]) -> None:
    found = Vocabulary(WORDS).ids(asked)
    assert (found.dtype.name, found.tolist()) == ("int64", ids)


def test_no_row_has_the_id_of_an_unknown_token() -> None:
    assert UNKNOWN < 0


@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param(["", " ", "\n", "\t", "\0"], id="blank"),
        pytest.param(["é", "e\N{COMBINING ACUTE ACCENT}"], id="composed and decomposed"),
        pytest.param(["a", "A", "\N{FULLWIDTH LATIN SMALL LETTER A}"], id="upper, lower and full width"),
        pytest.param(["1", "01", "1.0"], id="numbers"),
        pytest.param(["<pad>", "\N{GRINNING FACE}", "日本"], id="beyond ASCII"),
    ],
)
def test_tokens_are_compared_as_written(tokens: list[str]) -> None:
    assert Vocabulary(tokens).ids(tokens).tolist() == list(range(len(tokens)))


@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param(WORDS, id="a tuple"),
        pytest.param(list(WORDS), id="a list"),
        pytest.param((word for word in WORDS), id="a generator"),
        pytest.param(dict.fromkeys(WORDS), id="the keys of a dict"),
    ],
)
def test_any_iterable_of_tokens_is_a_vocabulary(tokens: Iterable[str]) -> None:
    vocabulary = Vocabulary(tokens)
    assert len(vocabulary) == 4
    assert list(vocabulary.__iter__()) == list(WORDS)


def test_a_vocabulary_does_not_change_with_the_list_it_was_made_of() -> None:
    tokens = ["a", "b"]
    vocabulary = Vocabulary(tokens)
    tokens.append("c")
    assert "c" not in vocabulary
    assert len(vocabulary) == 2


def test_a_vocabulary_contains_its_tokens_and_no_others() -> None:
    vocabulary = Vocabulary(WORDS)
    assert "see" in vocabulary
    assert "zzz" not in vocabulary


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        pytest.param(["a", "b", "a"], ["'a' (ids 0, 2)"], id="once more"),
        pytest.param(["a", "a", "b", "b", "a"], ["'a' (ids 0, 1, 4)", "'b' (ids 2, 3)"], id="two tokens"),
        pytest.param(["\n", "x", "\n"], [r"'\n' (ids 0, 2)"], id="a line break is named readably"),
    ],
)
def test_tokens_that_occur_twice_are_named_with_their_ids(tokens: list[str], named: list[str]) -> None:
    with pytest.raises(ValueError, match="more than once") as caught:
        Vocabulary(tokens)
    assert all(name in str(caught.value) for name in named)


def test_only_the_first_of_many_duplicates_are_named_and_the_others_counted() -> None:
    text = describe_duplicates([*"abcdefg", *"abcdefg"])
    assert [letter for letter in "abcdefg" if f"'{letter}'" in text] == list("abcde")
    assert text.endswith("and 2 more")


def test_unique_tokens_around_a_duplicate_are_not_named() -> None:
    assert "'b'" not in describe_duplicates(["a", "b", "a"])


@QUICK
@given(st.lists(st.text(max_size=4), max_size=8), st.lists(st.text(max_size=4), max_size=8))
def test_ids_are_what_a_search_through_the_list_finds(tokens: list[str], others: list[str]) -> None:
    unique = list(dict.fromkeys(tokens))
    asked = [*others, *unique, *others]
    assert Vocabulary(unique).ids(asked).tolist() == [unique.index(t) if t in unique else UNKNOWN for t in asked]
