"""What the endpoints of one process work with, whatever protocol they speak, and how they count and tell of errors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from service.api.admission import Admission
from service.api.answer import Answer
from service.api.errors import fault
from service.api.limits import Limits
from service.api.meter import Meter
from service.errors import ServiceError
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
    meter: Meter
    admission: Admission

    def problem(self, problem: Problem, error: Exception) -> Answer:
        """The answer to an error, which is logged if it is a fault of ours."""
        return problem(self.told(error))

    def told(self, error: Exception) -> ServiceError:
        """What is told of an error, which is logged if it is a fault of ours."""
        self.meter.told(error)
        return error if isinstance(error, ServiceError) else fault(error)

    async def table(self, target: Target) -> EmbeddingTable:
        """What a request names; raises TableNotFound, VersionNotFound, LabelNotFound, NotReady."""
        return (await self.opened.resolve([target], self.registry.entries))[target]
