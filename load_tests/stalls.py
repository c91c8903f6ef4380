"""The server with a clock in every event loop: `python -m load_tests.stalls FOLDER serve …`.

Each process that runs an event loop writes into FOLDER/<its process id>, eight bytes: by how many seconds, at most, a
timer that is due every millisecond came too late. Whoever measures sets them back to zero.
"""

import asyncio
import mmap
import os
import struct
import sys
from pathlib import Path
from typing import Final

import uvloop

from service.cli import main

_TICK: Final = 0.001  # seconds
_LATENESS: Final = struct.Struct("=d")


def longest(folder: Path, pid: int) -> float:
    """The longest stall of a process since it was last forgotten, in seconds."""
    return float(_LATENESS.unpack((folder / str(pid)).read_bytes())[0])


def forget(folder: Path, pid: int) -> None:
    """Begins anew."""
    with (folder / str(pid)).open("r+b") as file:
        file.write(_LATENESS.pack(0.0))


def _watch(loop: asyncio.AbstractEventLoop, folder: Path) -> None:
    path = folder / str(os.getpid())
    path.write_bytes(_LATENESS.pack(0.0))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), _LATENESS.size)

    def tick(due: float) -> None:
        late = loop.time() - due
        if late > _LATENESS.unpack_from(shared)[0]:
            _LATENESS.pack_into(shared, 0, late)
        following = loop.time() + _TICK
        loop.call_at(following, tick, following)

    loop.call_soon(tick, loop.time())


def _clocked(folder: Path) -> None:
    make = uvloop.new_event_loop

    def new_event_loop() -> uvloop.Loop:
        loop = make()
        _watch(loop, folder)
        return loop

    uvloop.new_event_loop = new_event_loop


if __name__ == "__main__":
    _clocked(Path(sys.argv.pop(1)))
    main()
