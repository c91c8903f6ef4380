"""`kill -9` in a loop: a publishing process is killed at a random instant, again and again, and the store checked.

    python load_tests/crash_loop.py --rounds 100

Prints one line of figures; ends with 1 on the first store that is not whole, which is then left where it lies.
"""

import argparse
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from service import npyfile
from service.errors import ServiceError
from service.history import Activation
from service.imported import ImportedTable, RowBlock
from service.store import TableStore
from service.types import TableVersion

TABLE: Final = "words"
_DIMENSION: Final = 64
_BLOCK: Final = 1024  # rows
_KEPT: Final = 3  # versions
_MEASURED: Final = 3  # publishes that are let through first, to learn how long one takes
_PATIENCE: Final = 60.0  # seconds until a publish counts as hung

Death = Literal["before", "published", "activated", "finished"]
"""When a publisher died: before its version was there, before it was active, after; or not at all."""


class StoreNotWhole(Exception):
    """A death left the store in a state that it must not be in."""


def rows_of(number: int, rows: int) -> ImportedTable:
    """The table that a publisher publishes: every value is `number`, every token its row."""
    vectors = np.full((_BLOCK, _DIMENSION), number, dtype=np.float32)
    firsts = range(0, rows, _BLOCK)
    blocks = (RowBlock(vectors, [f"token{row}" for row in range(first, first + _BLOCK)]) for first in firsts)
    return ImportedTable(rows, _DIMENSION, blocks, source={"number": number})


def publish(root: Path, number: int, rows: int) -> None:
    """What a publisher does: says that it is about to begin, publishes, activates, says how many seconds it took."""
    print("begin", flush=True)
    begun = time.monotonic()
    TableStore(root).publish(TABLE, rows_of(number, rows), activate=True)
    print(time.monotonic() - begun, flush=True)


@dataclass
class Loop:
    """The rounds, and what they came to."""

    root: Path
    rows: int
    published: int = 0
    deaths: Counter[Death] = field(default_factory=Counter)
    swept: int = 0
    highest: int = 0

    def one_round(self, killed_after: float) -> float:
        """Has one publish killed so many seconds after its beginning, and checks; gives its own time, or NaN."""
        self.published += 1
        before = Seen.of(self.root)
        seconds = self._publish(killed_after)
        after = Seen.of(self.root)
        self.deaths[died(before, after) if math.isnan(seconds) else "finished"] += 1
        self._check(before, after, finished=not math.isnan(seconds))
        return seconds

    def _publish(self, killed_after: float) -> float:
        command = [sys.executable, __file__, "--publish", str(self.published), "--rows", str(self.rows)]
        with subprocess.Popen([*command, str(self.root)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(timeout=killed_after)
            except subprocess.TimeoutExpired:
                process.kill()
            said = process.stdout.read()
        if process.returncode not in (0, -9):
            raise StoreNotWhole(f"round {self.published}: the publisher ended with {process.returncode}")
        return float(said) if said else math.nan

    def _check(self, before: "Seen", after: "Seen", *, finished: bool) -> None:
        new = sorted(after.versions - before.versions)
        self._claim(before.versions <= after.versions, "a version was lost")
        self._claim(len(new) <= 1 and all(version > self.highest for version in new), f"{new} are new versions")
        self._claim(after.active in (before.active, *new), f"version {after.active} is active")
        self._claim(not finished or after.active in new, "a publish that finished is not active")
        self.highest = max(self.highest, *after.versions, 0)
        for version in after.versions:
            self._check_version(version)
        self._check_table(after)

    def _check_version(self, version: int) -> None:
        store, chosen = TableStore(self.root), TableVersion(TABLE, version)
        number = store.verify(chosen).source["number"]
        rows = npyfile.map_rows(store.version(chosen).vectors)[1]
        self._claim(bool((rows == number).all()), f"{chosen} has rows of another")

    def _check_table(self, after: "Seen") -> None:
        store = TableStore(self.root)
        if not after.versions:
            return
        activations = [event for event in store.history(TABLE) if isinstance(event, Activation)]
        last = activations[-1].version if activations else None
        self._claim(last == after.active, f"the history ends with version {last}")
        self.swept += len(store.prune(TABLE, keep=min(_KEPT, len(after.versions))).staging)
        self._claim(not list((self.root / TABLE).glob(".staging-*")), "prune left a staging folder")

    def _claim(self, fact: bool, otherwise: str) -> None:
        if not fact:
            raise StoreNotWhole(f"round {self.published}: {otherwise}")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader sees of the store."""

    versions: frozenset[int]
    active: int | None

    @classmethod
    def of(cls, root: Path) -> "Seen":
        store = TableStore(root)
        if TABLE not in store.tables():
            return cls(frozenset(), None)
        return cls(frozenset(store.versions(TABLE)), store.active_version(TABLE))


def died(before: Seen, after: Seen) -> Death:
    """How far a killed publisher had come."""
    if after.active != before.active:
        return "activated"
    return "published" if after.versions != before.versions else "before"


def crash_loop(root: Path, rounds: int, rows: int, seed: int) -> str:
    """Runs the loop; gives the line of figures. Raises StoreNotWhole, or the error of the store."""
    loop, draw = Loop(root, rows), random.Random(seed)
    longest = min(loop.one_round(_PATIENCE) for _ in range(_MEASURED))
    if loop.deaths != Counter(finished=_MEASURED):
        raise StoreNotWhole(f"a publish that nobody kills did not finish in {_PATIENCE} s")
    loop.deaths.clear()
    for _ in range(rounds):
        loop.one_round(draw.uniform(0, longest))
    size = rows * _DIMENSION * 4 / 2**20
    return (
        f"crash-loop: {rounds} rounds of {size:.1f} MiB, killed within {longest * 1e3:.0f} ms: "
        f"{loop.deaths['before']} died before the version was there, "
        f"{loop.deaths['published']} before it was active, {loop.deaths['activated']} after, "
        f"{loop.deaths['finished']} finished first; {loop.highest} versions published, "
        f"{len(Seen.of(root).versions)} kept, {loop.swept} staging folders swept; every store was whole"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, help="the store's folder; a temporary one if not given")
    parser.add_argument("--rounds", type=int, default=100, help="how many publishers are killed")
    parser.add_argument("--rows", type=int, default=16 * _BLOCK, help=f"of each table; a multiple of {_BLOCK}")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    root = chosen.root or Path(tempfile.mkdtemp(prefix="crash-loop-"))
    if chosen.publish is not None:
        publish(root, chosen.publish, chosen.rows)
        return 0
    try:
        print(crash_loop(root, chosen.rounds, chosen.rows, chosen.seed))
    except (StoreNotWhole, ServiceError, OSError) as error:
        print(f"crash-loop: {error!r}; the store lies in {root}", file=sys.stderr)
        return 1
    if chosen.root is None:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
