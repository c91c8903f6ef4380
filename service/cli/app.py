"""All commands joined, and their errors turned into one line and an exit code."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

import typer

from service import __version__
from service.cli.common import EXIT_CODES, exit_code
from service.cli.imports import HTTPX_COMMAND_LINE, quick_imports
from service.errors import ServiceError

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "service.cli.serve",
    "import": "service.cli.import_",
    "create": "service.cli.create",
    **dict.fromkeys(("list", "show", "verify"), "service.cli.inspect"),
    **dict.fromkeys(("activate", "rollback", "label", "prune"), "service.cli.change"),
    "export": "service.cli.export",
}
"""Every command, and the module that has it and is imported for it."""
_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embedding-service {__version__}")
        raise typer.Exit


def _options(
    _: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and end."),
) -> None:
    """Serves trained embedding tables: token ids in, vectors and masks out."""


def application(words: Sequence[str] = ()) -> typer.Typer:
    """All commands; where `words` begin with one of them, those of its module only, so that no other is imported."""
    app = typer.Typer(
        name="embedding-service",
        help="Serves trained embedding tables: token ids in, vectors and masks out.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    named = COMMANDS.get(words[0]) if words else None
    for module in [named] if named else dict.fromkeys(COMMANDS.values()):
        import_module(module).register(app)
    return app


def run() -> None:
    """Runs the command that the process was started with, and ends the process with its exit code."""
    try:
        with quick_imports(HTTPX_COMMAND_LINE):
            app = application(sys.argv[1:])
        app()
    except (ServiceError, OSError) as error:
        _complain(error)
        sys.exit(exit_code(error))
    except MemoryError:
        _complain(MemoryError("this does not fit into memory"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(error: Exception) -> None:
    from service.cli.printing import complain  # noqa: PLC0415  (a server that starts has nothing to print)

    complain(error)
