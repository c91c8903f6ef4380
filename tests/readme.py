"""The blocks of README.md and of the pages in `docs/`, run for real: `python -m tests.readme` pastes what they print.

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
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```console\n(.*?)^```$|^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""Commands with what they print, or a Python program and, behind it, its output."""
_CHANGING = (
    (re.compile(r'"seconds":[0-9.e-]+'), '"seconds":0.01'),
    (re.compile(r"\d+\.\d s$", re.MULTILINE), "0.0 s"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"), "2026-01-01T00:00:00"),
    (re.compile(r" by \w+$", re.MULTILINE), " by you"),
    (re.compile(r"'created': \d+"), "'created': 1"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a page, or one program in Python, and what it prints."""

    command: str
    output: str
    is_program: bool = False

    def __str__(self) -> str:
        if self.is_program:
            return f"```python\n{self.command}```\n\n```text\n{self.output}```"
        return f"$ {self.command}\n{self.output}"


def blocks(text: str) -> list[list[Step]]:
    """The blocks of a page, each a list of steps."""
    return [_block(match) for match in _BLOCK.finditer(text)]


def _block(match: re.Match[str]) -> list[Step]:
    console, program, output = match.groups()
    return list(_steps(console)) if program is None else [Step(program, output, is_program=True)]


def _written(block: list[Step]) -> str:
    text = "".join(map(str, block))
    return text if block[0].is_program else f"```console\n{text}```"


def _steps(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield Step(command, output)


def run_all(wanted: list[list[Step]], folder: Path) -> list[list[Step]]:
    """Runs every step; gives the same blocks with what was printed."""
    shutil.copytree(ROOT / "model_store", folder / "model_store", ignore=shutil.ignore_patterns(".*"))
    with running(
        folder / "model_store", "--workers", "2", "--grpc-port", "0", settings={"ADMIN_TOKEN": "secret"}
    ) as server:
        return [[_run(step, folder, server) for step in block] for block in wanted]


def _run(step: Step, folder: Path, server: Running) -> Step:
    port = server.url.rpartition(":")[2]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "COLUMNS": "100"}
    environment |= {"TOKEN": "secret", "ORT_DISABLE_TELEMETRY": "1"}
    command = step.command.replace("localhost:8000", f"127.0.0.1:{port}")
    command = command.replace("localhost:8001", _grpc_address(server))
    call = [sys.executable, "-c", command] if step.is_program else ["bash", "-c", command]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{step.command}\n{done.stderr}"
    printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    return Step(step.command, printed, step.is_program)


def _grpc_address(server: Running) -> str:
    found = re.search(r"over gRPC is at (\S+)", server.log.read_text())
    assert found is not None
    return found.group(1)


def unchanging(text: str) -> str:
    """`text` without what differs from run to run."""
    for pattern, same in _CHANGING:
        text = pattern.sub(same, text)
    return text


def main(folder: Path) -> None:
    """Pastes what the commands print into the pages."""
    texts = [page.read_text() for page in PAGES]
    printed = iter(run_all([block for text in texts for block in blocks(text)], folder))
    for page, text in zip(PAGES, texts, strict=True):
        page.write_text(_BLOCK.sub(lambda _: _written(next(printed)), text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
