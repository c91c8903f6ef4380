"""The Unix socket through which commands on this host reach the server of a store. It lies in the store's folder.

One name for each host and server: over a shared file system the sockets of other hosts are seen, and cannot be
connected to. Who may open the socket may change the store anyway: its mode is 0600.
"""

import os
import platform
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from service import durable

ACTOR: Final = b"embedding-actor"
"""The header in which a command says who runs it."""
_PREFIX: Final = ".control-"
_BACKLOG: Final = 64


def bind(root: Path) -> tuple[socket.socket, Path]:
    """A listening socket in the store's folder, and where it is; raises OSError where the folder cannot be written."""
    with durable.locked(root), _short(root) as folder:
        number = 0
        while is_live(path := folder / f"{_PREFIX}{_host()}-{number}"):
            number += 1
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        except BaseException:  # cleaned up after, and raised on
            listener.close()
            raise
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener, root / path.name


@contextmanager
def live(root: Path) -> Iterator[Path | None]:
    """The path of a socket on which a server of this host listens, None if there is none; good within the context.

    Raises PermissionError for a server of another user.
    """
    if not root.is_dir():
        yield None
        return
    with _short(root) as folder:
        found = sorted(path for path in folder.glob(f"{_PREFIX}{_host()}-*"))
        yield next((path for path in found if is_live(path)), None)


def is_live(path: Path) -> bool:
    """Whether a server listens there; raises PermissionError for one of another user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except PermissionError:
            raise
        except OSError:
            return False
    return True


def remove(path: Path) -> None:
    """Takes the socket's name away, when its server stops."""
    with suppress(OSError):
        path.unlink()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:64] or "host"


@contextmanager
def _short(root: Path) -> Iterator[Path]:
    """Another path of the same folder: the address of a Unix socket has 107 bytes at most."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
