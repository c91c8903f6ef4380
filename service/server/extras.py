"""Which packages of an extra are not installed, found without importing them."""

from collections.abc import Sequence
from importlib.util import find_spec


def missing(extra: str, packages: Sequence[str]) -> str | None:
    """Which of the packages is not there, and how to install the extra that brings it; None where all are."""
    absent = next((name for name in packages if not _is_there(name)), None)
    if absent is None:
        return None
    return f"the package {absent} is not installed: pip install 'embedding-table-service[{extra}]'"


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it
        return False
