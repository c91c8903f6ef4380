"""Serves trained embedding tables over HTTP. The version of the distribution lives here, nothing else."""

from importlib.metadata import version

__version__ = version("embedding-table-service")
