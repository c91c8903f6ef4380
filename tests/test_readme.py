"""The README and the pages in `docs/` are true: their commands run and print what they show, and name all there is."""

import re
from pathlib import Path

import pytest

from service.api.errors import KINDS
from service.cli.app import COMMANDS
from service.importers import IMPORTERS
from service.settings import PREFIX, Settings
from tests.readme import PAGES, README, blocks, run_all, unchanging
from tests.world import service_over

TEXT = README.read_text()
PAGES_TEXT = "\n".join(page.read_text() for page in PAGES)


def test_every_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    shown = [block for page in PAGES for block in blocks(page.read_text())]
    assert sum(map(len, shown)) > 10
    for was, now in zip(shown, run_all(shown, tmp_path), strict=True):
        assert unchanging("".join(map(str, now))) == unchanging("".join(map(str, was)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_waits_for_what_was_to_come(page: Path) -> None:
    assert re.findall(r"^\s*([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\s*$", page.read_text(), re.MULTILINE) == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_named_with_its_default(name: str) -> None:
    assert f"`{PREFIX}{name.upper()}`" in TEXT


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_named(name: str) -> None:
    assert re.search(rf"`embedding-service {name}\b|`{name} ", TEXT)


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_format_is_named(name: str) -> None:
    assert f"| `{name}` |" in TEXT


def test_every_route_is_named(tmp_path: Path) -> None:
    service, _ = service_over(tmp_path)
    for path in service.behind.openapi()["paths"]:
        assert path.replace("{version}", "{n}") in PAGES_TEXT, path


def test_every_page_is_named() -> None:
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in TEXT


def test_every_code_is_named() -> None:
    for code in KINDS:
        assert f"`{code}`" in TEXT, code
