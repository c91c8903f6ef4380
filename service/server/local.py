"""The sockets of the steward, which the supervisor binds and keeps, so that a replaced steward finds them."""

import logging
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from service import controlsocket
from service.server.listening import bind
from service.settings import Settings

_BACKLOG: Final = 128
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where the steward listens.

    `forwarded` takes what workers pass on, at an abstract address that the system forgets with the processes;
    `control` takes the commands of this host, `admin` the admin API where it has a port of its own.
    """

    forwarded: socket.socket
    forwarded_at: str
    control: socket.socket | None
    control_at: Path | None
    admin: socket.socket | None

    @classmethod
    def bind(cls, settings: Settings) -> Self:
        """Raises Conflict if the admin port is taken."""
        admin = None
        if settings.admin_port is not None:
            (admin,) = bind(settings.admin_host or settings.host, settings.admin_port, 1)
        forwarded_at = f"\0embedding-service-{secrets.token_hex(16)}"
        forwarded = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        forwarded.bind(forwarded_at)
        forwarded.listen(_BACKLOG)
        forwarded.setblocking(False)
        return cls(forwarded, forwarded_at, *_control(settings.store), admin)

    def all(self) -> list[socket.socket]:
        """Every one of them."""
        return [listener for listener in (self.forwarded, self.control, self.admin) if listener is not None]

    def remove(self) -> None:
        """Takes away the one name in the file system."""
        if self.control_at is not None:
            controlsocket.remove(self.control_at)


def _control(store: Path) -> tuple[socket.socket | None, Path | None]:
    """A store that is not there, or that cannot be written, is served as well; commands then have no barrier."""
    try:
        return controlsocket.bind(store)
    except OSError as error:
        _log.warning("no socket for commands in %s: %s", store, error.strerror)
        return None, None
