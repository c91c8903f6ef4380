"""What the verbs of both clients look like to `help`, to `inspect` and to mocks of those who use them."""

import inspect
from unittest.mock import AsyncMock, create_autospec

import pytest

from service.client import AsyncClient, Client

VERBS = ("lookup", "lookup_many", "tables", "ready", "publish", "activate", "prune")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_its_text_and_its_arguments(verb: str) -> None:
    client, waiting = Client("http://localhost:1"), AsyncClient("http://localhost:1")
    for bound in (getattr(client, verb), getattr(waiting, verb)):
        assert bound.__name__ == verb
        assert len(bound.__doc__) > 20
        assert (
            list(inspect.signature(bound).parameters) == list(inspect.signature(getattr(Client, verb)).parameters)[1:]
        )
    client.close()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_looks_awaited_where_it_is(verb: str) -> None:
    client, waiting = Client("http://localhost:1"), AsyncClient("http://localhost:1")
    assert [inspect.iscoroutinefunction(getattr(each, verb)) for each in (Client, client)] == [False, False]
    assert [inspect.iscoroutinefunction(getattr(each, verb)) for each in (AsyncClient, waiting)] == [True, True]
    assert not isinstance(getattr(create_autospec(Client), verb), AsyncMock)
    client.close()


def test_the_arguments_of_a_lookup_are_told() -> None:
    names = ["self", "table", "ids", "tokens", "version", "label", "mask", "weights", "options"]
    assert list(inspect.signature(getattr(Client, VERBS[0])).parameters) == names
