"""What commands share: the store option, settings, exit codes."""

import getpass
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from service.errors import DamagedVersion, InvalidRequest, ServiceError
from service.settings import PREFIX, Settings
from service.store import TableStore

EXIT_CODES: Final[dict[int, str]] = {
    0: "done",
    1: "failed otherwise",
    2: "wrong use or setting",
    3: "no such table, version or label",
    4: "the state of the store forbids it",
    5: "a file or value cannot be taken",
    6: "a version is damaged",
    7: "the disk is full",
}
_BY_CODE: Final = {
    "table_not_found": 3,
    "version_not_found": 3,
    "label_not_found": 3,
    "conflict": 4,
    "invalid_request": 5,
    "insufficient_storage": 7,
}

StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--store", help=rf"Folder of the table store.  \[setting: {PREFIX}STORE; default: model_store]"),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
TableArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TABLE", help="Name of the table.")]


def one_of(choices: Iterable[str]) -> Callable[[str | None], str | None]:
    """A check for an option: its value must be one of these names."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return check


def settings_from(**given: object) -> Settings:
    """Settings from the environment and the options given; ends the command for a wrong one."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise typer.BadParameter("; ".join(_wrong_setting(finding) for finding in error.errors())) from None
    except SettingsError:  # its text may quote a secret
        raise typer.BadParameter(f"{PREFIX}ADMIN_TOKENS: must be a JSON object from owner to token") from None


def _wrong_setting(finding: ErrorDetails) -> str:
    name = str(finding["loc"][0])
    return f"--{name.replace('_', '-')} or {PREFIX}{name.upper()}: {finding['msg'].removeprefix('Value error, ')}"


def store_at(path: Path | None, *, new: bool = False) -> TableStore:
    """The store of a command; only where it may be `new` it need not be there."""
    settings = settings_from(store=path)
    store = TableStore(settings.store, timedelta(seconds=settings.delete_grace_seconds))
    if not new and not store.root.exists():
        raise InvalidRequest(f"there is no store at {store.root}")
    if store.root.exists() and not store.root.is_dir():
        raise InvalidRequest(f"the store {store.root} is not a folder")
    return store


def user() -> str:
    """What the history says of the one who runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"user {os.getuid()}"


def exit_code(error: Exception) -> int:
    """What a command ends with after `error`."""
    if isinstance(error, DamagedVersion):
        return 6
    return _BY_CODE.get(error.code, 1) if isinstance(error, ServiceError) else 1
