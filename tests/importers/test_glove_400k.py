"""The whole of GloVe 6B 50d through the command line: 400,000 rows, every bit of every one."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service import npyfile
from service.store import TableStore
from service.types import RowArray, TableVersion
from tests.cli.command import ENVIRONMENT
from tests.real import glove_rows, glove_words, write_glove_words

TABLE_BYTES = 400_000 * 50 * 4

# In a process of its own: the peak of a forked child begins with what its parent had, and pytest has a lot.
MEASURE = """
import json, os, resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "service", *sys.argv[1:]]).returncode
print(json.dumps({"code": code, "peak": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}))
"""


def imported(folder: Path, *arguments: object) -> tuple[TableStore, int]:
    """Imports by the command line; gives the store and the peak memory of the process in bytes."""
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, "import", *map(str, arguments), "--table", "glove", "--store", "store"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        timeout=300,
        check=True,
    )
    measured = json.loads(ended.stdout.splitlines()[-1])
    assert (measured["code"], ended.stderr) == (0, b"")
    seconds = time.perf_counter() - started
    print(f"{arguments[0]}: {seconds:.1f} s, peak {measured['peak'] / 2**20:.0f} MiB")  # noqa: T201
    return TableStore(folder / "store"), measured["peak"]


@pytest.fixture(scope="module")
def rows() -> RowArray:
    source: RowArray = np.load(glove_rows())
    assert source.shape == (400_000, 50)
    assert source.dtype == np.float32
    return np.ascontiguousarray(source)


def test_the_matrix_and_its_words_arrive_bit_for_bit_in_little_memory(rows: RowArray, tmp_path: Path) -> None:
    words = write_glove_words(tmp_path / "words.txt")
    store, peak = imported(tmp_path, glove_rows(), "--vocabulary", words)
    folder = store.version(TableVersion("glove", 1))
    assert npyfile.map_rows(folder.vectors)[1].tobytes() == rows.tobytes()
    assert folder.tokens() == tuple(glove_words())
    assert store.active_version("glove") == 1
    assert peak < 3 * TABLE_BYTES


def test_the_text_of_it_arrives_bit_for_bit_in_little_memory(rows: RowArray, tmp_path: Path) -> None:
    text = tmp_path / "glove.6B.50d.txt"
    table = pl.DataFrame({"word": glove_words()}).hstack(pl.from_numpy(rows))
    table.write_csv(text, separator=" ", include_header=False, quote_style="never")
    store, peak = imported(tmp_path, text)
    folder = store.version(TableVersion("glove", 1))
    assert folder.manifest().source["format"] == "glove"
    assert npyfile.map_rows(folder.vectors)[1].tobytes() == rows.tobytes()
    assert folder.tokens() == tuple(glove_words())
    assert peak < 3 * TABLE_BYTES
