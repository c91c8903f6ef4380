import select
from collections.abc import Iterator

import pytest

from service.server.control import Channel, Message

Ends = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_apart_and_in_order(ends: Ends) -> None:
    ours, theirs = ends
    theirs.send(Message("ready"))
    theirs.send(Message("ready"))
    assert [ours.receive(), ours.receive()] == [Message("ready"), Message("ready")]
    assert select.select([ours], [], [], 0)[0] == []


def test_the_end_of_one_side_is_seen_by_the_other(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    assert ours.receive() is None
    ours.send(Message("ready"))  # nobody hears it, and nothing is raised
