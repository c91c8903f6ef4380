"""The servers of scripts and tests."""

from pathlib import Path

from load_tests.running import alive_in_group, running
from service.store import TableStore
from tests.world import KERAS_ROWS, publish


def test_nothing_is_left_of_a_server_that_was_killed(tmp_path: Path) -> None:
    """What is left for a moment would still take connections, and reset them."""
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    for _ in range(3):
        with running(tmp_path, "--workers", "3") as server:
            assert sorted(alive_in_group(server.process.pid)) == sorted(server.processes())
        assert alive_in_group(server.process.pid) == []
