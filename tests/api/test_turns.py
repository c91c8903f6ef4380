"""Turns of long work on a real event loop, round by round."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from functools import partial
from typing import Final

import pytest
import uvloop

from service.api.turns import TURN, Queue, Turns, queue_of

LONG: Final = 30.0
LOOPS: Final = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def run(test: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test, LONG))


class Rounds:
    """Notes in which round of the loop something happens."""

    def __init__(self) -> None:
        self.round = 0
        self.seen: list[tuple[str, int]] = []

    def note(self, name: str) -> None:
        self.seen.append((name, self.round))

    async def go(self, count: int) -> None:
        """Lets so many rounds pass."""
        for _ in range(count):
            self.round += 1
            await asyncio.sleep(0)


def fresh() -> Queue:
    return Queue()


def test_the_first_is_called_at_once_and_the_others_one_in_each_round() -> None:
    async def test() -> None:
        queue, rounds = fresh(), Rounds()
        for name in "abcd":
            queue.call(partial(rounds.note, name))
        assert rounds.seen == [("a", 0)]
        await rounds.go(6)
        assert [name for name, _ in rounds.seen] == list("abcd")
        later = [number for _, number in rounds.seen[1:]]
        assert later == list(range(later[0], later[0] + 3))

    run(test())


def test_who_comes_again_stands_behind_those_who_wait() -> None:
    async def test() -> None:
        queue, rounds = fresh(), Rounds()

        def work(name: str, left: int) -> None:
            rounds.note(name)
            if left:
                queue.call(partial(work, name, left - 1))

        for name in "ab":
            queue.call(partial(work, name, 2))
        queue.call(partial(rounds.note, "s"))
        await rounds.go(10)
        assert "".join(name for name, _ in rounds.seen) == "aabsabb"
        numbers = [number for _, number in rounds.seen[1:]]
        assert len(set(numbers)) == len(numbers)

    run(test())


def test_once_all_have_had_theirs_the_next_is_called_at_once() -> None:
    async def test() -> None:
        queue, rounds = fresh(), Rounds()
        for turn in range(3):
            queue.call(partial(rounds.note, "first"))
            queue.call(partial(rounds.note, "second"))
            assert len(rounds.seen) == 2 * turn + 1
            await rounds.go(4)
        assert [name for name, _ in rounds.seen] == ["first", "second"] * 3

    run(test())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_in_one_does_not_keep_the_others_from_their_turns(place: int) -> None:
    async def test() -> None:
        loop, queue, rounds = asyncio.get_running_loop(), fresh(), Rounds()
        errors: list[object] = []
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

        def fail() -> None:
            raise ValueError("broken")

        for number in range(4):
            if number != place:
                queue.call(partial(rounds.note, str(number)))
            elif number == 0:
                with pytest.raises(ValueError, match="broken"):
                    queue.call(fail)
            else:
                queue.call(fail)
        await rounds.go(6)
        assert [name for name, _ in rounds.seen] == [str(number) for number in range(4) if number != place]
        assert [str(error) for error in errors] == ["broken"] * (place > 0)
        queue.call(partial(rounds.note, "later"))
        assert rounds.seen[-1][0] == "later"

    run(test())


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1], [1, 2], [0, 1, 2]], ids=str)
def test_who_stops_waiting_is_skipped(cancelled: list[int]) -> None:
    async def test() -> None:
        queue = fresh()
        for _ in range(5):  # so that all three have to wait
            queue.call(lambda: None)
        tasks = [asyncio.create_task(queue.turn()) for _ in range(3)]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in ended] == [n in cancelled for n in range(3)]
        await queue.turn()

    run(test())


def test_tasks_have_their_turns_in_the_order_in_which_they_came() -> None:
    async def test() -> None:
        queue, rounds = fresh(), Rounds()

        async def work(name: str) -> None:
            for _ in range(3):
                await queue.turn()
                rounds.note(name)

        tasks = [asyncio.create_task(work(name)) for name in "abc"]
        await rounds.go(20)
        await asyncio.gather(*tasks)
        assert "".join(name for name, _ in rounds.seen) == "aabcabcbc"
        numbers = [number for _, number in rounds.seen[1:]]
        assert len(set(numbers)) == len(numbers)

    run(test())


@LOOPS
def test_a_loop_that_ends_while_some_wait_leaves_nothing_to_the_next(loop: object) -> None:
    seen: list[str] = []

    async def abandon() -> None:
        for _ in range(3):
            queue_of(asyncio.get_running_loop()).call(partial(seen.append, "old"))

    async def go_on() -> None:
        queue_of(asyncio.get_running_loop()).call(partial(seen.append, "new"))

    for each in (abandon, go_on):
        with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
            runner.run(each())
    assert seen[0] == "old"
    assert seen[-1] == "new"


@LOOPS
def test_a_loop_that_has_ended_is_freed(loop: object) -> None:
    async def test() -> "weakref.ref[asyncio.AbstractEventLoop]":
        await Turns().begin()
        return weakref.ref(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        ended = runner.run(test())
    del runner
    gc.collect()
    assert ended() is None


def test_work_lets_others_before_once_its_turn_is_over_and_not_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        now = 100.0
        monkeypatch.setattr("service.api.turns.time.perf_counter", lambda: now)
        rounds, turns = Rounds(), Turns()
        asyncio.get_running_loop().call_soon(rounds.note, "another")
        now += TURN
        await turns.end()
        assert rounds.seen == []
        now += TURN
        queue_of(asyncio.get_running_loop()).call(lambda: None)  # somebody has had the turn of this round
        await turns.end()
        assert rounds.seen == [("another", 0)]
        await turns.end()

    run(test())
