"""`serve`: every setting as an option, and the supervisor."""

import inspect
from typing import Annotated, Any

import typer

from service.cli.common import settings_from
from service.cli.imports import HTTPX_COMMAND_LINE, quick_imports
from service.errors import NoSuchProvider
from service.settings import PREFIX, Settings

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
    settings = _with_providers(settings_from(**given))
    with quick_imports(HTTPX_COMMAND_LINE):
        from service.server import rpc, tls, traces  # noqa: PLC0415  (other commands need no server)
        from service.server.supervisor import supervise  # noqa: PLC0415
    for option, reason in (
        ("grpc-port", rpc.why_not(settings)),
        ("traces-endpoint", traces.why_not(settings)),
        ("tls-certificate", tls.why_not(settings)),
    ):
        if reason is not None:
            setting = PREFIX + option.replace("-", "_").upper()
            raise typer.BadParameter(f"--{option} or {setting}: {reason}")
    supervise(settings)


def _with_providers(settings: Settings) -> Settings:
    """With the execution providers that are there; ends the command for one that is not."""
    if settings.backend != "onnx":
        return settings
    from service.backends.runtime import check_providers  # noqa: PLC0415  (the library is large)

    fetching = settings.fetching()
    try:
        found = check_providers(fetching.providers, fetching.device_id)
    except NoSuchProvider as error:
        raise typer.BadParameter(f"--providers or {PREFIX}PROVIDERS: {error}") from None
    return settings.model_copy(update={"providers": ",".join(found)})


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
