"""A request that is ready to be sent, and what its answer must be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from load_tests.locust_users.batch import BoolArray
from load_tests.locust_users.zipf import IdArray

Form = Literal["json", "raw", "v2 json", "v2 binary"]
"""How an answer is written."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """An id outside the table, and its index in what was sent."""

    index: list[int]
    id: int


@dataclass(frozen=True, slots=True)
class Question:
    """A POST. `cells` are the ids of the answer's vectors, of their shape, or with `pooled` of what is pooled.

    `mask` is that of the answer, or where it is pooled that by which it is; `has_mask` says whether the answer tells
    it. With ids `beyond` the table it must be an error that names them.
    """

    name: str
    form: Form
    path: str
    headers: Mapping[str, str]
    body: bytes
    cells: IdArray
    mask: BoolArray
    has_mask: bool
    pooled: bool
    beyond: tuple[Beyond, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answer's vectors, but for the last axis."""
        return self.cells.shape[:-1] if self.pooled else self.cells.shape
