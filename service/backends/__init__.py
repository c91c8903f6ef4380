"""Ways to fetch rows. One file per backend, joined through `BACKENDS`; imported when chosen."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, TypeAlias, cast

from service.types import IdArray, RowArray


class Backend(Protocol):
    """Rows of one version, fetched by id. Safe to use from several threads."""

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""

    @property
    def embedding_dim(self) -> int:
        """Numbers in a row."""

    @property
    def dtype(self) -> str:
        """What a row is stored as, e.g. `float32`."""

    def gather(self, ids: IdArray) -> RowArray:
        """The rows of `ids` (int64 of shape (n,), all within the table) as a fresh array of shape (n, dim).

        The result is the caller's: C-contiguous and writeable. Ids must have been checked.
        """


OpenBackend: TypeAlias = Callable[[Path], Backend]
"""Opens a `vectors.npy` and has its pages in memory on return. Raises ValueError on a file that is not one."""

BACKENDS: Final[dict[str, str]] = {
    "numpy": "service.backends.memory:open_rows",
}


def backend(name: str) -> OpenBackend:
    """The backend of this name; raises KeyError for a name that is not in `BACKENDS`."""
    module, _, function = BACKENDS[name].partition(":")
    return cast("OpenBackend", getattr(import_module(module), function))
