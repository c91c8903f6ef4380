"""Which format a file has: by its first bytes, and for text by its first line. The name of a file decides nothing."""

import codecs
import re
from pathlib import Path
from typing import Final

from service.errors import ImportFormatError
from service.importers.text_rows import count_numbers
from service.npyfile import MAGIC

_HEAD: Final = 64 << 10  # bytes
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
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
    if head.startswith(_ZIP):
        return "npz"
    if head[_SAFETENSORS_AT : _SAFETENSORS_AT + 1] == b"{" and head[7] == 0:
        return "safetensors"
    return _detect_text(path, head.removeprefix(codecs.BOM_UTF8))


def _detect_text(path: Path, head: bytes) -> str:
    first, newline, _ = head.partition(b"\n")
    if not newline and len(head) > _HEAD // 2:  # the line goes on beyond what was read: its last field is torn
        first = first.rpartition(b" ")[0]
    if b"\0" not in first:
        if newline and _WORD2VEC_HEADER.fullmatch(first):
            return "word2vec"
        if count_numbers(first) > 0:
            return "glove"
    raise ImportFormatError(
        str(path), "the format is not recognised; it is none of npy, npz, safetensors, GloVe or word2vec text"
    )
