"""Whether an answer is what its question asked for, to the last bit."""

import re
from typing import Final

import numpy as np
import orjson

from load_tests.locust_users.in_force import InForce
from load_tests.locust_users.known_rows import KnownRows
from load_tests.locust_users.question import Question
from load_tests.locust_users.table import Table
from load_tests.locust_users.told import Answer, Told, WrongAnswer, read

_STATUS_OOV: Final = {"json": 422, "raw": 422, "v2 json": 400, "v2 binary": 400}
_VERSION: Final = re.compile(r" version (\d+), which has ")


class Checker:
    """Of the answers about one table, in one process."""

    def __init__(self, table: Table, lag: float) -> None:
        self._table = table
        self._known = KnownRows(table.num_embeddings, table.embedding_dim)
        self.in_force = InForce(lag)

    def check(self, question: Question, answer: Answer, asked: float) -> None:
        """Raises WrongAnswer; `asked` is when the question was sent, by `time.perf_counter`."""
        version = self._beyond(question, answer) if question.beyond else self._within(question, answer)
        if not self.in_force.allows(version, asked):
            raise WrongAnswer("of a version that was not in force")

    def _within(self, question: Question, answer: Answer) -> int:
        if answer.status != 200:
            raise WrongAnswer(f"{answer.status} {_code(answer)}")
        told = read(question.form, answer)
        self._check_frame(question, told)
        if question.pooled:
            mask = question.mask.astype(np.float32)
            self._known.check_means(told.version, question.cells, mask, told.vectors)
        else:
            self._known.check_rows(told.version, question.cells, told.vectors)
        return told.version

    def _check_frame(self, question: Question, told: Told) -> None:
        if told.table != self._table.name:
            raise WrongAnswer("of another table")
        if told.vectors.shape != (*question.shape, self._table.embedding_dim):
            raise WrongAnswer("of another shape")
        if (told.mask is not None) != question.has_mask:
            raise WrongAnswer("with a mask where there is none, or without one")
        if told.mask is not None and not np.array_equal(told.mask, question.mask):
            raise WrongAnswer("with another mask")

    def _beyond(self, question: Question, answer: Answer) -> int:
        if answer.status != _STATUS_OOV[question.form]:
            raise WrongAnswer(f"ids outside the table: {answer.status} {_code(answer)}")
        said = orjson.loads(answer.body)
        version = _version_in(said) if question.form.startswith("v2") else int(said["version"])
        expected = self._text(question, version) if question.form.startswith("v2") else self._problem(question, version)
        if {name: said.get(name) for name in expected} != expected:
            raise WrongAnswer("ids outside the table: not named as they are")
        return version

    def _problem(self, question: Question, version: int) -> dict[str, object]:
        return {
            "code": "out_of_vocabulary",
            "status": 422,
            "table": self._table.name,
            "version": version,
            "num_embeddings": self._table.num_embeddings,
            "total": len(question.beyond),
            "errors": [{"index": each.index, "id": each.id} for each in question.beyond],
        }

    def _text(self, question: Question, version: int) -> dict[str, object]:
        """The Open Inference Protocol has one text."""
        listed = [f"id {each.id} at {each.index}" for each in question.beyond]
        where = (
            f"in table {self._table.name} version {version}, which has the ids 0 to {self._table.num_embeddings - 1}"
        )
        one = f"{listed[0]} is not {where}"
        return {"error": one if len(listed) == 1 else f"{len(listed)} are not {where}: {', '.join(listed)}"}


def _version_in(said: dict[str, object]) -> int:
    found = _VERSION.search(str(said.get("error")))
    if found is None:
        raise WrongAnswer("ids outside the table: another error")
    return int(found[1])


def _code(answer: Answer) -> str:
    """What an error calls itself, as far as it does."""
    try:
        said = orjson.loads(answer.body)
        return str(said.get("code", said.get("error", "")))
    except (orjson.JSONDecodeError, AttributeError):
        return "without a code"
