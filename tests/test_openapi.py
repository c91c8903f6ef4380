from tests.openapi import COMMITTED, generate


def test_the_committed_description_is_what_the_code_gives() -> None:
    assert COMMITTED.read_text() == generate(), "`make openapi` writes it anew"
