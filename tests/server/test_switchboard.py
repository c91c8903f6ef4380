"""The supervisor's part in a conversation, over real channels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from load_tests.running import until
from service.server.control import MOST, Channel, Message
from service.server.switchboard import Switchboard


@dataclass
class Line:
    """A switchboard with a steward and workers at the other ends of its channels."""

    board: Switchboard
    steward: Channel
    workers: dict[int, Channel]
    ends: dict[int, Channel]
    killed: list[int] = field(default_factory=list)

    def ask(self, number: int, kind: str = "states", seconds: float = 60.0, *, kill: bool = False) -> None:
        asked = {"kind": kind, "content": {"tables": ["words"]}, "seconds": seconds, "kill": kill}
        self.board.ask(Message("ask", number, asked), self.workers)

    def said(self, count: int) -> list[Message]:
        return [message for message in (self.steward.receive() for _ in range(count)) if message is not None]


@contextmanager
def line(workers: int = 2) -> Iterator[Line]:
    killed: list[int] = []
    pairs = {number: Channel.pair() for number in range(workers)}
    ours, steward = Channel.pair()
    board = Switchboard(killed.append)
    board.connect(ours, {})
    ends = {number: theirs for number, (_, theirs) in pairs.items()}
    yield Line(board, steward, {number: ours for number, (ours, _) in pairs.items()}, ends, killed)
    for channel in (ours, steward, *(end for pair in pairs.values() for end in pair)):
        channel.close()


def done(silent: tuple[int, ...] = (), died: tuple[int, ...] = (), question: int = 1) -> Message:
    return Message("done", question, {"silent": list(silent), "died": list(died)})


def answer(worker: int, question: int = 1) -> Message:
    return Message("answer", question, {"worker": worker, "content": {"from": worker}})


def test_a_question_reaches_every_worker_and_every_answer_the_steward() -> None:
    with line() as end:
        end.ask(1)
        for number, worker in end.ends.items():
            assert worker.receive() == Message("states", 1, {"tables": ["words"]})
            end.board.answer(number, Message("answer", 1, {"from": number}))
        assert end.said(3) == [answer(0), answer(1), done()]


def test_without_workers_a_question_is_done_at_once() -> None:
    with line(workers=0) as end:
        end.ask(1)
        assert end.said(1) == [done()]


def test_a_worker_that_dies_owes_no_answer_and_is_named() -> None:
    with line() as end:
        end.ask(1)
        end.board.gone(1)
        end.board.answer(0, Message("answer", 1, {"from": 0}))
        assert end.said(2) == [answer(0), done(died=(1,))]


def test_a_death_after_the_answer_does_not_matter() -> None:
    with line() as end:
        end.ask(1)
        end.board.answer(1, Message("answer", 1, {"from": 1}))
        end.board.gone(1)
        end.board.answer(0, Message("answer", 1, {"from": 0}))
        assert end.said(3) == [answer(1), answer(0), done()]


def test_who_is_late_is_named_and_what_comes_later_is_not_passed_on() -> None:
    with line() as end:
        end.ask(1, seconds=0.0)
        assert end.board.next_deadline() is not None
        end.board.expire()
        assert end.board.next_deadline() is None
        end.board.answer(0, Message("answer", 1, {"from": 0}))
        end.ask(2, seconds=0.0)
        end.board.expire()
        assert end.said(2) == [done(silent=(0, 1)), done(silent=(0, 1), question=2)]


def test_who_is_late_with_a_question_that_kills_is_killed_and_waited_for() -> None:
    with line() as end:
        end.ask(1, "commit", seconds=0.0, kill=True)
        end.board.answer(0, Message("answer", 1, {"from": 0}))
        end.board.expire()
        end.board.expire()
        assert end.killed == [1]
        end.board.gone(1)
        assert end.said(2) == [answer(0), done(died=(1,))]


def test_questions_are_kept_apart() -> None:
    with line() as end:
        end.ask(1)
        end.ask(2)
        for number, question in ((0, 2), (1, 1), (1, 2), (0, 1)):
            end.board.answer(number, Message("answer", question, {"from": number}))
        assert end.said(6) == [answer(0, 2), answer(1, 1), answer(1, 2), done(question=2), answer(0, 1), done()]


@pytest.mark.parametrize("answered", [0, 1])
def test_when_the_steward_dies_in_the_middle_the_workers_follow_the_store(answered: int) -> None:
    with line() as end:
        end.ask(1, "prepare")
        for number in range(answered):
            end.board.answer(number, Message("answer", 1, {}))
        end.board.connect(None, end.workers)
        end.board.answer(1, Message("answer", 1, {}))
        for worker in end.ends.values():
            assert [worker.receive() for _ in range(2)][-1] == Message("follow")
        assert end.board.next_deadline() is None


def test_a_worker_that_reads_nothing_does_not_stop_the_supervisor() -> None:
    with line(workers=1) as end:
        content = {"kind": "states", "content": {"tables": ["t" * (MOST // 2)]}, "seconds": 0.0, "kill": False}

        def asked_more_than_it_can_hold() -> bool:
            end.board.ask(Message("ask", 1, content), end.workers)
            end.board.expire()
            return end.steward.receive() == done(silent=(0,)) and next(counted) > 100

        counted = iter(range(1000))
        assert until(asked_more_than_it_can_hold)


def test_a_message_that_is_too_long_is_a_fault_of_ours() -> None:
    with line() as end, pytest.raises(ValueError, match="65536 are the most"):
        end.steward.send(Message("ask", 1, {"tables": ["x" * MOST]}))
