"""Which format a file has: by its first bytes, and for text by its first line. The name of a file decides nothing."""

import codecs
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from service.errors import ImportFormatError
from service.importers.text_rows import count_numbers
from service.npyfile import MAGIC

_HEAD: Final = 64 << 10  # bytes
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_WORD2VEC_HEADER: Final = re.compile(rb"[0-9]+[ \t]+[0-9]+[ \t]*\r?")
_SAFETENSORS_AT: Final = 8  # a JSON object follows the eight bytes of its length


def _is_npy(_path: Path, head: bytes) -> bool:
    return head.startswith(MAGIC)


def _is_zip(_path: Path, head: bytes) -> bool:
    return head.startswith(_ZIP)


def _is_safetensors(_path: Path, head: bytes) -> bool:
    return head[_SAFETENSORS_AT : _SAFETENSORS_AT + 1] == b"{" and head[7] == 0


def _is_word2vec_text(_path: Path, head: bytes) -> bool:
    first, newline, _ = _text(head).partition(b"\n")
    return bool(newline) and _WORD2VEC_HEADER.fullmatch(first) is not None


def _is_glove(_path: Path, head: bytes) -> bool:
    first, newline, _ = _text(head).partition(b"\n")
    if not newline and len(head) == _HEAD:  # the line goes on beyond what was read: its last field is torn
        first = first.rpartition(b" ")[0]
    return b"\0" not in first and count_numbers(first) > 0


def _text(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8)


Sign: TypeAlias = Callable[[Path, bytes], bool]
"""Whether a file is of a format, by its path (for a look into an archive) and its first bytes."""

SIGNS: Final[dict[str, Sign]] = {
    "npy": _is_npy,
    "npz": _is_zip,
    "safetensors": _is_safetensors,
    "word2vec": _is_word2vec_text,
    "glove": _is_glove,
}
"""In the order in which they are looked for: the first that fits is taken."""


def detect(path: Path) -> str:
    """The name of the format; raises ImportFormatError if it is none that is known."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ImportFormatError(str(path), "the file is empty")
    for name, fits in SIGNS.items():
        if fits(path, head):
            return name
    raise ImportFormatError(str(path), f"the format is not recognised; it is none of {', '.join(SIGNS)}")
