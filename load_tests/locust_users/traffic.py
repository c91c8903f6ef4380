"""What the users of one process share: the table, the questions, and what is known of the answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final
from weakref import WeakKeyDictionary

from locust.env import Environment

from load_tests.locust_users.checking import Checker
from load_tests.locust_users.drawing import Questions
from load_tests.locust_users.options import Options
from load_tests.locust_users.question import Question
from load_tests.locust_users.table import Table


class Traffic:
    """Made when a test starts, in every process that has users."""

    def __init__(self, host: str, options: Options, table: Table, process: int) -> None:
        self.options = options
        self.host = host
        self.in_flight = 0
        self.resting = False
        """No request may begin any more: what the users look up is about to go."""
        self.checker = Checker(table, options.swap_lag)
        self._questions = Questions.drawn(table, options, process)
        self._draw = Random(f"{options.seed} {process}")

    def question(self, kind: str) -> Question:
        """The next of its kind, or, as often as was wished, one with ids outside the table."""
        source = self._questions.within
        if self.options.oov_share and self._draw.random() < self.options.oov_share:
            source = self._questions.beyond
        return next(source[kind])

    def pause(self) -> float:
        """Seconds until a user's next request."""
        return self._draw.uniform(0, 2e-3 * self.options.wait_ms)

    @contextmanager
    def flight(self) -> Iterator[None]:
        """Counts a request while it is under way."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


TRAFFIC: Final[WeakKeyDictionary[Environment, Traffic]] = WeakKeyDictionary()
"""That of each environment of locust; a process has one."""
