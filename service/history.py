"""A table's history: every activation and unloading, and every deleted version, so that no number is given twice.

No files.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from service.manifest import describe


def _writable(name: object) -> object:
    """Names of users may hold bytes that are no UTF-8, which Python reads as lone surrogates."""
    return name.encode("utf-8", "replace").decode() if isinstance(name, str) else name


_Name = Annotated[str, BeforeValidator(_writable)]


class Activation(BaseModel):
    """`version` took the place of `previous` (None: the first) at `time`; `by` says who and with what verb."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Annotated[int, Field(ge=1)]
    previous: Annotated[int, Field(ge=1)] | None
    time: AwareDatetime
    by: _Name


class Deletion(BaseModel):
    """Version `deleted` was removed at `time`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    deleted: Annotated[int, Field(ge=1)]
    time: AwareDatetime
    by: _Name


class Unloading(BaseModel):
    """Version `unloaded` was active until `time`; from then on none is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    unloaded: Annotated[int, Field(ge=1)]
    time: AwareDatetime
    by: _Name


Event = Activation | Deletion | Unloading
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def parse(text: str) -> list[Event]:
    """Reads one event per line; raises ValueError that names the line which is not one."""
    # Not splitlines: `by` may hold what Unicode takes for a line end.
    lines = text.removesuffix("\n").split("\n") if text else []
    return [_event(number, line) for number, line in enumerate(lines, 1)]


def _event(number: int, line: str) -> Event:
    try:
        return _EVENT.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"line {number}: {describe(error)}") from None


def dump(events: Sequence[Event]) -> str:
    """One event per line, as `parse` reads them."""
    return "".join(event.model_dump_json() + "\n" for event in events)


def committed(events: Sequence[Event], active: int | None) -> list[Event]:
    """`events` without a last activation or unloading that never came into force.

    Both are written down before they are committed; a crash between the two leaves a last line that says something
    else than what is in force.
    """
    last = next((event for event in reversed(events) if isinstance(event, Activation | Unloading)), None)
    made = last.version if isinstance(last, Activation) else None
    return [event for event in events if event is not last or made == active]


def before(events: Sequence[Event]) -> int | None:
    """What a rollback activates: the version that was active before the one that is; None where there is none.

    Of an unloaded table that is the one that was unloaded; to load a version again is no step of its own.
    """
    changes = [event for event in events if isinstance(event, Activation | Unloading)]
    if changes and isinstance(changes[-1], Unloading):
        return changes[-1].unloaded
    active = latest(events)
    earlier = (each for event in reversed(changes) if isinstance(event, Activation) for each in _around(event))
    return next((version for version in earlier if version is not None and version != active), None)


def _around(event: Activation) -> tuple[int, int | None]:
    return event.version, event.previous


def latest(events: Sequence[Event]) -> int | None:
    """The version of the last activation, which is active unless the table was unloaded."""
    return next((event.version for event in reversed(events) if isinstance(event, Activation)), None)


def highest(events: Sequence[Event]) -> int:
    """The highest version number that the history names; 0 for an empty one."""
    return max(map(_number, events), default=0)


def _number(event: Event) -> int:
    if isinstance(event, Activation):
        return event.version
    return event.deleted if isinstance(event, Deletion) else event.unloaded
