from pathlib import Path

import numpy as np
import pytest

from service.initializers import new_table
from service.types import TableVersion
from tests.cli.command import default_store, done, stored_rows

SHAPE = ("--num-embeddings", 1000, "--embedding-dim", 8)


def test_uniform_is_the_default_and_gives_rows_within_a_twentieth(tmp_path: Path) -> None:
    said = done(tmp_path, "create", "--table", "fresh", *SHAPE, "--json").json()
    rows = stored_rows(default_store(tmp_path), "fresh", 1)
    assert rows.shape == (1000, 8)
    assert np.abs(rows).max() <= np.float32(0.05)
    assert rows.min() < -0.045
    assert rows.max() > 0.045
    assert said["source"] == {"initializer": "uniform", "seed": 0}
    assert said["active"] is True
    assert default_store(tmp_path).active_version("fresh") == 1


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    for seed in (7, 7, 8):
        done(tmp_path, "create", "--table", "fresh", *SHAPE, "--seed", seed)
    store = default_store(tmp_path)
    first, again, other = (stored_rows(store, "fresh", version) for version in (1, 2, 3))
    assert first.tobytes() == again.tobytes()
    assert not (first == other).any(axis=1).any()


@pytest.mark.parametrize("name", ["truncated_normal", "glorot_uniform", "he_normal", "ones"])
def test_an_initializer_is_chosen_by_its_name(tmp_path: Path, name: str) -> None:
    said = done(tmp_path, "create", "--table", "fresh", *SHAPE, "--initializer", name, "--json").json()
    assert said["source"] == {"initializer": name, "seed": 0}
    expected = np.concatenate([block.vectors for block in new_table(1000, 8, name, 0).blocks])
    assert stored_rows(default_store(tmp_path), "fresh", 1).tobytes() == expected.tobytes()


def test_the_options_of_a_table_are_kept_with_it(tmp_path: Path) -> None:
    options = ["--padding-id", 0, "--unk-id", 4, "--on-oov", "unk", "--seed", 2**70, "--no-activate"]
    ended = done(tmp_path, "create", "--table", "small", "--num-embeddings", 5, "--embedding-dim", 2, *options)
    store = default_store(tmp_path)
    manifest = store.verify(TableVersion("small", 1))
    assert (manifest.num_embeddings, manifest.embedding_dim) == (5, 2)
    assert (manifest.padding_id, manifest.unk_id, manifest.on_oov) == (0, 4, "unk")
    assert manifest.source["seed"] == 2**70
    assert store.active_version("small") is None
    for said in ("small version 1", "5 x 2 float32", "initializer uniform", "not active"):
        assert said in ended.out
