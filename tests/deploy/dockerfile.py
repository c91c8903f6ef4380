"""The Dockerfile as instructions in their stages."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.deploy.shared import ROOT

FILE: Final = ROOT / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: where it stands, its word, and what is behind that."""

    stage: str
    word: str
    rest: str


@cache
def instructions() -> tuple[Instruction, ...]:
    """All of them, in their order; those before the first stage have the stage ''."""
    return tuple(_read(FILE.read_text()))


def _read(text: str) -> Iterator[Instruction]:
    stage = ""
    whole = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    for line in filter(None, whole.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.partition(" AS ")[2]
        yield Instruction(stage, word, rest.strip())


def said(word: str, stage: str | None = None) -> list[str]:
    """What stands behind this word, in one stage or in all."""
    return [each.rest for each in instructions() if each.word == word and stage in (None, each.stage)]


def stages() -> dict[str, str]:
    """Every stage, and what it is made from."""
    return {name: origin for origin, _, name in (rest.partition(" AS ") for rest in said("FROM"))}


def environment(stage: str) -> dict[str, str]:
    """What a stage says by ENV."""
    pairs = (pair.partition("=") for rest in said("ENV", stage) for pair in shlex.split(rest))
    return {name: value for name, _, value in pairs}
