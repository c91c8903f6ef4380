"""The words that every peer is described with."""

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from load_tests.bench.burst import Burst
from load_tests.bench.data import Data
from load_tests.bench.processes import Server
from load_tests.bench.questions import Questions
from service.types import IdArray, RowArray


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to ask: `request` makes the octets that ask for some ids.

    `right` is told the body of the answer and the rows, shape (ids, dim), and says whether it holds them bit for bit
    (where they are pooled: to seven digits).
    """

    request: Callable[[IdArray], bytes]
    right: Callable[[bytes, RowArray], bool]


@dataclass(frozen=True, slots=True)
class Load:
    """How a peer is asked: one question at a time, and as fast as it answers.

    `ask` takes a port and gives the answer's body; `drive` takes the seconds, and the generator's core.
    """

    missing: Callable[[], str | None]
    ask: Callable[[int, bytes], bytes]
    drive: Callable[[Server, Questions, int, int], Burst]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to be measured. `missing` says why it cannot be, None if it can; `start` takes the server's core."""

    missing: Callable[[], str | None]
    versions: Callable[[], Mapping[str, str]]
    start: Callable[[Data, int], AbstractContextManager[Server]]
    load: Load
    variants: Mapping[str, Variant]


def never() -> None:
    """Nothing can be missing."""


def packages(*names: str) -> dict[str, str]:
    """The versions of packages that are installed beside this one."""
    return {name: importlib.metadata.version(name) for name in names}


def said_by(*command: str) -> str:
    """What a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def not_on_path(program: str) -> str | None:
    """The reason to leave a peer out, None where its program is there."""
    return None if shutil.which(program) else f"{program} is not installed"


def uvicorn(application: str, port: int) -> list[str]:
    """The command that serves an application as fast as uvicorn can."""
    module = f"load_tests.bench.applications.{application}:application"
    command = [sys.executable, "-m", "uvicorn", module, "--port", str(port), "--workers", "1", "--lifespan", "off"]
    return [*command, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--no-server-header"]
