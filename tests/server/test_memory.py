"""The short form of `make memory`: workers over one table hold one copy of it."""

from pathlib import Path

import pytest

from load_tests.memory import measure
from service.backends import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_four_workers_hold_one_copy_of_the_table(tmp_path: Path, backend: str) -> None:
    figures = measure(tmp_path, table_mb=200, workers=4, lookups=200, backend=backend)
    # The processes themselves take 100 to 130 MB; a second copy of the table would be 200 MB more.
    assert figures.table < figures.total < figures.table + 160e6
