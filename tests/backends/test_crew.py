"""Pieces of work shared by threads: each is done once, and nobody waits for a helper that has not begun."""

import threading

import pytest

from service.backends.crew import Crew, crew_of

SECONDS = 10.0


def test_every_piece_is_done_once() -> None:
    done: list[int] = []
    for count in (0, 1, 2, 1000):
        done.clear()
        Crew(3).share(done.append, range(count))
        assert sorted(done) == list(range(count))


def test_helpers_work_at_the_same_time_as_the_one_who_asks() -> None:
    together = threading.Barrier(3, timeout=SECONDS)
    Crew(2).share(lambda _: together.wait(), range(3))


def test_a_helper_that_is_busy_elsewhere_is_not_waited_for() -> None:
    crew, began, end = Crew(1), threading.Event(), threading.Event()

    def hold(piece: int) -> None:
        if piece == 0:
            began.set()
            assert end.wait(SECONDS)

    other = threading.Thread(target=crew.share, args=(hold, range(2)))
    other.start()
    assert began.wait(SECONDS)
    crew.share(lambda _: None, range(100))  # the only helper, or the other thread itself, stands in the first piece
    end.set()
    other.join(SECONDS)
    assert not other.is_alive()


def test_what_a_helper_raises_is_raised() -> None:
    asked = threading.current_thread()

    def work(piece: int) -> None:
        if threading.current_thread() is asked:
            assert seen.wait(SECONDS)
            return
        seen.set()
        raise RuntimeError("of a helper")

    seen = threading.Event()
    with pytest.raises(RuntimeError, match="of a helper"):
        Crew(1).share(work, range(2))


def test_after_an_error_nobody_works_on() -> None:
    asked, begun = threading.current_thread(), threading.Event()
    done: list[int] = []

    def work(piece: int) -> None:
        if threading.current_thread() is asked:
            assert begun.wait(SECONDS)
            raise MemoryError
        begun.set()
        done.append(piece)

    with pytest.raises(MemoryError):
        Crew(2).share(work, range(10_000_000))
    count = len(done)
    assert count < 10_000_000
    Crew(1).share(lambda _: None, range(1))
    assert len(done) == count


def test_one_thread_needs_no_crew_and_several_have_one() -> None:
    assert crew_of(1) is None
    assert crew_of(3) is crew_of(3) is not None
