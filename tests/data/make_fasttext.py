"""Makes tests/data/fasttext with the real library (fasttext-wheel 0.9.2): models, and what it says of every word.

Run it with a Python that has fasttext and numpy: `python tests/data/make_fasttext.py`.
"""

import tempfile
from pathlib import Path

import fasttext  # type: ignore[import-not-found]
import numpy as np

FOLDER = Path(__file__).parent / "fasttext"
SENTENCES = [
    "hope to see you soon",
    "nice to see you again",
    "日本語 の 単語 は 短い",
    "naïve café über straße Ελλάδα",
    "🙂 a b résumé emoji🙂s",
]


def save(name: str, model: "fasttext.FastText._FastText") -> None:
    """Writes the model, its words one a line and their vectors in that order."""
    words = model.get_words()
    vectors = np.array([model.get_word_vector(word) for word in words], dtype=np.float32)
    model.save_model(str(FOLDER / f"{name}.bin"))
    (FOLDER / f"{name}.txt").write_text("".join(f"{word}\n" for word in words))
    np.save(FOLDER / f"{name}.npy", vectors)


def main() -> None:
    """Trains and saves; one thread, but training is not promised to be the same on another machine."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join(SENTENCES * 20) + "\n")
        labelled = Path(folder) / "labelled.txt"
        labelled.write_text("".join(f"__label__{i % 2} {line}\n" for i, line in enumerate(SENTENCES * 20)))
        small = {"dim": 5, "minCount": 1, "epoch": 20, "lr": 0.5, "thread": 1, "verbose": 0}
        save("skipgram", fasttext.train_unsupervised(str(text), minn=1, maxn=4, bucket=300, **small))
        save("cbow", fasttext.train_unsupervised(str(text), model="cbow", minn=3, maxn=6, bucket=100, **small))
        save("no_subwords", fasttext.train_unsupervised(str(text), minn=0, maxn=0, bucket=0, **small))
        supervised = {"bucket": 300, "minn": 2, "maxn": 3, "wordNgrams": 2, **small}
        save("supervised", fasttext.train_supervised(str(labelled), **supervised))
        model = fasttext.train_supervised(str(labelled), **supervised)
        model.quantize(input=str(labelled))
        model.save_model(str(FOLDER / "quantised.ftz"))
        model = fasttext.train_supervised(str(labelled), **supervised)
        model.quantize(input=str(labelled), cutoff=256, qnorm=True)
        model.save_model(str(FOLDER / "pruned.ftz"))


if __name__ == "__main__":
    main()
