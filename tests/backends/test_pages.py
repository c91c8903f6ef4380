"""What the kernel says of a mapping's pages, after `populate` by its advice and after the fallback by touching."""

import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from service.backends import pages
from service.durable import HashedFile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")

NO_SUCH_ADVICE = 9999
HUGE = 2 << 20


def mapped(folder: Path, length: int) -> mmap.mmap:
    """A read-only mapping of a file of random bytes."""
    path = folder / "rows"
    path.write_bytes(os.urandom(length))
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def resident_bytes(mapping: mmap.mmap, what: str = "Rss") -> int:
    """How much of the mapping is in this process's page tables."""
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.startswith(f"{address:x}-"))
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


def huge_bytes(path: Path) -> int:
    """How much of a file is mapped by huge pages, once it is populated."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        pages.populate(mapping)
        return resident_bytes(mapping, "FilePmdMapped")


def advice_is_known() -> bool:
    """Whether this kernel has MADV_POPULATE_READ (Linux 5.14)."""
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        address = np.frombuffer(page, dtype=np.uint8).ctypes.data
        return bool(pages._madvise(address, mmap.PAGESIZE, pages._POPULATE_READ) == 0)


def whole_pages(length: int) -> int:
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


lengths = pytest.mark.parametrize(
    "length", [1, mmap.PAGESIZE, mmap.PAGESIZE + 1, 1 << 20, (3 << 20) + 5], ids=lambda length: f"{length} bytes"
)
slices = pytest.mark.parametrize(
    "slice_bytes", [64 << 20, mmap.PAGESIZE, 1 << 20], ids=["one slice", "a slice per page", "slices of 1 MiB"]
)
paces = pytest.mark.parametrize("gently", [True, False], ids=["gently", "quickly"])
ways = pytest.mark.parametrize("advice", [pages._POPULATE_READ, NO_SUCH_ADVICE], ids=["by advice", "by touching"])


def test_a_fresh_mapping_has_no_pages(tmp_path: Path) -> None:
    assert resident_bytes(mapped(tmp_path, 4 << 20)) == 0


@paces
@ways
@slices
@lengths
def test_every_page_is_there_when_populate_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, slice_bytes: int, advice: int, gently: bool
) -> None:
    monkeypatch.setattr(pages, "_POPULATE_READ", advice)
    monkeypatch.setattr(pages, "_SLICE" if gently else "_LARGE_SLICE", slice_bytes)
    mapping = mapped(tmp_path, length)
    pages.populate(mapping, gently=gently)
    assert resident_bytes(mapping) == whole_pages(length)


@pytest.mark.parametrize(("gently", "pauses"), [(True, 3), (False, 0)], ids=["gently", "quickly"])
def test_there_is_a_pause_after_every_slice_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gently: bool, pauses: int
) -> None:
    taken: list[float] = []
    monkeypatch.setattr(pages, "_SLICE", 1 << 20)
    monkeypatch.setattr(pages, "time", SimpleNamespace(sleep=taken.append))
    pages.populate(mapped(tmp_path, (2 << 20) + 1), gently=gently)
    assert taken == [pages._PAUSE] * pauses


def test_touching_reads_every_page(tmp_path: Path) -> None:
    mapping = mapped(tmp_path, (2 << 20) + 1)
    pages._touch(np.frombuffer(mapping, dtype=np.uint8))
    assert resident_bytes(mapping) == whole_pages((2 << 20) + 1)


def test_touching_a_part_leaves_the_rest_alone(tmp_path: Path) -> None:
    mapping = mapped(tmp_path, 8 << 20)
    pages._touch(np.frombuffer(mapping, dtype=np.uint8)[: 1 << 20])
    assert 1 << 20 <= resident_bytes(mapping) < 8 << 20


@ways
def test_populate_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: int) -> None:
    monkeypatch.setattr(pages, "_POPULATE_READ", advice)
    mapping = mapped(tmp_path, 1 << 20)
    pages.populate(mapping)
    assert mapping[:] == (tmp_path / "rows").read_bytes()


@paces
@ways
def test_a_populated_mapping_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: int, gently: bool
) -> None:
    monkeypatch.setattr(pages, "_POPULATE_READ", advice)
    mapping = mapped(tmp_path, 1 << 16)
    pages.populate(mapping, gently=gently)
    gc.collect()
    mapping.close()  # BufferError while anything still looks into it
    assert mapping.closed


LOSES_PAGES = """
import mmap, os, sys
from service.backends import pages
path, pages._SLICE, pages._LARGE_SLICE = sys.argv[1], int(sys.argv[2]), int(sys.argv[2])
with open(path, "rb") as file:
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
os.truncate(path, 1 << 20)
try:
    pages.populate(mapping, gently=sys.argv[3] == "True")
except OSError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(not advice_is_known(), reason="without MADV_POPULATE_READ, a page that is gone is a SIGBUS")
@pytest.mark.parametrize("slice_bytes", [64 << 20, mmap.PAGESIZE], ids=["one slice", "a slice per page"])
@paces
def test_pages_that_the_file_has_lost_are_an_error(tmp_path: Path, slice_bytes: int, gently: bool) -> None:
    path = tmp_path / "rows"
    path.write_bytes(os.urandom(2 << 20))
    # In a process of its own: touching such a page would end it, and the tests with it.
    command = [sys.executable, "-c", LOSES_PAGES, str(path), str(slice_bytes), str(gently)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "could not be read" in ended.stderr


def test_a_table_is_written_into_huge_pages_where_the_file_system_has_them(tmp_path: Path) -> None:
    with (tmp_path / "plain").open("wb", buffering=0) as file:
        for _ in range(4):
            file.write(bytes(HUGE))
    if huge_bytes(tmp_path / "plain") == 0:
        pytest.skip("this file system has none")
    with HashedFile(tmp_path / "rows") as hashed:
        hashed.write(bytes(128))
        for _ in range(900):
            hashed.write(bytes(9000))
    assert huge_bytes(tmp_path / "rows") >= 2 * HUGE
