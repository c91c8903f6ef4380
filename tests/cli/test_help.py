from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import typer.main

from service import __version__
from service.cli.app import app
from service.cli.common import EXIT_CODES
from service.importers import IMPORTERS
from service.initializers import INITIALIZERS
from service.settings import Settings
from tests.cli.command import command, done

COMMANDS = {
    "serve",
    "import",
    "create",
    "list",
    "show",
    "activate",
    "rollback",
    "label",
    "prune",
    "verify",
    "export",
}


@cache
def help_of(name: str) -> str:
    """What a real process says, asked once."""
    with TemporaryDirectory() as folder:
        return done(Path(folder), name, "--help").out


def options_of(name: str) -> set[str]:
    group = typer.main.get_command(app)
    parameters = group.commands[name].params  # type: ignore[attr-defined]
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def test_the_help_lists_every_command_and_exit_code(tmp_path: Path) -> None:
    text = done(tmp_path, "--help").out
    assert typer.main.get_command(app).commands.keys() == COMMANDS  # type: ignore[attr-defined]
    words = text.split()
    assert set(words) >= COMMANDS
    said = " ".join(words)
    assert all(f"{code} {meaning}" in said for code, meaning in EXIT_CODES.items())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_names_every_option(name: str) -> None:
    text = help_of(name)
    options = {option for option in options_of(name) if option.startswith("--")}
    assert "--store" in options
    assert {option for option in options if option not in text} == set()


def test_serve_has_an_option_for_every_setting_but_the_token() -> None:
    text = help_of("serve")
    settings = {f"--{name.replace('_', '-')}" for name in Settings.model_fields} - {"--admin-token", "--admin-tokens"}
    assert {option for option in settings if option not in text} == set()
    assert settings <= options_of("serve")
    assert "--admin-token" not in text
    assert "EMBEDDING_ADMIN_TOKEN" in text


def test_the_help_names_every_format_and_initializer() -> None:
    words = help_of("import") + help_of("create")
    assert all(name in words for name in (*IMPORTERS, *INITIALIZERS))


def test_help_needs_no_valid_setting_and_makes_no_store(tmp_path: Path) -> None:
    assert command(tmp_path, "list", "--help", EMBEDDING_PORT="none").code == 0
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_that_of_the_distribution(tmp_path: Path) -> None:
    assert done(tmp_path, "--version").out == f"embedding-service {__version__}\n"


def test_without_a_command_the_help_is_shown_and_it_is_wrong_use(tmp_path: Path) -> None:
    ended = command(tmp_path)
    assert ended.code == 2
    assert "Usage" in ended.out + ended.err
