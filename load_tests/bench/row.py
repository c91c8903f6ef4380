"""One line of the table of promises: what was measured, and what it must at least or at most be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A figure beside its promise; neither `at_least` nor `at_most` is one that is only told. NaN keeps no promise."""

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        if self.at_least is not None and not self.measured >= self.at_least:
            return False
        return self.at_most is None or self.measured <= self.at_most

    @property
    def promise(self) -> str:
        """The promise in words; empty without one."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"


def table(rows: Sequence[Row]) -> str:
    """The rows as lines of text, in columns."""
    width = max((len(row.what) for row in rows), default=0)
    return "\n".join(_line(row, width) for row in rows)


def _line(row: Row, width: int) -> str:
    measured = "nothing" if math.isnan(row.measured) else f"{row.measured:.3g}"
    aim = "" if row.aim is None else f"aim {row.aim:g}"
    verdict = ("kept" if row.kept else "MISSED") if row.promise else ""
    return f"{row.what:{width}}  {measured:>8}  {row.promise:14}  {aim:9}  {verdict}".rstrip()


def all_kept(rows: Sequence[Row]) -> bool:
    """Whether every promise holds."""
    return all(row.kept for row in rows)
