"""The short form of `make memory`: workers over one table hold one copy of it."""

from pathlib import Path

from load_tests.memory import measure


def test_four_workers_hold_one_copy_of_the_table(tmp_path: Path) -> None:
    figures = measure(tmp_path, table_mb=200, workers=4, lookups=200)
    # The processes themselves take about 100 MB; a second copy of the table would be 200 MB more.
    assert figures.table < figures.total < figures.table + 160e6
