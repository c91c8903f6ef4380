"""A real server process on a free loopback port, for scripts that measure and tests that kill."""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

_T = TypeVar("_T")
_ADDRESS = re.compile(r"at (https?://\S+) with")
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server: its address, its supervisor's process, the file with its log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[int]:
        """Process ids of the workers that are alive."""
        return self._children("embed-worker")

    def steward(self) -> int:
        """Process id of the steward that is alive; raises TimeoutError for none."""
        return until(lambda: next(iter(self._children("embed-steward")), None))

    def processes(self) -> list[int]:
        """Process ids of the supervisor and all its children."""
        return [self.process.pid, *self._children("embed-")]

    def _children(self, name: str) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split() if not _is_zombie(int(pid)) and _name(int(pid)).startswith(name)]

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Signals the supervisor and waits for it; gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def running(
    store: Path,
    *options: str,
    settings: Mapping[str, str] = MappingProxyType({}),
    module: Sequence[str] = ("service",),
    most_data: int | None = None,
) -> Iterator[Running]:
    """Starts `serve` over a store; yields once every worker accepts, and kills what is left at the end.

    `settings` are those that are no options, by their names without the prefix: `{"ADMIN_TOKEN": "secret"}`.
    `module` is what is run, with its own arguments; `most_data` the bytes that each process may have for itself
    (RLIMIT_DATA: what it allocates; of files only what it could write to).
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", *module, "serve", "--store", str(store), "--port", "0", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDDING_")}
        environment |= {f"EMBEDDING_{name}": value for name, value in settings.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
        if most_data is not None:  # before it has any children
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (most_data, most_data))
        try:
            yield Running(_address(process, log), process, log)
        finally:
            _kill_group(process)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    def announced() -> str | None:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        found = _ADDRESS.search(log.read_text())
        return found and found.group(1)

    return until(announced, _START_SECONDS)


def until(condition: Callable[[], _T | None], seconds: float = 30.0) -> _T:
    """The first result of `condition` that is true; raises TimeoutError after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.01)
    raise TimeoutError(f"{condition} was not true within {seconds} s")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Returns when none of its processes is left that could still take a connection."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not alive_in_group(process.pid))


def alive_in_group(group: int) -> list[int]:
    """Process ids of a process group that have not ended."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (fields := _stat(pid)) and int(fields[2]) == group and fields[0] != "Z"]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between opening and reading
        return ""


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] == "Z"


def _stat(pid: int) -> list[str]:
    """What proc(5) tells of a process from its third field on (state, parent, group, ...); nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def resident_bytes(pid: int) -> dict[str, int]:
    """What a process has in memory: its own pages (`RssAnon`) and those of files (`RssFile`)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(size) * 1024 for name, size in re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB$", text, re.MULTILINE)}


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process: its own pages, and its share of those it has in common."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024
