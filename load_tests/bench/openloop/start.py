"""From the start of the process to the first answer, with a large table: `python -m load_tests.bench.openloop.start`.

With the table's pages in memory, and with none of them. `--imports` tells what Python itself takes of that.
"""

import argparse
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from load_tests.bench import wire
from load_tests.bench.data import DIM, TABLE
from load_tests.bench.openloop.world import Kind, requests_of
from load_tests.bench.processes import free_port
from load_tests.bench.row import Row, all_kept, table
from load_tests.swap_latency import publish
from service.store import TableStore

AT_MOST: Final = 1.5
AIM: Final = 0.7
_IMPORTED: Final = """
from service.cli.imports import quick_imports
from service.cli.imports import HTTPX_COMMAND_LINE
with quick_imports(HTTPX_COMMAND_LINE):
    import service.cli.app, service.server.supervisor
"""
_IMPORT_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")
_PATIENCE: Final = 120.0
_POLL: Final = 0.001
_READ_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Imported:
    """One module: seconds of its own, and with all that it imports."""

    name: str
    own: float
    total: float


@dataclass(frozen=True, slots=True)
class Starts:
    """Seconds from the start of the process to the first answer, and those that the imports alone take."""

    gigabytes: float
    warm: tuple[float, ...]
    cold: tuple[float, ...]
    imports: tuple[float, ...]


def write_table(store: Path, table_rows: int) -> Path:
    """A table of equal numbers, 512 bytes a row; gives the file with its rows."""
    publish(TableStore(store), TABLE, table_rows, DIM, 1.0, activate=True)
    return next(store.glob(f"{TABLE}/*/vectors.npy"))


def warm_up(file: Path) -> None:
    """Reads it, so that the page cache has it."""
    with file.open("rb", buffering=0) as stream:
        while stream.read(_READ_BYTES):
            pass


def drop(file: Path) -> None:
    """The page cache has nothing of it any more; nobody may have it mapped."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def first_answer(store: Path, request: bytes, port: int) -> float:
    """Seconds from starting `serve` to the first 200; raises RuntimeError if it ends, TimeoutError if it is mute."""
    begun = time.perf_counter()
    with _serving(store, port) as process:
        while not _answers(port, request):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            if time.perf_counter() > begun + _PATIENCE:
                raise TimeoutError(f"no answer within {_PATIENCE:.0f} s")
            time.sleep(_POLL)
        return time.perf_counter() - begun


@contextmanager
def _serving(store: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in _environment().items() if not name.startswith("EMBEDDING_")}
    process = subprocess.Popen(
        [*_command(), "serve", "--store", str(store), "--port", str(port), "--log-level", "error"],
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    """In which Python keeps what it has compiled, as an installed package has it: without, every start compiles."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _command() -> list[str]:
    installed = Path(sys.executable).with_name("embedding-service")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "service"]


def _answers(port: int, request: bytes) -> bool:
    """False while nobody listens yet, and while the table is not ready."""
    try:
        wire.ask_http(port, request)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def import_seconds() -> float:
    """Of a Python that imports what `serve` imports, and ends."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORTED], check=True, env=_environment())
    return time.perf_counter() - begun


def slowest_imports(count: int = 25) -> list[Imported]:
    """The modules that take longest with all that they import, by `python -X importtime`."""
    command = [sys.executable, "-X", "importtime", "-c", _IMPORTED]
    done = subprocess.run(command, check=True, capture_output=True, env=_environment())
    modules = [
        Imported(name, int(own) / 1e6, int(total) / 1e6)
        for own, total, _, name in _IMPORT_LINE.findall(done.stderr.decode())
    ]
    return sorted(modules, key=lambda module: -module.total)[:count]


def measure(megabytes: int = 3072, starts: int = 5, folder: Path | None = None) -> Starts:
    """So many starts of each kind over one table; it is written to a folder of its own in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        store, table_rows = Path(name) / "store", (megabytes << 20) // (4 * DIM)
        file = write_table(store, table_rows)
        (request, *_) = requests_of(Kind(64, "raw", "uniform"), table_rows)
        warm, cold = (_timed(store, request, starts, partial(prepare, file)) for prepare in (warm_up, drop))
        gigabytes = file.stat().st_size / 1e9
    return Starts(gigabytes, warm, cold, tuple(import_seconds() for _ in range(starts)))


def _timed(store: Path, request: bytes, count: int, prepare: Callable[[], None]) -> tuple[float, ...]:
    times = []
    for _ in range(count):
        prepare()
        times.append(first_answer(store, request, free_port()))
    return tuple(times)


def rows(starts: Starts, at_most: float = AT_MOST) -> list[Row]:
    """The promise for warm pages; the others are told."""
    what = f"{starts.gigabytes:.1f} GB table: process start to first answer, {{}}, s"
    return [
        Row(what.format("warm page cache"), statistics.median(starts.warm), at_most=at_most, aim=AIM),
        Row(what.format("cold page cache"), statistics.median(starts.cold)),
        Row("of that, Python and the imports alone, s", statistics.median(starts.imports)),
    ]


def show(starts: Starts) -> None:
    """Prints all starts."""
    for what, times in (("warm", starts.warm), ("cold", starts.cold), ("imports", starts.imports)):
        print(f"{what:8}" + "".join(f"{seconds:7.2f}" for seconds in times) + " s")


def show_imports() -> None:
    """Prints the slowest imports."""
    print(f"{'own ms':>8}{'total ms':>10}")
    for module in slowest_imports():
        print(f"{module.own * 1e3:8.1f}{module.total * 1e3:10.1f}  {module.name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs it; ends with 1 if the promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=3072)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the table is written; default: that of temporary files")
    parser.add_argument("--imports", action="store_true", help="tell the slowest imports, too")
    parser.add_argument("--at-most", type=float, default=AT_MOST, help="seconds that are promised")
    given = parser.parse_args(arguments)
    starts = measure(given.megabytes, given.starts, given.folder)
    show(starts)
    if given.imports:
        show_imports()
    joined = rows(starts, given.at_most)
    print(table(joined))
    sys.exit(0 if all_kept(joined) else 1)


if __name__ == "__main__":
    main()
