"""`kill -9` in a loop while tables are swapped: of workers and the steward, of whole servers and publishing commands.

    python -m load_tests.kill_loop --workers-killed 100 --servers-killed 200

Prints a table of figures; ends with 1 on the first broken promise, with the store left where it lies.
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from load_tests.running import Running, running, until
from service import cli, npyfile
from service.errors import ServiceError
from service.history import Activation
from service.imported import ImportedTable, RowBlock
from service.store import TableStore
from service.types import RowArray, TableVersion

SWAPPED: Final = ("item", "user")
FRESH: Final = "fresh"
"""The table that publishers activate versions of; the versions 1 and 2 of the others are swapped."""
_WIDTHS: Final = {1: 8, 2: 16}
_ROWS: Final = {1: 500, 2: 700}
_CONNECTIONS: Final = 8
_OF_ONE_CONNECTION: Final = 100  # requests, then another is opened
_PAUSE: Final = 0.002  # seconds between two requests of a connection
_NOTICED_WITHIN: Final = 2.0  # seconds until a client knows that its connection is cut
_PATIENCE: Final = 20.0  # seconds until something counts as hung
_LONGEST_WAIT: Final = 0.25  # seconds from one recovery to the next death: several swaps
_LONGEST_LIFE: Final = 0.8  # seconds that a server and a publisher get
_EVERY: Final = 3  # rounds, of which one is special
_SECRET: Final = "secret"

_SAID: Final = re.compile(r'"version": (\d+)[,}]')

Versions: TypeAlias = dict[str, int]
"""Table to version."""
Publisher = Literal["store", "command"]
_CUT: Final = (OSError, http.client.HTTPException)


class PromiseBroken(Exception):
    """Something was served, answered or left that must not be."""


def claim(fact: bool, otherwise: str) -> None:
    """Raises PromiseBroken unless it is a fact."""
    if not fact:
        raise PromiseBroken(otherwise)


def rows_of(table: str, version: int) -> RowArray:
    """What a version of a swapped table holds: row i is full of i, plus what tells its table and version."""
    marks = np.arange(_ROWS[version], dtype=np.float32) + 1000 * version + 10_000 * SWAPPED.index(table)
    return np.repeat(marks[:, None], _WIDTHS[version], axis=1)


def make_store(root: Path) -> TableStore:
    """Both versions of both tables, labelled so that nobody prunes them; version 1 active."""
    store = TableStore(root)
    for table in SWAPPED:
        for version, label in ((1, "one"), (2, "two")):
            store.publish(table, constant_table(rows_of(table, version)), activate=version == 1)
            store.set_label(table, label, version)
    store.publish(FRESH, constant_table(np.zeros((4, 4), dtype=np.float32)), activate=True)
    return store


def constant_table(rows: RowArray) -> ImportedTable:
    """Rows on their way into a store."""
    return ImportedTable(rows.shape[0], rows.shape[1], [RowBlock(rows)])


# Asking a server


class Line:
    """One connection to a server. Raises OSError or HTTPException where it is cut."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE)
        self.opened = time.monotonic()
        self._connection.connect()
        self.port = int(self._connection.sock.getsockname()[1])

    def ask(
        self, method: str, path: str, body: object = None, accept: str = "application/json"
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, header fields in lower case, body."""
        headers = {"Accept": accept, "Content-Type": "application/json", "Authorization": f"Bearer {_SECRET}"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def lookup(self, table: str, ids: Sequence[int]) -> tuple[int, RowArray]:
        """The version that answered, and its rows; raises PromiseBroken for any other answer."""
        path = f"/v1/tables/{table}/lookup"
        status, headers, body = self.ask("POST", path, {"ids": ids}, "application/octet-stream")
        claim(status == http.HTTPStatus.OK, f"a lookup in {table} was answered {status}: {body[:300]!r}")
        rows = np.frombuffer(body, dtype="<f4").reshape(len(ids), -1)
        return int(headers["embedding-version"]), rows

    def close(self) -> None:
        self._connection.close()


@contextmanager
def line(url: str) -> Iterator[Line]:
    """A connection for a moment."""
    opened = Line(url)
    try:
        yield opened
    finally:
        opened.close()


def detail(url: str, table: str) -> dict[str, Any]:
    """What the admin API says of a table, over a new connection."""
    with line(url) as connection:
        status, _, body = connection.ask("GET", f"/v1/admin/tables/{table}")
    claim(status == http.HTTPStatus.OK, f"the state of {table} was answered {status}: {body!r}")
    said: dict[str, Any] = json.loads(body)
    return said


def agreed(url: str, workers: int) -> Versions | None:
    """What every worker serves and the store says, or None while they differ."""
    found = {}
    for table in SWAPPED:
        said = detail(url, table)
        states = {(worker["state"], worker["version"]) for worker in said["workers"]}
        if len(said["workers"]) != workers or states != {("READY", said["active_version"])}:
            return None
        found[table] = int(said["active_version"])
    return found


# Who swaps, and who looks


class Truth:
    """What may be served, as a list of steps: whoever asks during some of them may see what any of these allow."""

    def __init__(self, versions: Versions) -> None:
        self.certain = versions
        self.under_way: Versions = {}
        self._steps = [{table: {version} for table, version in versions.items()}]

    def begin(self, targets: Versions) -> None:
        """From now on, the old versions or these, until `end`."""
        self.under_way = targets
        both = {table: {version, targets.get(table, version)} for table, version in self.certain.items()}
        self._steps.append(both)

    def end(self, versions: Versions) -> None:
        """These are in force, everywhere."""
        self.certain, self.under_way = versions, {}
        self._steps.append({table: {version} for table, version in versions.items()})

    def after(self) -> Versions:
        """What is in force if what is under way succeeds."""
        return {**self.certain, **self.under_way}

    def step(self) -> int:
        """For `allowed`: now."""
        return len(self._steps) - 1

    def allowed(self, table: str, since: int) -> set[int]:
        """The versions that a request may see which was sent at a step and is answered now."""
        return set().union(*(step[table] for step in self._steps[since:]))


@dataclass(frozen=True, slots=True)
class Cut:
    """A request that ended without an answer: its local port, when its connection was opened, when it ended."""

    port: int
    opened: float
    ended: float


@dataclass(frozen=True, slots=True)
class Death:
    """A worker's end: when, and the clients' ports of the connections that it held."""

    at: float
    ports: frozenset[int]

    def explains(self, cut: Cut) -> bool:
        """Whether the request was this worker's, and in flight."""
        return cut.port in self.ports and cut.opened <= self.at <= cut.ended <= self.at + _NOTICED_WITHIN


class Runner(threading.Thread):
    """A thread that does `once` again and again; what it raises is kept, for who stops it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopping = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.once()
        except BaseException as error:  # noqa: BLE001  (raised on by `finish`)
            self.error = error

    def once(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Stops it; raises what it has raised."""
        self._stopping.set()
        self.join(_PATIENCE * 2)
        claim(not self.is_alive(), f"{self.name} hangs")
        self.check()

    def check(self) -> None:
        """Raises what it has raised."""
        if self.error is not None:
            raise self.error


class Looker(Runner):
    """Looks up over one connection after another, and holds every answer against the truth."""

    def __init__(self, url: str, truth: Truth, seed: int) -> None:
        super().__init__()
        self._url = url
        self._truth = truth
        self._draw = random.Random(seed)
        self.answers = 0
        self.cuts: list[Cut] = []

    def once(self) -> None:
        with line(self._url) as connection:  # a new connection is always served: no error is expected here
            for _ in range(_OF_ONE_CONNECTION):
                try:
                    self._look(connection)
                except _CUT:
                    self.cuts.append(Cut(connection.port, connection.opened, time.monotonic()))
                    return
                if self._stopping.wait(_PAUSE):
                    return

    def _look(self, connection: Line) -> None:
        table, since = self._draw.choice(SWAPPED), self._truth.step()
        ids = [self._draw.randrange(_ROWS[1]) for _ in range(4)]
        version, rows = connection.lookup(table, ids)
        allowed = self._truth.allowed(table, since)
        claim(version in allowed, f"{table} answered with version {version}, where {allowed} are in force")
        claim(np.array_equal(rows, rows_of(table, version)[ids]), f"rows of {table} {version} are another version's")
        self.answers += 1


class Swapper(Runner):
    """Activates versions back and forth, single tables and both together, each over a new connection."""

    def __init__(self, url: str, truth: Truth, seed: int) -> None:
        super().__init__()
        self.url = url
        self.truth = truth
        self._draw = random.Random(seed)
        self.answered: Counter[int] = Counter()
        self.cuts: list[Cut] = []

    def once(self) -> None:
        targets = self._targets()
        self.truth.begin(targets)
        status = self.activate(targets)
        self.answered[status] += 1
        if status == http.HTTPStatus.OK:
            self.truth.end(self.truth.after())
        else:
            self.on_failure(status)

    def _targets(self) -> Versions:
        """The other version of one table, or of both; both become equal where they are not."""
        one = self._draw.choice(SWAPPED)
        other = 3 - self.truth.certain[one]
        return dict.fromkeys(SWAPPED, other) if self._draw.random() < 1 / 2 else {one: other}

    def activate(self, targets: Versions) -> int:
        """The answer's status. Who is cut off asks for the same again, which ends what was under way."""
        while True:
            connection = Line(self.url)
            try:
                return connection.ask("POST", "/v1/admin/activate", {"tables": targets})[0]
            except _CUT:
                self.on_cut(Cut(connection.port, connection.opened, time.monotonic()))
            finally:
                connection.close()

    def on_cut(self, cut: Cut) -> None:
        """An activation was not answered."""
        self.cuts.append(cut)

    def on_failure(self, status: int) -> None:
        """An activation was answered with an error."""
        raise PromiseBroken(f"an activation was answered {status}")


# Workers and the steward are killed


class Unbroken(Swapper):
    """Goes on when the steward dies under its request: then the old versions are in force, or the new ones."""

    def __init__(self, url: str, truth: Truth, seed: int, workers: int) -> None:
        super().__init__(url, truth, seed)
        self._workers = workers
        self.found: Counter[Literal["old", "new"]] = Counter()
        self.agreed_after: list[float] = []
        self.calm = threading.Event()
        self.calm.set()

    def on_failure(self, status: int) -> None:
        claim(status == http.HTTPStatus.INTERNAL_SERVER_ERROR, f"an activation was answered {status}")
        self.calm.clear()
        begun = time.monotonic()
        state = until(self._agreed, _PATIENCE)
        self.agreed_after.append(time.monotonic() - begun)
        claim(state in (self.truth.certain, self.truth.after()), f"{state} is neither old nor new")
        self.found["old" if state == self.truth.certain else "new"] += 1
        self.truth.end(state)
        self.calm.set()

    def _agreed(self) -> Versions | None:
        with suppress(*_CUT):  # the next worker may die under this question
            return agreed(self.url, self._workers)
        return None


@dataclass
class WorkerDeaths:
    """Kills workers of one server, at random instants, under lookups and swaps."""

    server: Running
    draw: random.Random
    swapper: Unbroken
    lookers: list[Looker]
    back_within: float  # seconds
    deaths: list[Death] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    steward_back: list[float] = field(default_factory=list)

    def one_round(self, number: int) -> None:
        """Kills a worker, and sometimes the steward; waits until all is as it was."""
        time.sleep(self.draw.uniform(0, _LONGEST_WAIT))
        self._kill_worker()
        if number % _EVERY == 0:
            time.sleep(self.draw.uniform(0, _LONGEST_WAIT))
            self._kill_steward()
        for thread in (self.swapper, *self.lookers):
            thread.check()

    def _kill_worker(self) -> None:
        before = self.server.workers()
        victim = self.draw.choice(before)
        os.kill(victim, signal.SIGSTOP)  # so that what it holds is told exactly
        until(lambda: state_of(victim) == "T")
        ports = held_ports(victim, urlsplit(self.server.url).port or 0)
        died = time.monotonic()
        self.deaths.append(Death(died, ports))
        os.kill(victim, signal.SIGKILL)
        until(lambda: self._is_back(len(before), victim), _PATIENCE)
        self.back.append(time.monotonic() - died)

    def _is_back(self, workers: int, victim: int) -> bool:
        """Whether another process is in the victim's place and all serve what is in force."""
        for table in SWAPPED:
            said = detail(self.server.url, table)
            serving = [worker for worker in said["workers"] if worker["version"] == said["active_version"]]
            processes = {worker["process"] for worker in serving if worker["state"] == "READY"}
            if len(processes) != workers or victim in processes:
                return False
        return True

    def _kill_steward(self) -> None:
        victim = self.server.steward()
        died = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until(lambda: self.server.steward() != victim and self._answers())
        self.steward_back.append(time.monotonic() - died)
        self.swapper.calm.wait(_PATIENCE)

    def _answers(self) -> bool:
        with line(self.server.url) as connection:
            return connection.ask("GET", "/v1/admin/tables")[0] == http.HTTPStatus.OK

    def finish(self) -> dict[str, str]:
        """Ends the load, checks what cannot be told before, and gives the figures."""
        for thread in (self.swapper, *self.lookers):
            thread.finish()
        cuts = [cut for looker in self.lookers for cut in looker.cuts]
        strays = [cut for cut in cuts + self.swapper.cuts if not any(death.explains(cut) for death in self.deaths)]
        claim(not strays, f"{len(strays)} requests failed that no dead worker held, such as {strays[:1]}")
        claim(agreed(self.server.url, len(self.server.workers())) == self.swapper.truth.certain, "workers differ")
        slowest = max(self.swapper.agreed_after, default=0.0)
        claim(slowest <= self.back_within, f"workers differed for {slowest:.2f} s after the death of the steward")
        claim(max(self.back) <= self.back_within, f"a worker was back only after {max(self.back):.2f} s")
        found, held = self.swapper.found, sum(len(death.ports) for death in self.deaths)
        claim(found.total() <= len(self.steward_back), "an activation failed without a dead steward")
        return {
            "workers killed": f"{len(self.deaths)}",
            "lookups answered, each right": f"{sum(looker.answers for looker in self.lookers)}",
            "lookups in flight at a dead worker": f"{len(cuts)}, on {held} connections that it held",
            "other lookups failed": "0",
            "activations answered 200, each true": f"{self.swapper.answered[200]}",
            "activations cut off with their worker, asked again": f"{len(self.swapper.cuts)}",
            "a new worker serves what is in force": seconds(self.back),
            "stewards killed": f"{len(self.steward_back)}",
            "activations that died with it": f"{found.total()}: old {found['old']} times, new {found['new']} times",
            "all workers serve the same after that": seconds(self.swapper.agreed_after),
            "a new steward answers": seconds(self.steward_back),
        }


def kill_workers(root: Path, rounds: int, workers: int, seed: int, back_within: float) -> dict[str, str]:
    """Kills so many workers of one server; gives the figures. Raises PromiseBroken."""
    make_store(root)
    with running(root, "--workers", str(workers), settings={"ADMIN_TOKEN": _SECRET}) as server:
        truth = Truth(dict.fromkeys(SWAPPED, 1))
        swapper = Unbroken(server.url, truth, seed, workers)
        lookers = [Looker(server.url, truth, seed + number) for number in range(_CONNECTIONS)]
        for thread in (swapper, *lookers):
            thread.start()
        deaths = WorkerDeaths(server, random.Random(seed), swapper, lookers, back_within)
        for number in range(1, rounds + 1):
            deaths.one_round(number)
        return deaths.finish()


def seconds(measured: Sequence[float]) -> str:
    """Median and maximum."""
    if not measured:
        return "-"
    return f"median {statistics.median(measured) * 1e3:.0f} ms, maximum {max(measured) * 1e3:.0f} ms"


def state_of(pid: int) -> str:
    """`T` for a process that is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def held_ports(pid: int, server_port: int) -> frozenset[int]:
    """The clients' ports of the connections that a process has accepted at a port, by Linux' /proc/net/tcp."""
    links = (str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())
    sockets = {link.removeprefix("socket:[").removesuffix("]") for link in links}
    lines = [text.split() for text in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [fields for fields in lines if fields[9] in sockets and int(fields[1].split(":")[1], 16) == server_port]
    return frozenset(int(fields[2].split(":")[1], 16) for fields in ours)


# Whole servers and publishers are killed


class Mortal(Swapper):
    """Ends with its server; what was under way then stays under way."""

    def once(self) -> None:
        try:
            super().once()
        except _CUT:
            self._stopping.set()

    def on_cut(self, cut: Cut) -> None:
        super().on_cut(cut)
        raise ConnectionAbortedError

    def on_failure(self, status: int) -> None:
        if status == http.HTTPStatus.INTERNAL_SERVER_ERROR:  # the steward has died before the worker
            raise ConnectionAbortedError
        super().on_failure(status)


def publish(root: Path, kind: Publisher) -> None:
    """What a publisher does until it is killed: says that it is ready, and publishes as soon as it is told to.

    Everything that it publishes for `fresh` it activates, and says then which version that was.
    """
    store, file = TableStore(root), root.parent / f"publisher-{os.getpid()}.npy"
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(1_000_000):
        rows = np.full((256, 16), number, dtype=np.float32)
        if kind == "command":
            np.save(file, rows)
            import_by_command(root, file)
        else:
            store.publish(SWAPPED[number % 2], constant_table(rows))
            print(
                json.dumps({"version": store.publish(FRESH, constant_table(rows), activate=True).version}), flush=True
            )


def import_by_command(root: Path, file: Path) -> None:
    """`embedding-service import` in this process; it may fail with the server that it asks."""
    sys.argv = ["embedding-service", "import", str(file), "--table", FRESH, "--store", str(root), "--json"]
    with suppress(SystemExit):
        cli.main()
    sys.stdout.flush()


class Publishing:
    """A publisher in a process of its own."""

    def __init__(self, root: Path, kind: Publisher) -> None:
        command = [sys.executable, "-m", "load_tests.kill_loop", "--publish", kind, str(root)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # commands report there that their server has died
            text=True,
            start_new_session=True,
        )

    def begin(self) -> None:
        """Lets it go."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        claim(self._process.stdout.readline() == "ready\n", "the publisher did not begin")
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kills the process, and not what it may have started."""
        self._process.kill()

    def finish(self) -> list[int]:
        """The versions that it said to be active; what it had started is ended too."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        said, errors = self._process.communicate()
        code = self._process.returncode
        claim(code == -signal.SIGKILL, f"the publisher ended with {code}: {errors}")
        return [int(number) for number in _SAID.findall(said)]


@dataclass
class ServerDeaths:
    """Starts servers over one store and kills them, and publishers beside them, at random instants."""

    store: TableStore
    workers: int
    draw: random.Random
    expected: Versions
    figures: Counter[str] = field(default_factory=Counter)
    starts: list[float] = field(default_factory=list)

    def one_round(self, number: int) -> None:
        """Starts a server over what the last death left, checks it, and kills it during swaps and a publish."""
        root, started = self.store.root, time.monotonic()
        publisher = Publishing(root, "command" if number % _EVERY == 0 else "store")
        with ExitStack() as stack:
            stack.callback(publisher.kill)
            with running(root, "--workers", str(self.workers), settings={"ADMIN_TOKEN": _SECRET}) as server:
                self.starts.append(time.monotonic() - started)
                self.check_served(server.url)
                swapper = Mortal(server.url, Truth({table: self.expected[table] for table in SWAPPED}), number)
                publisher.begin()
                swapper.start()
                self._kill_both(server, publisher, switching=number % _EVERY == 1)
            swapper.finish()
            said = publisher.finish()
        self.check_store(swapper, said)

    def _kill_both(self, server: Running, publisher: Publishing, *, switching: bool) -> None:
        """At two instants, in either order; the server, if so chosen, in the middle of a switch of both tables."""
        ends = threading.Timer(self.draw.uniform(0, _LONGEST_LIFE), publisher.kill)
        ends.start()
        life = _LONGEST_LIFE if switching else self.draw.uniform(0, _LONGEST_LIFE)
        deadline = time.monotonic() + life
        while time.monotonic() < deadline and not (switching and self._is_switching()):
            time.sleep(0 if switching else max(0.0, deadline - time.monotonic()))
        os.killpg(server.process.pid, signal.SIGKILL)
        ends.join()

    def _is_switching(self) -> bool:
        return (self.store.root / ".switch.json").exists()

    def check_served(self, url: str) -> None:
        """A new server serves what is in force, to the byte; the next verb leaves nothing half done."""
        for table, version in self.expected.items():
            expected = self._stored(table, version)
            ids = list(range(0, len(expected), 3))
            for _ in range(2 * self.workers):
                with line(url) as connection:
                    found, rows = connection.lookup(table, ids)
                claim(found == version, f"a new server has version {found} of {table}, {version} is in force")
                claim(np.array_equal(rows, expected[ids]), f"a new server has other rows of {table} {version}")
        self._tidy()

    def _stored(self, table: str, version: int) -> RowArray:
        if table in SWAPPED:
            return rows_of(table, version)
        return npyfile.map_rows(self.store.version(TableVersion(table, version)).vectors)[1]

    def _tidy(self) -> None:
        root = self.store.root
        self.figures["switches finished by the next verb"] += self._is_switching()
        for number, table in enumerate((*SWAPPED, FRESH)):
            self.figures["staging folders swept"] += len(self.store.prune(table, keep=1).staging)
            claim(number > 0 or not self._is_switching(), "the next verb left .switch.json")
        claim(not list(root.glob("**/.staging-*")), "prune left a staging folder")
        claim(self._in_force() == self.expected, "tidying changed what is in force")

    def _in_force(self) -> dict[str, Any]:
        return dict(self.store.active_versions([*SWAPPED, FRESH]))

    def check_store(self, swapper: Mortal, said: Sequence[int]) -> None:
        """Nothing is lost after a death, and in force is what was answered or under way; raises PromiseBroken."""
        found = self._in_force()
        swapped, truth = {table: found[table] for table in SWAPPED}, swapper.truth
        claim(
            swapped in (truth.certain, truth.after()),
            f"{swapped} are in force, {truth.certain} were answered, {truth.under_way} were under way",
        )
        last = said[-1] if said else self.expected[FRESH]
        claim(found[FRESH] >= last, f"{FRESH} {found[FRESH]} is in force, {last} was answered")
        for table in (*SWAPPED, FRESH):
            self._check_table(table, found[table])
        self._count(swapper, said, died_in_force=swapped != truth.certain)
        self.expected = found

    def _check_table(self, table: str, active: int) -> None:
        for version in self.store.versions(table):
            self.store.verify(TableVersion(table, version))
            self.figures["versions verified"] += 1
        chain = [event for event in self.store.history(table) if isinstance(event, Activation)]
        previous = [None, *(event.version for event in chain)]
        claim([event.previous for event in chain] == previous[:-1], f"the history of {table} is no chain")
        claim(previous[-1] == active, f"the history of {table} ends with {previous[-1]}, {active} is in force")

    def _count(self, swapper: Mortal, said: Sequence[int], *, died_in_force: bool) -> None:
        self.figures["activations answered"] += swapper.answered[200]
        self.figures["publishes answered"] += len(said)
        self.figures["swaps of one table under way"] += len(swapper.truth.under_way) == 1
        self.figures["swaps of both under way"] += len(swapper.truth.under_way) == len(SWAPPED)
        self.figures["of these, in force afterwards"] += died_in_force

    def finish(self, rounds: int) -> dict[str, str]:
        """Has one more server look at what the last death left; gives the figures."""
        with running(self.store.root, "--workers", str(self.workers), settings={"ADMIN_TOKEN": _SECRET}) as server:
            self.check_served(server.url)
        told = {what: str(count) for what, count in self.figures.items()}
        return {"servers and publishers killed": str(rounds), **told, "a server starts": seconds(self.starts)}


def kill_servers(root: Path, rounds: int, workers: int, seed: int) -> dict[str, str]:
    """Kills so many servers and publishers over one store; gives the figures. Raises PromiseBroken."""
    store = make_store(root)
    deaths = ServerDeaths(store, workers, random.Random(seed), {"item": 1, "user": 1, FRESH: 1})
    for number in range(1, rounds + 1):
        deaths.one_round(number)
    return deaths.finish(rounds)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, help="a folder for the stores; a temporary one if not given")
    parser.add_argument("--workers-killed", type=int, default=100, help="rounds of the first part")
    parser.add_argument("--servers-killed", type=int, default=200, help="rounds of the second part")
    parser.add_argument("--workers", type=int, default=2, help="of each server")
    parser.add_argument("--back-within", type=float, default=2.0, help="seconds until a new worker must serve")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--publish", choices=("store", "command"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    root = chosen.root or Path(tempfile.mkdtemp(prefix="kill-loop-"))
    if chosen.publish is not None:
        publish(root, chosen.publish)
        return 0
    try:
        if chosen.workers_killed:
            place = root / "workers" / "store"
            report(kill_workers(place, chosen.workers_killed, chosen.workers, chosen.seed, chosen.back_within))
        if chosen.servers_killed:
            report(kill_servers(root / "servers" / "store", chosen.servers_killed, chosen.workers, chosen.seed))
    except (PromiseBroken, ServiceError, *_CUT) as error:
        print(f"kill-loop: {error!r}; the stores lie in {root}", file=sys.stderr)
        return 1
    if chosen.root is None:
        shutil.rmtree(root)
    return 0


def report(figures: Mapping[str, str]) -> None:
    """One line for each figure."""
    for what, figure in figures.items():
        print(f"{what:<52} {figure}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
