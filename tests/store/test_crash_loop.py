import re
import subprocess
import sys
from pathlib import Path

from service.store import TableStore

REPOSITORY = Path(__file__).parents[2]
FIGURES = re.compile(
    r"crash-loop: 5 rounds of 0\.5 MiB, killed within \d+ ms: (\d+) died before the version was there, "
    r"(\d+) before it was active, (\d+) after, (\d+) finished first; \d+ versions published, "
    r"\d+ kept, (\d+) staging folders swept; every store was whole\n"
)


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "load_tests/crash_loop.py", *arguments, str(root)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=120)


def test_publishers_that_are_killed_at_random_leave_a_whole_store(tmp_path: Path) -> None:
    done = run(tmp_path, "--rounds", "5", "--rows", "2048")
    assert (done.returncode, done.stderr) == (0, "")
    figures = FIGURES.fullmatch(done.stdout)
    assert figures is not None, done.stdout
    assert sum(map(int, figures.groups()[:4])) == 5
    assert TableStore(tmp_path).active_version("words") is not None
    assert not list(tmp_path.glob("**/.staging-*"))


def test_a_store_that_is_not_whole_ends_the_loop_with_one(tmp_path: Path) -> None:
    (tmp_path / "words" / "1").mkdir(parents=True)
    done = run(tmp_path, "--rounds", "1", "--rows", "1024")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "manifest.json is missing" in done.stderr
