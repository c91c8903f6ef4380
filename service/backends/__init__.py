"""Ways to fetch rows. One file per backend, joined through `BACKENDS`; imported when chosen."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from service.types import IdArray, RowArray, RowDtype


@dataclass(frozen=True, slots=True)
class RowFiles:
    """Where the rows of a version lie: a `.npy` matrix of `dtype`, and for int8 a vector of scales, one per row."""

    vectors: Path
    dtype: RowDtype = "float32"
    scales: Path | None = None


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

    def release(self) -> None:
        """Gives memory back in small steps, without holding the interpreter lock; called once, when nobody gathers."""


class OpenBackend(Protocol):
    """Opens rows."""

    def __call__(self, files: RowFiles, *, gently: bool = True) -> Backend:
        """Has their pages in memory on return; `gently` leaves the processor to others on the way.

        Raises ValueError on files that are not what is said.
        """


BACKENDS: Final[dict[str, str]] = {
    "numpy": "service.backends.memory:open_rows",
}


def backend(name: str) -> OpenBackend:
    """The backend of this name; raises KeyError for a name that is not in `BACKENDS`."""
    module, _, function = BACKENDS[name].partition(":")
    return cast("OpenBackend", getattr(import_module(module), function))
