"""What one stretch of load came to, and the run of a generator that makes one."""

import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from load_tests.bench.processes import Server


@dataclass(frozen=True, slots=True)
class Burst:
    """Times in seconds; processor time is that of all processes.

    `failures` counts by kind what was not answered as it should, and is empty for a good one.
    """

    seconds: float
    requests: int
    p50: float
    p99: float
    failures: Mapping[str, int]
    server_cpu: float
    generator_cpu: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu(self) -> float:
        """Of the server, in seconds for a request."""
        return self.server_cpu / max(1, self.requests)

    @property
    def server_share(self) -> float:
        """Of its core, that the server was busy."""
        return self.server_cpu / self.seconds

    @property
    def generator_share(self) -> float:
        """Of its core, that the load generator was busy."""
        return self.generator_cpu / self.seconds


@dataclass(frozen=True, slots=True)
class Said:
    """What a load generator printed, and the processor time that it and the server used meanwhile, in seconds."""

    text: str
    server_cpu: float
    generator_cpu: float


def generated(command: Sequence[str], server: Server, core: int) -> Said:
    """Runs a load generator on its core; raises CalledProcessError if it fails."""
    generator, served = _waited_for(), server.cpu_seconds()
    command = ["taskset", "--cpu-list", str(core), *command]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Said(text, server.cpu_seconds() - served, _waited_for() - generator)


def _waited_for() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
