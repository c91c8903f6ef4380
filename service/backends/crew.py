"""Threads that share large pieces of work. numpy does not hold the interpreter lock while it copies rows."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache


class Crew:
    """So many threads help whoever has much to do; they start with the first piece of work, in the process that has it.

    Whoever asks works along, and waits for a helper only while it is at its last piece: one that does not get a
    processor is not waited for.
    """

    def __init__(self, helpers: int) -> None:
        self._helpers = helpers
        self._threads = ThreadPoolExecutor(max_workers=helpers, thread_name_prefix="crew")

    def share(self, work: Callable[[int], object], pieces: Iterable[int]) -> None:
        """Calls `work` with each of the pieces, at the same time; raises what it raises."""
        left = iter(pieces)  # whose `next` the interpreter does in one step
        helping = [self._threads.submit(_work_on, work, left) for _ in range(self._helpers)]
        try:
            _work_on(work, left)
        finally:
            begun = [helper for helper in helping if not helper.cancel()]
            wait(begun)
        for helper in begun:
            helper.result()


def _work_on(work: Callable[[int], object], left: Iterator[int]) -> None:
    try:
        for piece in left:
            work(piece)
    except BaseException:  # raised on; nobody begins another piece
        deque(left, maxlen=0)
        raise


def share(crew: Crew | None, work: Callable[[int], object], pieces: Iterable[int]) -> None:
    """The same; one piece after the other where there is no crew."""
    if crew is not None:
        crew.share(work, pieces)
    else:
        _work_on(work, iter(pieces))


@lru_cache
def crew_of(threads: int) -> Crew | None:
    """The one crew of this process where so many threads share a piece of work; None where that is one."""
    return Crew(threads - 1) if threads > 1 else None
