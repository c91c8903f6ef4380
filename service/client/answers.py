"""What a client gives back, as immutable values. Fields that a newer service adds are left out."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar, get_args

from service.types import MaskArray, OovRule, VectorArray


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """One answer. The arrays cannot be written to; `.copy()` makes one that can.

    `vectors` is float32 or float16 with the axes of the ids and one more. `mask` has the axes of the ids, padded as
    the vectors are, and is false where a position is padding; None when pooled.
    """

    vectors: VectorArray
    mask: MaskArray | None
    table: str
    version: int


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table, or one version of it, as the server knows it; numbers of a version that cannot be read are None."""

    name: str
    version: int | None
    active_version: int | None
    num_embeddings: int | None
    embedding_dim: int | None
    dtype: str | None
    padding_id: int | None
    unk_id: int | None
    on_oov: OovRule | None
    has_vocabulary: bool | None
    backend: str
    state: str
    reason: str | None
    source: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A table that should be served and is not."""

    table: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether every table with an active version is served; true and false as a condition."""

    ready: bool
    missing: tuple[Missing, ...]

    def __bool__(self) -> bool:
        return self.ready


@dataclass(frozen=True, slots=True)
class Published:
    """A new version, and whether it is served."""

    table: str
    version: int
    active: bool


@dataclass(frozen=True, slots=True)
class Activation:
    """A switch that all workers have made."""

    table: str
    previous_version: int | None
    active_version: int
    workers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Switch:
    """The switch of one table among several."""

    table: str
    previous_version: int | None
    active_version: int


@dataclass(frozen=True, slots=True)
class Activations:
    """Switches that all workers have made together."""

    tables: tuple[Switch, ...]
    workers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Label:
    """What a label names."""

    table: str
    label: str
    version: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """The versions that were removed, and what killed processes had left."""

    table: str
    removed: tuple[int, ...]
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker serves of a table."""

    worker: int
    process: int | None
    state: str
    version: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """A version in the store; what its manifest says is None where that cannot be read, for `reason`."""

    version: int
    active: bool
    labels: tuple[str, ...]
    num_embeddings: int | None
    embedding_dim: int | None
    dtype: str | None
    has_vocabulary: bool | None
    bytes: int | None
    created: str | None
    source: Mapping[str, Any] | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of a table's history: an activation, a deletion or an unloading, when and by whom."""

    event: str
    version: int
    previous_version: int | None
    time: str
    by: str


@dataclass(frozen=True, slots=True)
class TableDetail:
    """A table in the store and in every worker."""

    table: str
    active_version: int | None
    versions: tuple[Version, ...]
    labels: Mapping[str, int]
    history: tuple[Event, ...]
    workers: tuple[Worker, ...]


@dataclass(frozen=True, slots=True)
class TableLine:
    """One table of several; `reason` says why the store's files of it cannot be read."""

    table: str
    active_version: int | None
    versions: tuple[int, ...]
    labels: Mapping[str, int]
    workers: tuple[Worker, ...]
    reason: str | None


_T = TypeVar("_T")
_ITEMS: dict[str, dict[type, type]] = {
    "missing": {Readiness: Missing},
    "tables": {Activations: Switch},
    "versions": {TableDetail: Version},
    "history": {TableDetail: Event},
    "workers": {TableDetail: Worker, TableLine: Worker},
}
"""Fields that hold lists of values, and of which kind these are in which value."""


def value_of(kind: type[_T], content: object) -> _T:
    """A value of `kind` from the JSON object that tells of it; what that leaves out is None.

    Raises TypeError where it is none, ValueError where it leaves out what is never None.
    """
    if not isinstance(content, dict):
        raise TypeError(f"{content!r:.50} is no {kind.__name__}")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # all kinds here are dataclasses
    if missing := [name for name in _needed(kind) if content.get(name) is None]:  # type: ignore[arg-type]
        raise ValueError(f"no {', '.join(missing)}")
    return kind(**{name: _member(kind, name, content.get(name)) for name in names})


def values_of(kind: type[_T], content: object) -> list[_T]:
    """The values of a JSON list; raises TypeError, ValueError."""
    if not isinstance(content, list):
        raise TypeError(f"{content!r:.50} is no list")
    return [value_of(kind, each) for each in content]


@lru_cache
def _needed(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if NoneType not in get_args(field.type))


def _member(kind: type, name: str, value: object) -> object:
    item = _ITEMS.get(name, {}).get(kind)
    if item is not None:
        return tuple(values_of(item, value))
    return tuple(value) if isinstance(value, list) else value
