"""locust against a server of its own: `python -m load_tests.locust_run`, options behind `--` are locust's.

The server has a copy of the shipped store, and the table that users look up is swapped while they do. Statistics and
the report go to out/locust; the exit code is locust's: 1 if a lookup or a swap failed, or a threshold is broken.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from load_tests.running import running

ROOT: Final = Path(__file__).parent.parent
TOKEN: Final = "locust-token"
LOCUSTFILE: Final = ROOT / "load_tests" / "locustfile.py"


def command(url: str, *options: str) -> list[str]:
    """How locust is called without its web page."""
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", url, *options]


def environment() -> dict[str, str]:
    """In which it is called: the token is not for the list of processes to show."""
    return {**os.environ, "EMBEDDING_ADMIN_TOKEN": TOKEN}


def run(folder: Path, workers: int, output: Path, options: list[str]) -> int:
    """Serves a copy of the shipped store in `folder` and runs locust; gives its exit code."""
    store = folder / "model_store"
    shutil.copytree(ROOT / "model_store", store, ignore=shutil.ignore_patterns(".*"))
    output.mkdir(parents=True, exist_ok=True)
    files = ["--csv", str(output / "load"), "--html", str(output / "load.html"), "--narrow-table"]
    with running(store, "--workers", str(workers), settings={"ADMIN_TOKEN": TOKEN}) as server:
        called = command(server.url, *files, *options)
        return subprocess.run(called, env=environment(), check=False).returncode


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rate", type=int, default=10, help="users started in a second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--swap-every", type=float, default=2.0, help="seconds; 0: no swaps")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "locust")
    parser.add_argument("options", nargs="*", help="more of locust's, behind --")
    asked = parser.parse_args()
    options = ["--only-summary", "-u", str(asked.users), "-r", str(asked.rate), "-t", f"{asked.seconds}s"]
    options += ["--swap-every", str(asked.swap_every), *asked.options]
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), asked.workers, asked.output, options)


if __name__ == "__main__":
    sys.exit(main())
