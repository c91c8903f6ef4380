"""The short form of `make beyond-memory`: a table of more than 2 GB is served with a fraction of that for oneself."""

import sys
from pathlib import Path

import pytest

from load_tests.beyond_memory import measure, write_sparse
from service.backends import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_table_larger_than_the_memory_of_its_server_is_answered_from_the_map(tmp_path: Path, backend: str) -> None:
    ids = write_sparse(tmp_path, megabytes=2200)
    figures = measure(tmp_path, ids, backend, limit=400_000_000)
    sys.stdout.write(f"{figures}\n")
    assert figures.table > 2 << 30
    assert figures.own < 120e6 < figures.table < figures.of_files
