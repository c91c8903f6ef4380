"""Imports as quick as they can be: most of the time from the start of `serve` to its first answer is theirs."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

HTTPX_COMMAND_LINE: Final = "httpx._main"
"""With what it imports, a tenth of all that a command imports."""


@contextmanager
def quick_imports(*left_out: str) -> Iterator[None]:
    """Within it, garbage is not looked for, which would take a seventh of the time and find none.

    Modules that are `left_out` cannot be imported: optional parts of libraries, which do without them.
    """
    barred = set(left_out) - sys.modules.keys()
    sys.modules.update(dict.fromkeys(barred))  # type: ignore[arg-type]  # how Python is told that one is not there
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name in barred:
            del sys.modules[name]
