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
from service.opened import OpenedVersions, Target
from service.registry import TableRegistry
from service.settings import Settings
from service.store import TableStore
from service.table import EmbeddingTable

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
        """The answer of a lookup, which is counted as such."""
        self.count(endpoint, table, str(answer.status))
        return answer

    def count(self, endpoint: str, table: str, status: str) -> None:
        """Counts a lookup that is answered: without the name of a table that is not there."""
        known = table if table in self.registry.entries else ""  # bounds the metrics' memory
        self.counters.add("embedding_requests", (known, endpoint, status))

    def problem(self, problem: Problem, error: Exception) -> Answer:
        """The answer to an error, which is logged if it is a fault of ours."""
        return problem(self.told(error))

    def told(self, error: Exception) -> ServiceError:
        """What is told of an error, which is logged if it is a fault of ours."""
        if isinstance(error, OutOfVocabulary):
            self.counters.add("embedding_oov_requests", (error.table.name,))
        return error if isinstance(error, ServiceError) else fault(error)

    async def table(self, target: Target) -> EmbeddingTable:
        """What a request names; raises TableNotFound, VersionNotFound, LabelNotFound, NotReady."""
        return (await self.opened.resolve([target], self.registry.entries))[target]
