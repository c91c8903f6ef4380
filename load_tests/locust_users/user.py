"""A user that asks, checks the answer, and waits; those that locust starts inherit from it."""

import time
from typing import Final

import gevent
from geventhttpclient.response import HTTPConnectionClosed
from locust import FastHttpUser
from locust.contrib.fasthttp import LocustBadStatusCode, ResponseContextManager
from locust.env import Environment
from locust.exception import StopUser

from load_tests.locust_users.question import Question
from load_tests.locust_users.told import Answer, WrongAnswer
from load_tests.locust_users.traffic import TRAFFIC

LOOKUP: Final = "POST"
RETRY: Final = "RETRY"
"""The types of entries in the statistics."""
_UNANSWERED: Final = (ConnectionError, HTTPConnectionClosed)
"""The connection was refused, reset or closed before a byte of the answer came."""
_FIRST_PAUSE: Final = 0.05  # seconds, twice as many each time
_LONGEST_PAUSE: Final = 1.0


class LookupUser(FastHttpUser):
    """Asks over one connection that it keeps, and waits for each answer before it asks again."""

    abstract = True
    connection_timeout = 10.0
    network_timeout = 30.0

    def __init__(self, environment: Environment) -> None:
        if self.host:
            self.host = self.host.rstrip("/")  # paths are put behind it as they are
        super().__init__(environment)

    def on_start(self) -> None:
        self.traffic = TRAFFIC.get(self.environment)

    def wait_time(self) -> float:
        return 0.0 if self.traffic is None else self.traffic.pause()

    def ask(self, kind: str) -> None:
        """Sends the next question of this kind and has locust count its answer."""
        traffic = self.traffic
        if traffic is None or traffic.resting:  # the test could not begin, or is about to end
            raise StopUser
        question = traffic.question(kind)
        with traffic.flight():
            asked = time.perf_counter()
            with self._sent(question, asked, traffic.options.retry_connects) as response:
                try:
                    traffic.checker.check(question, _answer(response), asked)
                except WrongAnswer as error:
                    response.failure(str(error))
                else:
                    response.success()

    def _sent(self, question: Question, asked: float, retries: int) -> ResponseContextManager:
        """The answer, after as many connections as it takes and is allowed; its time is that of all of them."""
        response = self._send(question)
        for number in range(retries):
            error = response.request_meta["exception"]
            if response.status_code or not isinstance(error, _UNANSWERED):
                break
            self._count_retry(error, asked)
            gevent.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**number))
            response = self._send(question)
        response.request_meta["response_time"] = 1e3 * (time.perf_counter() - asked)
        return response

    def _send(self, question: Question) -> ResponseContextManager:
        return self.client.request(
            LOOKUP,
            question.path,
            name=question.name,
            data=question.body,  # type: ignore[arg-type]
            headers=dict(question.headers),
            catch_response=True,
        )

    def _count_retry(self, error: Exception, asked: float) -> None:
        self.environment.events.request.fire(
            request_type=RETRY,
            name=type(error).__name__,
            response_time=1e3 * (time.perf_counter() - asked),
            response_length=0,
            exception=None,
            context={},
        )


def _answer(response: ResponseContextManager) -> Answer:
    """What came; raises WrongAnswer where that is no answer, or not the whole of one."""
    error = response.request_meta["exception"]
    if error is not None and not isinstance(error, LocustBadStatusCode):
        raise WrongAnswer(f"no answer: {type(error).__name__}: {error}")
    headers = {name.lower(): value for name, value in (response.headers or {}).items()}
    return Answer(response.status_code, headers, bytes(response.content or b""))
