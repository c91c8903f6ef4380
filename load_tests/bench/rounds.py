"""The closed-loop run: all servers are up, one is loaded at a time, and every round visits every case."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from subprocess import CalledProcessError
from typing import Final

from load_tests.bench.burst import Burst
from load_tests.bench.cases import Case
from load_tests.bench.data import Data, drawn
from load_tests.bench.peers.common import Peer
from load_tests.bench.peers.known import PEERS
from load_tests.bench.processes import Cores, Server
from load_tests.bench.questions import Questions

_AGAIN: Final = 16  # questions that are asked before each burst, one after the other
_IDLE: Final = 2.0  # seconds
_BROKEN: Final = (OSError, ValueError, RuntimeError, CalledProcessError)  # TimeoutError is an OSError


@dataclass(slots=True)
class Run:
    """The bursts by case, one for each round (None for one that failed), what is not installed, and what went wrong.

    `idle` is the share of their core that all servers take together when nobody asks.
    """

    rounds: dict[Case, list[Burst | None]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    idle: float = 0.0

    def good(self, case: Case) -> list[Burst]:
        """Those of a case that did not fail."""
        return [each for each in self.rounds.get(case, ()) if each is not None]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A case whose server runs, and whose answers were found to be right."""

    case: Case
    peer: Peer
    server: Server
    questions: Questions


def run(cases: Sequence[Case], data: Data, cores: Cores, rounds: int, seconds: int, tell: Callable[[str], None]) -> Run:
    """Measures the cases; `tell` gets a line now and then. What is broken is in the `failures`, not raised."""
    result = Run()
    with ExitStack() as stack:
        servers = _started(cases, data, cores, stack, result)
        tell(f"running: {', '.join(servers)}")
        ready = list(_checked(cases, servers, data, result))
        result.idle = _idle(list(servers.values()))
        for number in range(rounds):
            # Every other round goes backwards: what drifts in the meantime meets both of a pair alike.
            for each in ready if number % 2 == 0 else reversed(ready):
                result.rounds.setdefault(each.case, []).append(_burst(each, cores, seconds, result))
            tell(f"round {number + 1} of {rounds}")
    return result


def _started(cases: Sequence[Case], data: Data, cores: Cores, stack: ExitStack, result: Run) -> Mapping[str, Server]:
    servers: dict[str, Server] = {}
    for name in dict.fromkeys(case.peer for case in cases):
        peer = PEERS[name]
        if reason := peer.missing() or peer.load.missing():
            result.left_out[name] = reason
            continue
        try:
            servers[name] = stack.enter_context(peer.start(data, cores.server))
        except _BROKEN as error:
            result.failures.append(f"{name} does not start: {error}")
    return servers


def _checked(cases: Sequence[Case], servers: Mapping[str, Server], data: Data, result: Run) -> Iterator[_Ready]:
    """Asks every question of every case once: the answers are right, and what can be warm is."""
    for case in cases:
        if server := servers.get(case.peer):
            each = _Ready(case, PEERS[case.peer], server, questions_of(case, data))
            try:
                check(each.peer, case.variant, server.port, each.questions, data)
            except _BROKEN as error:
                result.failures.append(f"{case.name}: {error}")
            else:
                yield each


def questions_of(case: Case, data: Data) -> Questions:
    """The same ones in every round."""
    ids = drawn(case.ids, case.count, len(data.vectors))
    return Questions(ids, [PEERS[case.peer].variants[case.variant].request(each) for each in ids])


def check(peer: Peer, variant: str, port: int, questions: Questions, data: Data) -> None:
    """Raises ValueError for the first answer that does not hold the rows."""
    for ids, request in zip(questions.ids, questions.requests, strict=True):
        body = peer.load.ask(port, request)
        if not peer.variants[variant].right(body, data.vectors[ids]):
            raise ValueError(f"the answer to {ids[:4].tolist()}... is wrong: {body[:200]!r}")


def _burst(each: _Ready, cores: Cores, seconds: int, result: Run) -> Burst | None:
    try:
        burst = _measured(each, cores, seconds)
    except _BROKEN as error:
        result.failures.append(f"{each.case.name}: {error}")
        return None
    if burst.failures or not burst.requests:
        result.failures.append(f"{each.case.name}: {dict(burst.failures) or 'no answer'}")
        return None
    return burst


def _measured(each: _Ready, cores: Cores, seconds: int) -> Burst:
    for request in each.questions.requests[:_AGAIN]:
        each.peer.load.ask(each.server.port, request)
    each.server.quiet()
    burst = each.peer.load.drive(each.server, each.questions, seconds, cores.generator)
    each.server.quiet()
    return burst


def _idle(servers: Sequence[Server]) -> float:
    """The share of their core that all servers take together when nobody asks."""
    for server in servers:
        server.quiet()
    before = sum(server.cpu_seconds() for server in servers)
    time.sleep(_IDLE)
    return (sum(server.cpu_seconds() for server in servers) - before) / _IDLE
