"""What one request may cost, and the errors for one that would cost more."""

from dataclasses import dataclass
from typing import Final

from service.errors import RequestTooLarge
from service.layout import Layout

_PADDED: Final = 32
"""How many positions padding may make for each id that may be sent: 8.4 million by default."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_ids` also bounds sequences and lookups: they may be empty, and still cost."""

    max_body_bytes: int
    max_ids: int
    max_response_bytes: int

    def check_ids(self, layout: Layout) -> None:
        """Raises RequestTooLarge for more ids, or more sequences, than a request may have."""
        self.check_count("ids", layout.total)
        if len(layout.shape) > 1:
            self.check_count("sequences", layout.rows)

    def check_count(self, what: str, found: int) -> None:
        """Raises RequestTooLarge for more of something than a request may have ids."""
        if found > self.max_ids:
            raise RequestTooLarge(f"{what} in the request", "EMBEDDING_MAX_IDS", self.max_ids, found)

    def check_positions(self, found: int) -> None:
        """Raises RequestTooLarge for a batch that is padded to far more positions than were sent.

        Each costs its id, mask and text, some 30 bytes, however short its row may be.
        """
        most = _PADDED * self.max_ids
        if found > most:
            what = f"positions of the padded batch ({_PADDED} for each id that may be sent)"
            raise RequestTooLarge(what, "EMBEDDING_MAX_IDS", most, found)

    def check_answer(self, found: int) -> None:
        """Raises RequestTooLarge for an answer of more bytes than one may have."""
        if found > self.max_response_bytes:
            raise RequestTooLarge("the answer in bytes", "EMBEDDING_MAX_RESPONSE_BYTES", self.max_response_bytes, found)
