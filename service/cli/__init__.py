"""The command line: `embedding-service`. Each group of commands has a file; what they share is in `common.py`."""

import os

# Nothing here multiplies matrices, and threads that numpy's BLAS starts at import would be there at the fork.
# It must be set before numpy is imported, where BLAS reads it.
os.putenv("OPENBLAS_NUM_THREADS", "1")

from service.cli.app import main

__all__ = ["main"]
