"""Tables are swapped, again and again, while clients look up all the time: nobody may notice but by the version.

    python -m load_tests.swap --swaps 1000 --connections 16 --workers 2

Half of the swaps are of one table, among them rollbacks, half of a pair of tables that change together; versions
differ in contents, rows and dimension. Every answer is checked. Prints the figures; ends with 1 if a request failed,
an answer mixed versions, a request that was sent after an activation had returned got an older one, or the
processes hold more memory, files or mappings than before.
"""

import argparse
import math
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import httpx

from load_tests.checked_lookups import (
    BUSY,
    CALM,
    PAIR,
    SHAPES,
    Activations,
    Group,
    Load,
    Shared,
    Tally,
    group_of,
    load,
    table_of,
)
from load_tests.running import Running, pss_bytes, running, until
from service.backends import BACKENDS
from service.store import TableStore

TOKEN: Final = "swap-token"
MOST_GROWTH: Final = 0.05  # of memory, open files and mappings
MOST_SECONDS: Final = 1.0  # until a version that is out of force is unmapped in every worker
_CLIENTS: Final = 2  # processes
_SPELL: Final = 10  # swaps, after which the clients change between calm and busy
_ROLLBACKS: Final = 0.25  # of the swaps of one table
_FIRST: Final[Mapping[Group, int]] = {"words": 1, "pair": 1}
_MAPPED: Final = re.compile(r"/([^/\s]+/[^/\s]+)/vectors\.npy")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What all processes of a server hold together: bytes of memory and of PSS, open files, lines of their maps.

    `memory` is the PSS without mapped files. The rest, mostly libraries, is also divided among processes that are
    not the server's, and changes with every other Python that begins or ends.
    """

    memory: int
    whole: int
    files: int
    maps: int

    @classmethod
    def of(cls, server: Running) -> "Footprint":
        """As soon as two looks agree on the number of files: connections that were closed are let go of."""
        seen: list[Footprint] = []

        def settled() -> bool:
            seen.append(cls._look(server))
            return len(seen) > 2 and len({look.files for look in seen[-3:]}) == 1

        until(settled)
        return seen[-1]

    @classmethod
    def _look(cls, server: Running) -> "Footprint":
        folders = [Path(f"/proc/{pid}") for pid in server.processes()]
        return cls(
            sum(_own_bytes(folder) for folder in folders),
            sum(pss_bytes(int(folder.name)) for folder in folders),
            sum(len(list((folder / "fd").iterdir())) for folder in folders),
            sum(len((folder / "maps").read_text().splitlines()) for folder in folders),
        )

    def growth(self, before: "Footprint") -> dict[str, float]:
        """By what part of it every figure has grown since `before`."""
        names = [each.name for each in fields(self)]
        return {name: getattr(self, name) / getattr(before, name) - 1 for name in names}


def _own_bytes(process: Path) -> int:
    found = re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB$", (process / "smaps_rollup").read_text(), re.MULTILINE)
    return sum(map(int, found)) * 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it; `seconds` are those of every swap, `unmapped` those until the last old version was gone."""

    seconds: list[float]
    rollbacks: int
    pairs: int
    tally: Tally
    before: Footprint
    after: Footprint
    unmapped: float

    def broken(self, *, alone: bool = False) -> list[str]:
        """The promises that were not kept; that of the whole PSS only where the server is `alone` on the machine."""
        tally = self.tally
        claims = {
            "there were no answers to check": tally.requests > len(self.seconds) and tally.out_of_vocabulary > 0,
            f"{tally.failed} requests failed": tally.failed == 0,
            f"{tally.mixed} answers were not of one version": tally.mixed == 0,
            f"{tally.old} answers were of a version out of force": tally.old == 0,
            f"the old version was mapped for {self.unmapped:.2f} s": self.unmapped <= MOST_SECONDS,
        }
        growth = self.after.growth(self.before)
        judged = ("memory", "files", "maps", *(["whole"] if alone else []))
        claims |= {f"{name} grew by {growth[name]:.1%}": growth[name] <= MOST_GROWTH for name in judged}
        return [*(claim for claim, kept in claims.items() if not kept), *tally.examples]

    def lines(self) -> list[str]:
        """A table to read."""
        swap = sorted(self.seconds)
        tally = self.tally
        counts = {
            "swaps": f"{len(swap):,} ({self.pairs:,} of the pair, {self.rollbacks:,} rollbacks)",
            "requests": f"{tally.requests:,} ({tally.binary:,} binary, {tally.together:,} of two tables)",
            "failed": f"{tally.failed:,}",
            "mixed": f"{tally.mixed:,}",
            "old": f"{tally.old:,}",
            "out of vocabulary": f"{tally.out_of_vocabulary:,} answers, all checked",
            "a swap, median": f"{statistics.median(swap) * 1e3:.1f} ms",
            "a swap, p99": f"{swap[int(len(swap) * 0.99)] * 1e3:.1f} ms",
            "a swap, longest": f"{swap[-1] * 1e3:.1f} ms",
            "last old version unmapped": f"after {self.unmapped * 1e3:.1f} ms",
        }
        growth = self.after.growth(self.before)
        for name, scale, unit in (("memory", 1e6, " MB"), ("whole", 1e6, " MB PSS"), ("files", 1, ""), ("maps", 1, "")):
            before, after = (getattr(each, name) / scale for each in (self.before, self.after))
            digits = 1 if unit else 0
            counts[f"{name} of all processes"] = (
                f"{before:.{digits}f} -> {after:.{digits}f}{unit} ({growth[name]:+.1%})"
            )
        return [f"{name:26}{value}" for name, value in counts.items()]


