"""Who runs where: the server on one core with all its children, the generator as a process of its own on another."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from load_tests.bench.openloop.generator import Load, drive
from load_tests.bench.openloop.records import Record
from load_tests.running import Running, running


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of the server and that of the generator; None where there is only one for both."""

    server: int | None
    generator: int | None

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The first core that this process may use is the server's, the last one the generator's."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1]) if len(allowed) > 1 else cls(None, None)


def pin(core: int | None) -> None:
    """From now on the calling thread, and what it starts, runs on this core only; None leaves it as it is."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started within runs on this core, as with `taskset -c`."""
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def pinned_server(
    store: Path, core: int | None, *options: str, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Running]:
    """`load_tests.running.running`, with the server and all its children on one core."""
    with ExitStack() as stack:
        with pinned(core):
            server = stack.enter_context(running(store, *options, settings=settings))
        yield server


class Generator:
    """Runs loads in a process of its own, one after the other."""

    def __init__(self, process: ProcessPoolExecutor) -> None:
        self._process = process

    def run(self, load: Load) -> list[Record]:
        """What became of the requests, stream by stream; raises what `drive` raises."""
        return self._process.submit(drive, load).result()


@contextmanager
def generating(core: int | None = None) -> Iterator[Generator]:
    """A generator on this core."""
    # Not forked: it shall have nothing of this process but what it imports.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=pin, initargs=(core,)) as process:
        yield Generator(process)
