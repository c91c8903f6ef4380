"""What is asked in one case: the ids, and the requests that ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.types import IdArray


@dataclass(frozen=True, slots=True)
class Questions:
    """Sequences of ids, all equally long, and for each the octets that ask for its rows."""

    ids: Sequence[IdArray]
    requests: Sequence[bytes]

    @property
    def count(self) -> int:
        """Ids in one request."""
        return len(self.ids[0])
