"""How the memory for row texts is shared among the tables of a process."""

from threading import Lock

_WHOLE, _PART = 4, 3  # a table gets three quarters of what is left, so that one which comes later gets some


class TextShares:
    """Shares of `most_bytes`, one for each table. The next version of a table has the share of the one before it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._taken: dict[str, int] = {}

    def share(self, table: str) -> int:
        """The most bytes that the texts of this table may take."""
        with self._lock:
            left = self._most_bytes - sum(taken for name, taken in self._taken.items() if name != table)
        return left * _PART // _WHOLE

    def take(self, table: str, size: int) -> None:
        """The table's texts may take so many bytes from now on."""
        with self._lock:
            self._taken[table] = size

    def give_back(self, table: str) -> None:
        """The table takes none any more."""
        with self._lock:
            self._taken.pop(table, None)
