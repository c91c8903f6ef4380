"""`serve`: every setting as an option, and the supervisor."""

import inspect
from typing import Annotated, Any, Final

import typer

from service.cli.common import settings_from
from service.cli.imports import quick_imports
from service.settings import Settings

HTTPX_COMMAND_LINE: Final = "httpx._main"
"""With what it imports, a tenth of all that `serve` imports."""
_NOT_ON_THE_COMMAND_LINE = frozenset({"admin_token", "admin_tokens"})  # other users see the arguments of a process


def register(app: typer.Typer) -> None:
    """Adds the command."""
    serve.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
    app.command(name="serve")(serve)


def serve(**given: object) -> None:
    """Serves the tables of the store over HTTP until Ctrl-C or SIGTERM, which let requests in flight finish.

    Every option is also a setting: --max-ids is EMBEDDING_MAX_IDS. The tokens of the admin API are settings only
    (EMBEDDING_ADMIN_TOKEN, EMBEDDING_ADMIN_TOKENS), because the arguments of a process are visible to others.
    """
    settings = settings_from(**given)
    with quick_imports(HTTPX_COMMAND_LINE):
        from service.server.supervisor import supervise  # noqa: PLC0415  (other commands need no server)
    supervise(settings)


def _parameters() -> list[inspect.Parameter]:
    fields = {name: field for name, field in Settings.model_fields.items() if name not in _NOT_ON_THE_COMMAND_LINE}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_option(name, field.annotation, f"{field.description}  [default: {field.default}]"),
        )
        for name, field in fields.items()
    ]


def _option(name: str, kind: Any, text: str) -> Any:  # noqa: ANN401  (annotations are values here)
    option = typer.Option(f"--{name.replace('_', '-')}", help=text.replace("[default", r"\[default"))
    return Annotated[kind | None, option]
