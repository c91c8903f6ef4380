"""The command line: `embedding-service`. Each group of commands has a file; what they share is in `common.py`."""

import os
import signal

from service.cli.imports import quick_imports

# Nothing here multiplies matrices, and threads that numpy's BLAS starts at import would be there at the fork.
# It must be set before numpy is imported, where BLAS reads it.
os.putenv("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Runs one command; the process ends with its exit code."""
    if os.getpid() == 1:  # in a container: the system keeps from process 1 what it does not handle
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))  # until `serve` does
    with quick_imports():
        from service.cli.app import run  # noqa: PLC0415  (quick in here only)
    run()
