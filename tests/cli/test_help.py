import gc
import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import typer.main

from service import __version__
from service.cli.app import application
from service.cli.common import EXIT_CODES
from service.cli.imports import quick_imports
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
    group = typer.main.get_command(application())
    parameters = group.commands[name].params  # type: ignore[attr-defined]
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def test_the_help_lists_every_command_and_exit_code(tmp_path: Path) -> None:
    text = done(tmp_path, "--help").out
    assert typer.main.get_command(application()).commands.keys() == COMMANDS  # type: ignore[attr-defined]
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


IMPORTED = """
import sys
from service.cli.app import application
application(sys.argv[1:])
print(*sorted({".".join(name.split(".")[:3]) for name in sys.modules}))
"""


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["serve", "--port", "1"], {"serve"}),
        (["label", "words"], {"change", "changing", "printing"}),
        (["serv"], {"serve", "import_", "create", "inspect", "change", "export", "changing", "publishing", "printing"}),
        ([], {"serve", "import_", "create", "inspect", "change", "export", "changing", "publishing", "printing"}),
    ],
    ids=["serve", "a command with others in its module", "no command", "no words"],
)
def test_a_command_imports_no_other(words: list[str], modules: set[str]) -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, check=True)
    imported = set(ended.stdout.split())
    own = {name.removeprefix("service.cli.") for name in imported if name.startswith("service.cli.")}
    assert own - {"app", "common", "imports"} == modules
    assert ("httpx" in imported, "rich.console" in imported) == ("changing" in modules, "printing" in modules)


def test_imports_are_quick_and_then_as_they_were() -> None:
    with quick_imports("wave", "json"):
        assert not gc.isenabled()
        assert importlib.import_module("json") is json  # it was there already
        with pytest.raises(ImportError):
            importlib.import_module("wave")
    assert gc.isenabled()
    assert importlib.import_module("wave").open is not None


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
