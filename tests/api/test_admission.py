"""Places for lookups, counted on a real event loop."""

import asyncio
from collections.abc import Coroutine

import pytest

from service.api import admission
from service.api.admission import Admission
from service.errors import Overloaded

LONG = 60.0
"""Seconds to wait for a place, in tests that never wait for so long."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", LONG)


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, LONG / 2))


async def full(limit: int) -> Admission:
    """All of its places taken."""
    places = Admission(limit)
    for _ in range(limit):
        await places.enter()
    assert places.in_flight == limit
    return places


async def turn() -> None:
    """Lets every task go on as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiters(places: Admission, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(places.enter()) for _ in range(count)]
    await turn()
    assert not any(task.done() for task in tasks)
    return tasks


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_as_many_as_the_limit_come_in_without_waiting(limit: int) -> None:
    async def test() -> None:
        places = Admission(limit)
        for count in range(limit):
            assert places.in_flight == count
            await places.enter()
        assert places.in_flight == limit
        for _ in range(limit):
            places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_who_waits_in_vain_is_refused_and_takes_no_place(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)

    async def test() -> None:
        places = await full(limit)
        for _ in range(3):
            with pytest.raises(Overloaded) as refused:
                await places.enter()
            assert refused.value.members() == Overloaded(limit).members()
        assert places.in_flight == limit
        for _ in range(limit):
            places.leave()
        assert places.in_flight == 0
        await places.enter()
        assert places.in_flight == 1

    run(test())


@pytest.mark.usefixtures("patience")
def test_places_that_become_free_go_to_those_who_wait_in_their_order() -> None:
    async def test() -> None:
        places = await full(1)
        tasks = await waiters(places, 4)
        for done in range(1, 5):
            places.leave()
            await turn()
            assert [task.done() for task in tasks] == [number < done for number in range(4)]
            assert places.in_flight == 1
        places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.usefixtures("patience")
def test_a_place_that_became_free_is_not_taken_from_the_one_who_waited() -> None:
    async def test() -> None:
        places = await full(1)
        (waiter,) = await waiters(places, 1)
        places.leave()
        late = asyncio.create_task(places.enter())
        await turn()
        assert (waiter.done(), late.done(), places.in_flight) == (True, False, 1)
        places.leave()
        await late
        places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.usefixtures("patience")
def test_no_more_than_four_wait_for_a_place(limit: int) -> None:
    async def test() -> None:
        places = await full(limit)
        tasks = await waiters(places, 4 * limit)
        with pytest.raises(Overloaded):
            await places.enter()
        places.leave()
        (more,) = await waiters(places, 1)
        for _ in range(4 * limit):
            places.leave()
        await asyncio.gather(*tasks, more)
        assert places.in_flight == limit
        for _ in range(limit):
            places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.parametrize("cancelled", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
@pytest.mark.usefixtures("patience")
def test_who_stops_waiting_takes_no_place(cancelled: list[int]) -> None:
    async def test() -> None:
        places = await full(1)
        tasks = await waiters(places, 3)
        for number in cancelled:
            tasks[number].cancel()
        await turn()
        assert [task.cancelled() for task in tasks] == [number in cancelled for number in range(3)]
        left = [task for task in tasks if not task.cancelled()]
        for task in left:
            places.leave()
            await task
            assert places.in_flight == 1
        places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.usefixtures("patience")
def test_a_place_given_to_one_who_is_cancelled_before_it_knows_goes_to_the_next() -> None:
    async def test() -> None:
        places = await full(1)
        first, second = await waiters(places, 2)
        places.leave()
        first.cancel()
        await turn()
        assert (first.cancelled(), second.done(), places.in_flight) == (True, True, 1)
        places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.usefixtures("patience")
def test_a_place_given_to_the_last_one_who_is_cancelled_before_it_knows_is_free() -> None:
    async def test() -> None:
        places = await full(1)
        (only,) = await waiters(places, 1)
        places.leave()
        only.cancel()
        await turn()
        assert (only.cancelled(), places.in_flight) == (True, 0)
        await places.enter()
        assert places.in_flight == 1

    run(test())


@pytest.mark.usefixtures("patience")
def test_a_place_that_becomes_free_as_one_stops_waiting_goes_to_the_next() -> None:
    async def test() -> None:
        places = await full(1)
        first, second = await waiters(places, 2)
        first.cancel()
        places.leave()
        await turn()
        assert (first.cancelled(), second.done(), places.in_flight) == (True, True, 1)
        places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_one_who_is_cancelled_as_it_is_refused_takes_no_place(monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)

    async def test() -> None:
        places = await full(1)
        tasks = [asyncio.create_task(places.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[gone].cancel()
        refused = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(type(each).__name__ for each in refused) == ["CancelledError", "Overloaded", "Overloaded"]
        assert places.in_flight == 1
        places.leave()
        assert places.in_flight == 0

    run(test())


@pytest.mark.usefixtures("patience")
def test_those_who_stopped_waiting_do_not_keep_others_from_it() -> None:
    async def test() -> None:
        places = await full(1)
        for task in await waiters(places, 4):
            task.cancel()
        await turn()
        tasks = await waiters(places, 4)
        for task in tasks:
            places.leave()
            await task
        places.leave()
        assert places.in_flight == 0

    run(test())
