"""Heads of lookups that come again and again, remembered by their bytes.

What the parser has made of a head depends on nothing but its bytes, so that it sees only heads that are new.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple
from weakref import WeakKeyDictionary

from service.api.front import Front
from service.api.prepared import Prepared
from service.api.short import Asked
from service.requestid import given_or_new

END: Final = b"\r\n\r\n"
_ID: Final = re.compile(rb"\r\nx-request-id:([^\r\n]*)(?=\r\n[^ \t])", re.IGNORECASE)
_TRACE: Final = re.compile(rb"\r\ntrace(?:parent|state):[^\r\n]*(?=\r\n[^ \t])", re.IGNORECASE)
"""Fields of one line: the next one does not begin with a blank, which would go on with it."""
_LONGEST_BODY: Final = 64 << 10
"""Bytes of a request that may be answered on the short way: 8,192 raw ids."""
_LONGEST_HEAD: Final = 2048
_MOST_HEADS: Final = 2048


@dataclass(slots=True, eq=False)
class Known:
    """What a head says, how many bytes of body follow it, and what can be told of its answer before they come."""

    asked: Asked
    length: int
    prepared: Prepared | None = None


class Heads(dict[bytes, Known]):
    """What is known of the heads of lookups that one application answers; a bounded number."""

    _of: ClassVar[WeakKeyDictionary[Front, "Heads"]] = WeakKeyDictionary()

    @classmethod
    def of(cls, app: Front) -> "Heads":
        """Those of an application, shared by all of its connections."""
        return cls._of.setdefault(app, cls())

    def remember(self, head: bytes, known: Known) -> None:
        """Keeps a head, if it is there as a whole and of the plainest form."""
        if len(END) < len(head) <= _LONGEST_HEAD and head.count(b"\n") == head.count(b"\r\n"):
            if len(self) >= _MOST_HEADS:
                self.clear()
            self[head] = known


class Numbered(NamedTuple):
    """A head without what is another in each request, and the id of the request that was in it; b"" for none."""

    head: bytes
    request_id: bytes


def numbered(head: bytes, *, traces: bool) -> Numbered:
    """Takes the id of a request out of its head, and where nothing is traced the trace: what is left may come again.

    A head that has two ids, or one on several lines, stays as it is.
    """
    if not traces and b"race" in head:
        head = _TRACE.sub(b"", head)
    found = _ID.findall(head) if b"equest-" in head or b"EQUEST-" in head else []
    if len(found) != 1:
        return Numbered(head, b"")
    return Numbered(_ID.sub(b"", head), given_or_new(found[0]).encode())


def may_be_short(url: bytes) -> bool:
    """Whether a target may be one that is answered on the short way; most that are not are told apart so."""
    return url.endswith((b"/lookup", b"/infer")) or b"/lookup?" in url


def read_known(app: Front, url: bytes, headers: list[tuple[bytes, bytes]]) -> Known | None:
    """What the head of a POST says that may be answered on the short way: that of a small lookup.

    None for any other, and where it has to be read with more care or refused.
    """
    length = _length(next((value for name, value in headers if name == b"content-length"), None))
    asked = None if length is None else app.asked(url, headers)
    return None if length is None or asked is None else Known(asked, length)


def _length(announced: bytes | None) -> int | None:
    if announced is None or not announced.isdigit() or len(announced) > len(str(_LONGEST_BODY)):
        return None
    return int(announced) if int(announced) <= _LONGEST_BODY else None
