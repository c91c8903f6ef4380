"""Ways to fetch rows. One file per backend, joined through `BACKENDS`; imported when chosen."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from service.types import Combination, IdArray, RowArray, RowDtype

CPU: Final = "CPUExecutionProvider"
"""The execution provider of ONNX Runtime that is always there."""

AUTO: Final = "auto"
"""In the place of providers: a CUDA device if there is one, and the processor."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """How a process fetches the rows of all its tables.

    `threads`, the caller's among them, share one large gather. What follows is for the backend `onnx`: the execution
    providers of ONNX Runtime in their order, and, of a provider with memory of its own, the number of the device and
    the most bytes of it that the tables of this process may take.
    """

    backend: str = "numpy"
    threads: int = 1
    providers: tuple[str, ...] = (CPU,)
    device_id: int = 0
    device_bytes: int | None = None


NUMPY: Final = Fetching()
"""What needs no other library than the service itself."""


@dataclass(frozen=True, slots=True)
class RowFiles:
    """Where the rows of a version lie: a `.npy` matrix of `dtype`, and for int8 a vector of scales, one per row."""

    vectors: Path
    dtype: RowDtype = "float32"
    scales: Path | None = None


class Backend(Protocol):
    """Rows of one version, fetched by id. Safe to use from several threads. Ids must have been checked."""

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

        The result is the caller's: C-contiguous and writeable.
        """

    def combine(self, ids: IdArray, count: int, combination: Combination) -> NDArray[np.float64]:
        """Of each `count` (at least 1) of the ids one vector: float64 of shape (n / count, dim), the caller's.

        It is what `combining.combined` makes of their rows, bit for bit. The rows of many sequences never lie in memory
        as a whole.
        """

    def release(self) -> None:
        """Gives memory back in small steps, without holding the interpreter lock; called once, when nobody gathers."""


class OpenBackend(Protocol):
    """Opens rows."""

    def __call__(self, files: RowFiles, fetching: Fetching, *, gently: bool = True) -> Backend:
        """Has their pages in memory on return; `gently` leaves the processor to others on the way.

        Raises ValueError on files that are not what is said, DeviceFull.
        """


BACKENDS: Final[dict[str, str]] = {
    "numpy": "service.backends.memory:open_rows",
    "onnx": "service.backends.onnx:open_rows",
}


def open_rows(files: RowFiles, fetching: Fetching = NUMPY, *, gently: bool = True) -> Backend:
    """Opens rows with the backend that is asked for; raises what it raises, KeyError where it is not in `BACKENDS`."""
    module, _, function = BACKENDS[fetching.backend].partition(":")
    return cast("OpenBackend", getattr(import_module(module), function))(files, fetching, gently=gently)
