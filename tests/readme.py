"""The console blocks of README.md, run for real: `python -m tests.readme` pastes what they print.

Commands run in one folder with a copy of the shipped store, in their order, beside one server on it. The server's
port and what differs from run to run are made equal before they are compared.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from load_tests.running import Running, running

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CHANGING = (
    (re.compile(r'"seconds":[0-9.e-]+'), '"seconds":0.01'),
    (re.compile(r"\d+\.\d s$", re.MULTILINE), "0.0 s"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"), "2026-01-01T00:00:00"),
    (re.compile(r" by \w+$", re.MULTILINE), " by you"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the page, and what it prints."""

    command: str
    output: str

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.output}"


def blocks(text: str) -> list[list[Step]]:
    """The console blocks of the page, each a list of steps."""
    return [list(_steps(match.group(1))) for match in _BLOCK.finditer(text)]


def _steps(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield Step(command, output)


def run_all(wanted: list[list[Step]], folder: Path) -> list[list[Step]]:
    """Runs every step; gives the same blocks with what was printed."""
    shutil.copytree(ROOT / "model_store", folder / "model_store", ignore=shutil.ignore_patterns(".*"))
    with running(folder / "model_store", "--workers", "2", settings={"ADMIN_TOKEN": "secret"}) as server:
        return [[_run(step, folder, server) for step in block] for block in wanted]


def _run(step: Step, folder: Path, server: Running) -> Step:
    port = server.url.rpartition(":")[2]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "COLUMNS": "100"}
    environment |= {"TOKEN": "secret", "ORT_DISABLE_TELEMETRY": "1"}
    command = step.command.replace("localhost:8000", f"127.0.0.1:{port}")
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{step.command}\n{done.stderr}"
    printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    return Step(step.command, printed)


def unchanging(text: str) -> str:
    """`text` without what differs from run to run."""
    for pattern, same in _CHANGING:
        text = pattern.sub(same, text)
    return text


def main(folder: Path) -> None:
    """Pastes what the commands print into the page."""
    text = README.read_text()
    printed = iter(run_all(blocks(text), folder))
    README.write_text(_BLOCK.sub(lambda _: "```console\n" + "".join(map(str, next(printed))) + "```", text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
