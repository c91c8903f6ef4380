"""What commands print: JSON for scripts, words and tables for people, complaints."""

import json
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

# Names, notes and errors are users' text: what looks like markup in them is not.
_PIPE_WIDTH: Final = 1000  # what reads a pipe folds lines itself, or wants them whole
out = Console(soft_wrap=True, highlight=False, markup=False)
if not out.is_terminal:
    out.width = _PIPE_WIDTH
"""For results, on standard output."""
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
"""For progress and complaints, on standard error."""


def print_json(content: object) -> None:
    """`content` on standard output, as JSON."""
    sys.stdout.write(json.dumps(content, indent=2, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows for people. Numbers are right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for position, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[position], int) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else "-" if cell is None else str(cell) for cell in row))
    out.print(table, soft_wrap=False)


def complain(error: Exception) -> None:
    """One error on standard error."""
    err.print("error:", style="bold red", end=" ")
    err.print(str(error))
