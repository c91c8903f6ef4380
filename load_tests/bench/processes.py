"""Servers on a core of their own, and the processor time of all their processes."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""Where modules are imported from: servers are started here."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_QUIET: Final = 0.05  # seconds without work
_PATIENCE: Final = 60.0
_FAREWELL: Final = 10.0
_TOLD: Final = 1500  # characters of a log


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of the servers, and that of the load generator."""

    server: int
    generator: int

    @classmethod
    def here(cls) -> "Cores":
        """The first two that this process may use; raises RuntimeError where there is one."""
        mine = sorted(os.sched_getaffinity(0))
        if len(mine) < 2:
            raise RuntimeError("the servers and the load generator need a core each, and there is one")
        return cls(mine[0], mine[1])


@dataclass(frozen=True, slots=True)
class Server:
    """A server that has been started: its port on the loopback address, its first process, the file with its log."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> float:
        """User and system time so far, of all its processes and of those that have ended."""
        return sum(_spent(pid) for pid in _tree(self.process.pid))

    def until(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds; raises RuntimeError if the server ends before, or a minute has passed."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"exit code {self.process.poll()}; its log ends with: {self.log.read_text()[-_TOLD:]}"
                )
            time.sleep(0.01)

    def quiet(self) -> None:
        """Returns when it has nothing more to do; raises TimeoutError if that takes a minute."""
        deadline = time.monotonic() + _PATIENCE
        before = -1.0
        while (now := self.cpu_seconds()) > before + 1.5 / _TICKS:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server still works {_PATIENCE:.0f} s after the load")
            before = now
            time.sleep(_QUIET)


@contextmanager
def started(
    command: Sequence[str],
    port: int,
    core: int,
    log: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """Starts a server on one core; yields when it accepts connections, and ends its group afterwards.

    Raises RuntimeError with the end of the log if it ends before, or a minute passes.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDDING_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**inherited, **environment},
            start_new_session=True,
        )
    server = Server(port, process, log)
    try:
        server.until(lambda: _accepts(port))
        yield server
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Politely first: some leave shared memory behind if they are killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_FAREWELL)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _tree(root: int) -> list[int]:
    pids = [root]
    for pid in pids:  # grows as it is walked
        pids += _children(pid)
    return pids


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended since
            found += [int(child) for child in task.read_text().split()]
    return found


def _spent(pid: int) -> float:
    """With the time of children that have been waited for: what a process had used is not lost when it ends."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / _TICKS
    return 0.0
