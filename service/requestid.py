"""The name of a request, by which its client, the log and a trace speak of the same thing."""

import re
import uuid
from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""That of the request which this task answers; empty for none."""
CARRIED: Final[ContextVar[tuple[tuple[bytes, bytes], ...]]] = ContextVar("carried", default=())
"""Header fields that go on with the trace of this task's request, where it has no scope to put them into."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")


def given_or_new(given: bytes | None) -> str:
    """What the client calls its request, if that can stand in a header and in a log as it is; else a new name."""
    text = "" if given is None else given.decode("latin-1").strip()
    return text if _PLAIN.fullmatch(text) else new()


def new() -> str:
    """A name that no other request has."""
    return uuid.uuid4().hex
