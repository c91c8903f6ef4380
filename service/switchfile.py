"""Several tables switched in one step: the file that says so until the `CURRENT` of each of them does.

Its rename into the store's folder is the instant at which all of the switch is in force. Who finds it there after
its writer's death finishes the switch; who reads an active version looks here first.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service import durable
from service.errors import Conflict
from service.manifest import describe
from service.tablefolder import TABLE_NAME

_NAME: Final = ".switch.json"
_Table = Annotated[str, Field(pattern=f"^{TABLE_NAME.pattern}$")]
_Version = Annotated[int, Field(ge=1, lt=10**18)]


class _Switch(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tables: Annotated[dict[_Table, _Version], Field(min_length=1)]


def unfinished(root: Path) -> dict[str, int]:
    """Table to version of a switch that is in force and not yet finished; empty for none. Raises Conflict."""
    try:
        content = (root / _NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Conflict(f"{_NAME} of the store cannot be read: {error.strerror}") from None
    try:
        return _Switch.model_validate_json(content).tables
    except ValidationError as error:
        raise Conflict(f"{_NAME} of the store is damaged: {describe(error)}") from None


def begin(root: Path, tables: dict[str, int]) -> None:
    """Puts the switch in force, on disk when this returns."""
    durable.replace_file(root / _NAME, _Switch(tables=tables).model_dump_json().encode() + b"\n")


def end(root: Path) -> None:
    """Forgets the switch, once every table's own file says the same."""
    (root / _NAME).unlink(missing_ok=True)
    durable.sync_folder(root)
