"""The supervisor's part in a conversation: a question of the steward goes to every worker, their answers come back.

It knows nothing of tables. Every question ends: with the last answer, the last worker's death, or its deadline.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.server.control import Channel, Message


@dataclass(slots=True)
class _Question:
    """A question under way: who still owes an answer, until when, whether who is late is killed, and who has died."""

    number: int
    owing: set[int]
    deadline: float
    kill: bool
    died: list[int] = field(default_factory=list)


class Switchboard:
    """All questions under way. `kill` ends the process of a worker, by its number."""

    def __init__(self, kill: Callable[[int], None]) -> None:
        self._kill = kill
        self._steward: Channel | None = None
        self._questions: dict[int, _Question] = {}

    def connect(self, steward: Channel | None, workers: Mapping[int, Channel]) -> None:
        """Talks to a new steward, or to none: what the last had begun, it cannot end, so workers follow the store."""
        if self._questions or steward is None:
            for channel in workers.values():
                channel.send(Message("follow"), wait=False)
        self._questions.clear()
        self._steward = steward

    def ask(self, message: Message, workers: Mapping[int, Channel]) -> None:
        """Passes a question on: `content` has `kind`, `content`, `seconds`, and `kill` for workers that are late."""
        asked = message.content
        question = _Question(message.question, set(workers), time.monotonic() + asked["seconds"], asked["kill"])
        self._questions[question.number] = question
        for channel in workers.values():
            channel.send(Message(asked["kind"], question.number, asked["content"]), wait=False)
        self._end_if_answered(question)

    def answer(self, worker: int, message: Message) -> None:
        """Passes an answer on; one that comes too late is nobody's any more."""
        question = self._questions.get(message.question)
        if question is None or worker not in question.owing:
            return
        self._say(Message("answer", question.number, {"worker": worker, "content": message.content}))
        question.owing.discard(worker)
        self._end_if_answered(question)

    def gone(self, worker: int) -> None:
        """A worker has died, and answers nothing any more."""
        for question in [question for question in self._questions.values() if worker in question.owing]:
            question.owing.discard(worker)
            question.died.append(worker)
            self._end_if_answered(question)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do, by `time.monotonic`."""
        return min((question.deadline for question in self._questions.values()), default=None)

    def expire(self) -> None:
        """Ends the questions that are overdue; those that kill end with the death of who owes them an answer."""
        now = time.monotonic()
        for question in [question for question in self._questions.values() if question.deadline <= now]:
            if question.kill:
                question.deadline = math.inf
                for worker in question.owing:
                    self._kill(worker)
            else:
                self._end(question)

    def _end_if_answered(self, question: _Question) -> None:
        if not question.owing:
            self._end(question)

    def _end(self, question: _Question) -> None:
        del self._questions[question.number]
        self._say(Message("done", question.number, {"silent": sorted(question.owing), "died": question.died}))

    def _say(self, message: Message) -> None:
        if self._steward is not None:
            self._steward.send(message, wait=False)
