"""What a user may say about an import, whatever the format."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """`rows` takes the first so many, `transpose` swaps the axes of a matrix (dimension x vocabulary).

    `tensor` chooses among several matrices of a file, by name or an unambiguous part of it; `vocabulary` is a
    text file with one token per line.
    """

    tensor: str | None = None
    rows: int | None = None
    transpose: bool = False
    vocabulary: Path | None = None
