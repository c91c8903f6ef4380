"""`Content-Digest` (RFC 9530): what a body must hash to, by its sender."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Final

from service.api.answer import Scope
from service.errors import InvalidRequest
from service.uploads import HASHES, check_digest

FIELD: Final = "Content-Digest"
_MEMBER: Final = re.compile(rb" *([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):(?:;[^,]*)? *")
_LONGEST: Final = 4096  # bytes


def digests_of(scope: Scope) -> dict[str, bytes]:
    """The digests of algorithms that we know, none if none is sent; raises InvalidRequest."""
    values = [value for name, value in scope["headers"] if name == FIELD.lower().encode()]
    if not values:
        return {}
    text = b",".join(values)
    if len(text) > _LONGEST:
        raise InvalidRequest(f"{FIELD} has more than {_LONGEST} bytes", field=FIELD)
    found = dict(_member(part) for part in text.split(b","))
    known = {name: digest for name, digest in found.items() if name in HASHES}
    if not known:
        raise InvalidRequest(f"{FIELD} has none of {', '.join(HASHES)}", field=FIELD)
    return known


def check_digests(body: bytes, expected: Mapping[str, bytes]) -> None:
    """Raises InvalidRequest for a body that does not hash to one of these."""
    for algorithm, digest in expected.items():
        check_digest(algorithm, digest, hashlib.new(HASHES[algorithm], body).digest())


def _member(part: bytes) -> tuple[str, bytes]:
    match = _MEMBER.fullmatch(part)
    if match is None:
        raise InvalidRequest(f"{FIELD} must be like sha-256=:BASE64:", field=FIELD)
    try:
        return match.group(1).decode(), base64.b64decode(match.group(2), validate=True)
    except binascii.Error:
        raise InvalidRequest(f"{FIELD} is not base64 between the colons", field=FIELD) from None