def mapped_versions(pid: int, store: Path) -> set[str]:
    """The folders of a store, as `words/3`, whose rows a process has mapped."""
    lines = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if str(store) in line]
    return {found[1] for found in map(_MAPPED.search, lines) if found}


def seconds_until_only(server: Running, store: Path, versions: set[str]) -> float:
    """How long it takes until no worker has other versions mapped than these; infinity if it takes too long."""
    started = time.monotonic()
    with suppress(TimeoutError):
        until(lambda: all(mapped_versions(pid, store) == versions for pid in server.workers()))
        return time.monotonic() - started
    return math.inf


class SwapFailed(Exception):
    """An activation was refused, or its answer is not true."""


class Swapper:
    """Activates versions through the admin API, and tells the clients before and after."""

    def __init__(self, server: Running, activations: Mapping[Group, Activations]) -> None:
        self._client = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)
        self._workers = len(server.workers())
        self._activations = activations
        self._draw = random.Random(0)
        self._current = dict(_FIRST)
        self._previous: int | None = None
        self.seconds: list[float] = []
        self.rollbacks = self.pairs = 0

    def close(self) -> None:
        """Ends its connection."""
        self._client.close()

    def in_force(self) -> set[str]:
        """The versions of all tables that the last swaps have activated, as `words/3`."""
        return {f"{table}/{self._current[group_of(table)]}" for table in SHAPES}

    def swap(self, number: int) -> None:
        """One swap to another version than that in force: of the pair, or of one table, to and fro."""
        if number % 2:
            self._swap_pair(self._other("pair", "user"))
        elif self._previous is not None and self._draw.random() < _ROLLBACKS:
            self._swap_words(self._previous, "rollback", None)
            self.rollbacks += 1
        else:
            version = self._other("words", "words")
            self._swap_words(version, "activate", {"version": version})

    def swap_to_all(self) -> None:
        """Every version of every table once, the first ones last."""
        for version in (*range(2, len(SHAPES["words"]) + 1), 1):
            self._swap_words(version, "activate", {"version": version})
        for version in (*range(2, len(SHAPES["user"]) + 1), 1):
            self._swap_pair(version)

    def swap_back(self) -> None:
        """To the first version of every table."""
        self._swap_words(1, "activate", {"version": 1})
        self._swap_pair(1)

    def forget(self) -> None:
        """Counts from here."""
        self.seconds, self.rollbacks, self.pairs = [], 0, 0

    def _other(self, group: Group, table: str) -> int:
        versions = range(1, len(SHAPES[table]) + 1)
        return self._draw.choice([version for version in versions if version != self._current[group]])

    def _swap_words(self, version: int, verb: str, body: Mapping[str, int] | None) -> None:
        said = self._ask("words", version, f"/v1/admin/tables/words/{verb}", body)
        expected = (self._current["words"], version)
        _claim((said["previous_version"], said["active_version"]) == expected, said)
        self._previous, self._current["words"] = expected

    def _swap_pair(self, version: int) -> None:
        said = self._ask("pair", version, "/v1/admin/activate", {"tables": dict.fromkeys(PAIR, version)})
        changes = {(each["table"], each["previous_version"], each["active_version"]) for each in said["tables"]}
        _claim(changes == {(table, self._current["pair"], version) for table in PAIR}, said)
        self._current["pair"] = version
        self.pairs += 1

    def _ask(self, group: Group, version: int, path: str, body: object) -> dict[str, Any]:
        activations = self._activations[group]
        activations.begin(version)
        started = time.perf_counter()
        answer = self._client.post(path, json=body) if body is not None else self._client.post(path)
        activations.returned()
        self.seconds.append(time.perf_counter() - started)
        _claim(answer.status_code == 200, answer.text)
        said = answer.json()
        _claim(said["workers"] == self._workers, said)
        return dict(said)


