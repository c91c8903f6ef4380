"""The command line as its users have it: a process of its own, with its own environment and working folder.

It is forked from one that has imported everything already (`zygote.py`); `tests/cli/test_help.py` starts real ones.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from service import npyfile
from service.store import TableStore
from service.types import RowArray, TableVersion

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", "COLUMNS": "200", "USER": "tester"}


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command has left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401  (whatever the command says)
        """What `--json` gave; the command must have worked and complained of nothing."""
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)


@cache
def _zygote() -> subprocess.Popen[str]:
    """Ends with this process, when nobody writes to it any more."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.zygote"],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def command(folder: Path, *arguments: object, **environment: str) -> Ended:
    """Runs one command in `folder`; the store there is `model_store` unless the command says otherwise."""
    zygote = _zygote()
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    with NamedTemporaryFile() as out, NamedTemporaryFile() as err:
        request = {
            "folder": str(folder),
            "arguments": [str(argument) for argument in arguments],
            "environment": ENVIRONMENT | environment,
            "stdin": "/dev/null",
            "stdout": out.name,
            "stderr": err.name,
        }
        zygote.stdin.write(f"{json.dumps(request)}\n")
        zygote.stdin.flush()
        code = json.loads(zygote.stdout.readline())
        return Ended(code, Path(out.name).read_text(), Path(err.name).read_text())


def fresh_command(folder: Path, *arguments: object, **environment: str) -> Ended:
    """The same in a process that imports what it needs by itself."""
    process = subprocess.run(
        [sys.executable, "-m", "service", *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Ended(process.returncode, process.stdout.decode(), process.stderr.decode())


def done(folder: Path, *arguments: object, **environment: str) -> Ended:
    """Runs one command that must work and complain of nothing."""
    ended = command(folder, *arguments, **environment)
    assert (ended.code, ended.err) == (0, "")
    return ended


def default_store(folder: Path) -> TableStore:
    """The store that a command in `folder` uses when it is told of no other."""
    return TableStore(folder / "model_store")


def stored_rows(store: TableStore, name: str, version: int) -> RowArray:
    """The rows of a version, after every byte of it has been checked."""
    chosen = TableVersion(name, version)
    store.verify(chosen)
    return npyfile.map_rows(store.version(chosen).vectors)[1]


def damage(store: TableStore, name: str, version: int) -> None:
    """Flips one bit of the last row."""
    path = store.version(TableVersion(name, version)).vectors
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder; a folder is there with no bytes."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


@contextmanager
def nothing_changes(root: Path) -> Iterator[None]:
    """Holds that what is done inside leaves every byte below a folder as it was."""
    before = contents(root)
    yield
    assert contents(root) == before
