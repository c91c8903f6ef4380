"""Which format a file has: by its first bytes, and for text by its first line. The name of a file decides nothing."""

import re
from pathlib import Path
from typing import Final

from service.errors import ImportFormatError
from service.npyfile import MAGIC

_HEAD: Final = 64 << 10  # bytes
_WORD2VEC_HEADER: Final = re.compile(rb"[0-9]+[ \t]+[0-9]+[ \t]*\r?")
_SAFETENSORS_AT: Final = 8  # a JSON object follows the eight bytes of its length


def detect(path: Path) -> str:
    """The name of the format; raises ImportFormatError if it is none that is known."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ImportFormatError(str(path), "the file is empty")
    if head.startswith(MAGIC):
        return "npy"
    if head.startswith(b"PK"):
        return "npz"
    if head[_SAFETENSORS_AT : _SAFETENSORS_AT + 1] == b"{" and head[7] == 0:
        return "safetensors"
    return _detect_text(path, head)


def _detect_text(path: Path, head: bytes) -> str:
    first, newline, _ = head.partition(b"\n")
    if newline and b"\0" not in first:
        if _WORD2VEC_HEADER.fullmatch(first):
            return "word2vec"
        if _ends_in_numbers(first):
            return "glove"
    raise ImportFormatError(
        str(path), "the format is not recognised; it is none of npy, npz, safetensors, GloVe or word2vec text"
    )


def _ends_in_numbers(line: bytes) -> bool:
    fields = line.split()
    try:
        return len(fields) > 1 and float(fields[-1]) is not None
    except ValueError:
        return False
