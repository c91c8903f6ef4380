"""What `publish` sends: an array as `.npy`, a file as it is, or a tar of several, a piece in memory at a time."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio.to_thread
import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.errors import WrongType

_PIECE: Final = 1 << 20
_BLOCK: Final = 512
TABLE_FILE: Final = "table.npy"
TOKENS_FILE: Final = "tokens.json"

Pieces = Callable[[], Iterator[bytes]]


class Upload(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body of `size` bytes that can be read again from its beginning, blocking or not."""

    def __init__(self, pieces: Pieces, size: int) -> None:
        self._pieces = pieces
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = self._pieces()
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece

    def digest(self) -> str:
        """The value of `Content-Digest` (RFC 9530)."""
        found = hashlib.sha256()
        for piece in self:
            found.update(piece)
        return f"sha-256=:{base64.b64encode(found.digest()).decode()}:"


Source = NDArray[Any] | str | PathLike[str] | bytes | BinaryIO


def upload_of(source: Source, tokens: Sequence[str] | None) -> tuple[Upload, str | None]:
    """What is sent for `source`, and the name of the file; an array with tokens is a tar of both."""
    if isinstance(source, np.ndarray):
        table = _array(source)
        if tokens is None:
            return table, None
        words = json.dumps(list(tokens)).encode()
        return _tar({TABLE_FILE: table, TOKENS_FILE: _bytes(words)}), TABLE_FILE
    if tokens is not None:
        raise WrongType("tokens go with an array; a file has its own, or is sent in a tar", None, {"field": "tokens"})
    if isinstance(source, str | PathLike):
        path = Path(source)
        return Upload(partial(_of_file, path), path.stat().st_size), path.name
    if isinstance(source, bytes):
        return _bytes(source), None
    if callable(getattr(source, "read", None)):
        return _bytes(source.read()), None
    raise WrongType(f"a table is an array, a path, bytes or a file, not {type(source).__name__}", None, {})


def _bytes(content: bytes) -> Upload:
    return Upload(lambda: _sliced(memoryview(content)), len(content))


def _array(array: NDArray[Any]) -> Upload:
    if array.dtype.hasobject:
        raise WrongType("a table has numbers, not objects", None, {"field": "table"})
    array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    header = head.getvalue()

    def pieces() -> Iterator[bytes]:
        yield header
        yield from _sliced(array.reshape(-1).view(np.uint8).data)

    return Upload(pieces, len(header) + array.nbytes)


def _sliced(view: memoryview) -> Iterator[bytes]:
    for start in range(0, len(view), _PIECE):
        yield bytes(view[start : start + _PIECE])


def _of_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _tar(members: dict[str, Upload]) -> Upload:
    def pieces() -> Iterator[bytes]:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = content.size
            yield info.tobuf(tarfile.GNU_FORMAT)  # others have more than one block from 8 GiB on
            yield from content
            yield bytes(-content.size % _BLOCK)
        yield bytes(2 * _BLOCK)

    sizes = (_BLOCK + content.size + -content.size % _BLOCK for content in members.values())
    return Upload(pieces, sum(sizes) + 2 * _BLOCK)
