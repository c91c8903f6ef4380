"""The operating system's errors in the service's words: the disk that is full, and texts without paths."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import InsufficientStorage, ServiceError


def reason_of(error: Exception) -> str:
    """The text of an error without the path that an OSError quotes: clients are not told where the store is."""
    if isinstance(error, OSError) and not isinstance(error, ServiceError):
        return error.strerror or "it cannot be read"
    return str(error)


@contextmanager
def disk_full(state: str) -> Iterator[None]:
    """Makes InsufficientStorage of the system's word for it; `state` is what that leaves."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InsufficientStorage(f"the disk is full; {state}") from error
