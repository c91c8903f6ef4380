"""The service as process 1 of its own namespace, as in a container: the system ends no such process by itself."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from load_tests.running import until

_ALONE = ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child")


def _can_be_alone() -> bool:
    if shutil.which(_ALONE[0]) is None:
        return False
    return subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_be_alone(), reason="unshare makes no namespace of processes here")


@contextmanager
def first_process(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command of the service as process 1; the process that ends as it does, and its own number out here."""
    whole = [*_ALONE, sys.executable, "-m", "service", *command]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as outside:
        try:
            children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
            yield outside, int(until(lambda: children.read_text().split())[0])
        finally:
            outside.kill()


def _ends_when_told(outside: subprocess.Popen[bytes], inside: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(inside, signal.SIGTERM)
    return outside.poll() is not None


def test_a_stop_during_the_start_is_heeded(tmp_path: Path) -> None:
    with first_process("serve", "--store", str(tmp_path), "--port", "0") as (outside, inside):
        until(lambda: _ends_when_told(outside, inside))
        assert outside.returncode == 128 + signal.SIGTERM
        assert outside.stdout is not None
        assert outside.stdout.read() == b""  # it had not come to serving


def test_a_stop_of_what_serves_is_a_good_end(tmp_path: Path) -> None:
    with first_process("serve", "--store", str(tmp_path), "--port", "0") as (outside, inside):
        assert outside.stdout is not None
        assert any(b"serving" in line for line in outside.stdout)
        os.kill(inside, signal.SIGTERM)
        assert outside.wait(30) == 0
