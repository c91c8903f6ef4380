"""What the endpoints of one process work with, whatever protocol they speak, and how they count and tell of errors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from service.api.admission import Admission
from service.api.answer import Answer
from service.api.errors import fault
from service.api.limits import Limits
from service.errors import OutOfVocabulary, ServiceError
from service.metrics import Counters
from service.opened import OpenedVersions
from service.registry import TableRegistry
from service.settings import Settings
from service.store import TableStore

Problem: TypeAlias = Callable[[ServiceError], Answer]
"""How a protocol tells of an error."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the endpoints of one process work with."""

    settings: Settings
    limits: Limits
    registry: TableRegistry
    opened: OpenedVersions
    store: TableStore
    counters: Counters
    admission: Admission

    def counted(self, endpoint: str, table: str, answer: Answer) -> Answer:
        """The answer of a lookup, which is counted as such: without the name of a table that is not there."""
        known = table if table in self.registry.entries else ""  # bounds the metrics' memory
        self.counters.add("embedding_requests", (known, endpoint, str(answer.status)))
        return answer

    def problem(self, problem: Problem, error: Exception) -> Answer:
        """The answer to an error, which is logged if it is a fault of ours."""
        if isinstance(error, OutOfVocabulary):
            self.counters.add("embedding_oov_requests", (error.table.name,))
        return problem(error if isinstance(error, ServiceError) else fault(error))
