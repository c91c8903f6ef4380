"""Heads of lookups that come again and again, remembered by their bytes.

What the parser has made of a head depends on nothing but its bytes, so that it sees only heads that are new.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final
from weakref import WeakKeyDictionary

from service.api.front import Front
from service.api.lookup import Address, Head, address_of, read_head
from service.api.media import header_fields
from service.api.prepared import Prepared
from service.errors import ServiceError

END: Final = b"\r\n\r\n"
_LONGEST_BODY: Final = 64 << 10
"""Bytes of a request that may be answered on the short way: 8,192 raw ids."""
_LONGEST_HEAD: Final = 2048
_MOST_HEADS: Final = 2048


@dataclass(slots=True, eq=False)
class Known:
    """What a head says, how many bytes of body follow it, and what can be told of its answer before they come."""

    head: Head
    length: int
    prepared: Prepared | None = None


class Heads(dict[bytes, Known]):
    """What is known of the heads of lookups that one application answers; a bounded number."""

    _of: ClassVar[WeakKeyDictionary[Front, "Heads"]] = WeakKeyDictionary()

    @classmethod
    def of(cls, app: Front) -> "Heads":
        """Those of an application, shared by all of its connections."""
        return cls._of.setdefault(app, cls())

    def remember(self, packet: bytes, known: Known) -> None:
        """Keeps the head that a packet begins with, if it is there as a whole and of the plainest form."""
        head = packet[: packet.find(END) + len(END)]
        if len(END) < len(head) <= _LONGEST_HEAD and head.count(b"\n") == head.count(b"\r\n"):
            if len(self) >= _MOST_HEADS:
                self.clear()
            self[head] = known


def is_lookup(url: bytes) -> bool:
    """Whether a target may be that of a lookup; most that are not are told apart so."""
    return url[-7:] == b"/lookup" or b"/lookup?" in url


def read_known(url: bytes, headers: list[tuple[bytes, bytes]]) -> Known | None:
    """What the head of a POST says that may be answered on the short way: that of a small lookup.

    None for any other, and where it has to be read with more care or refused.
    """
    path, _, query = url.partition(b"?")
    address = _address(path)
    fields = header_fields(headers)
    length = _length(fields.content_length)
    if address is None or address.kind is not None or length is None:
        return None
    try:
        return Known(read_head(address, fields, query), length)
    except ServiceError:
        return None


def _length(announced: bytes | None) -> int | None:
    if announced is None or not announced.isdigit() or len(announced) > len(str(_LONGEST_BODY)):
        return None
    return int(announced) if int(announced) <= _LONGEST_BODY else None


@lru_cache(maxsize=1024)
def _address(path: bytes) -> Address | None:
    """What a path names; None where it has to be read with more care."""
    if len(path) > 512 or b"%" in path or b"#" in path or not path.isascii():
        return None
    return address_of(path.decode())
