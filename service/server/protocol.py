"""uvicorn's HTTP protocol for clients that offer an upgrade, as Java's and curl's offer HTTP/2 with every request.

The parser takes an offer for an agreement and stops there, so that the body would be lost. A server may ignore
the field (RFC 9110 section 7.8): it is renamed before the parser sees it, which costs one search per packet (0.1 us).
"""

import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_IGNORED: Final = b"\r\nx-offer:"


class IgnoringUpgrades(HttpToolsProtocol):
    """HTTP/1.1 and nothing else, whatever is offered."""

    def data_received(self, data: bytes) -> None:
        if b"pgrade:" in data or b"PGRADE:" in data:
            head, blank, body = data.partition(b"\r\n\r\n")
            data = _OFFER.sub(_IGNORED, head) + blank + body
        super().data_received(data)