def _claim(fact: bool, said: object) -> None:
    if not fact:
        raise SwapFailed(str(said))


def publish_all(store: TableStore) -> None:
    """All versions of all tables; the first are in force."""
    for table, shapes in SHAPES.items():
        for version in range(1, len(shapes) + 1):
            store.publish(table, table_of(table, version), activate=version == 1)


def measure(
    folder: Path,
    swaps: int,
    connections: int,
    workers: int,
    backend: str = "numpy",
    tell: Callable[[str], None] = lambda _: None,
) -> Figures:
    """Publishes the tables, serves them, swaps and checks. Raises SwapFailed."""
    store = TableStore(folder / "store")
    publish_all(store)
    warming = max(1, swaps // 100)
    most = swaps + warming * (len(SHAPES["words"]) + len(SHAPES["user"])) + len(SHAPES["words"]) + 2
    shared = Shared(connections, most, _FIRST)
    with (
        running(store.root, "--workers", str(workers), "--backend", backend, settings={"ADMIN_TOKEN": TOKEN}) as server,
        load(server.url, shared, _CLIENTS) as clients,
    ):
        swapper = Swapper(server, shared.activations)
        for _ in range(warming):
            swapper.swap_to_all()
        figures = _swap(server, store.root, clients, swapper, swaps, tell)
        swapper.close()
        _claim(server.stop() == 0, "the server did not end as it should")
    return figures


def _swap(
    server: Running, store: Path, clients: Load, swapper: Swapper, swaps: int, tell: Callable[[str], None]
) -> Figures:
    before = _footprint(server, store, clients, swapper)
    swapper.forget()
    for number in range(swaps):
        # Where all wait for the processor, the answer comes late, and would hide a worker that is late as well.
        clients.be(CALM if number // _SPELL % 2 else BUSY)
        swapper.swap(number)
        if number % 100 == 99:
            tell(f"{number + 1} swaps")
    unmapped = seconds_until_only(server, store, swapper.in_force())
    seconds, rollbacks, pairs = swapper.seconds[:], swapper.rollbacks, swapper.pairs
    swapper.swap_back()  # to the versions that were served when the memory was looked at first
    after = _footprint(server, store, clients, swapper)
    return Figures(seconds, rollbacks, pairs, clients.stop(), before, after, unmapped)


def _footprint(server: Running, store: Path, clients: Load, swapper: Swapper) -> Footprint:
    """With nothing mapped but what is in force, and nothing asked."""
    seconds_until_only(server, store, swapper.in_force())
    return clients.at_rest(lambda: Footprint.of(server))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", choices=BACKENDS, default="numpy")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = measure(Path(folder), asked.swaps, asked.connections, asked.workers, asked.backend, tell=print)
        except (SwapFailed, TimeoutError, httpx.HTTPError) as error:
            print(f"BROKEN: {error!r}")
            return 1
    print("\n".join(figures.lines()))
    broken = figures.broken(alone=True)
    print("\n".join(f"BROKEN: {claim}" for claim in broken) if broken else "all as promised")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
