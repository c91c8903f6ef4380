import weakref
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import orjson
import pytest

from service import rowtexts
from service.rowtexts import Memory, RowTexts
from service.types import IdArray, RowArray

ROWS: RowArray = np.random.default_rng(5).standard_normal((500, 8)).astype(np.float32)
PLENTY = 1 << 20


@dataclass(frozen=True)
class Rows:
    """A backend that counts what is fetched."""

    rows: RowArray
    fetched: list[int]
    dtype: str = "float32"

    @property
    def num_embeddings(self) -> int:
        return len(self.rows)

    @property
    def embedding_dim(self) -> int:
        return int(self.rows.shape[1])

    def gather(self, ids: IdArray) -> RowArray:
        self.fetched.extend(ids.tolist())
        return self.rows.take(ids, axis=0)

    def release(self) -> None:
        """Nothing is held."""


class World:
    """Texts over counted rows, and the memory that they told of."""

    def __init__(self, most_bytes: int = PLENTY, rows: RowArray = ROWS) -> None:
        self.fetched: list[int] = []
        self.memory: list[Memory] = []
        backend = Rows(rows, self.fetched)
        self.texts = RowTexts(backend, most_bytes, self._watch)

    def _watch(self, owner: object, memory: Memory) -> None:
        self.memory.append(memory)
        weakref.finalize(owner, memory.release)

    def read(self, *ids: int) -> RowArray:
        text = bytes(self.texts.of(np.array(ids, dtype=np.int64)))
        assert text[:1] == b","
        return np.array(orjson.loads(b"[" + text[1:] + b"]"), dtype=np.float32)


@pytest.fixture
def world() -> World:
    return World()


def test_a_text_is_what_orjson_writes_behind_a_comma(world: World) -> None:
    text = bytes(world.texts.of(np.array([7, 3])))
    assert text == b"," + orjson.dumps(ROWS[[7, 3]], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


@pytest.mark.parametrize("ids", [[4], [1, 2], [3, 3, 3], list(range(500)), [499, 0, 499]], ids=str)
def test_texts_read_back_as_their_rows(world: World, ids: list[int]) -> None:
    for _ in range(2):
        assert np.array_equal(world.read(*ids), ROWS[ids])


def test_each_piece_is_one_row_of_its_length(world: World) -> None:
    found = world.texts.of(np.array([9, 8, 7]))
    assert found.iovecs.shape == (3, 2)
    assert len(found) == int(found.iovecs[:, 1].sum()) == len(bytes(found))


def test_no_ids_are_no_text(world: World) -> None:
    assert bytes(world.texts.of(np.empty(0, dtype=np.int64))) == b""


def test_a_row_is_rendered_once(world: World) -> None:
    for _ in range(3):
        world.read(5, 6, 5)
    world.read(6, 7)
    world.fetched.sort()
    assert world.fetched == [5, 6, 7]


def test_only_kept_texts_are_found(world: World) -> None:
    world.read(5, 6)
    assert world.texts.find(np.array([6, 5])) is not None
    assert world.texts.find(np.array([6, 7])) is None
    assert world.texts.rows.tolist() == [5, 6]


def test_little_memory_is_used_again_and_never_more_of_it() -> None:
    world = World(most_bytes=500 * 16 + 40_000)
    for first in range(0, 500, 20):
        ids = list(range(first, first + 20))
        assert np.array_equal(world.read(*ids), ROWS[ids])
    assert 100 < len(world.texts.rows) < 500
    assert len(world.memory) > 2
    assert world.texts.most_bytes <= 500 * 16 + 40_000
    assert np.array_equal(world.read(*world.texts.rows.tolist()), ROWS[world.texts.rows])
    assert np.array_equal(world.read(*range(500)), ROWS)


def test_what_is_kept_lies_in_memory_that_is_held_and_is_most_of_what_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowtexts, "_LEAST_PART", 1000)
    most = 30_000
    world = World(most_bytes=500 * 16 + most)
    generator = np.random.default_rng(0)
    kept: list[int] = []
    for _ in range(400):
        ids = generator.integers(0, 500, int(generator.integers(1, 12)))
        assert np.array_equal(world.read(*ids.tolist()), ROWS[ids])
        found = world.texts.find(world.texts.rows)
        assert found is not None
        assert np.array_equal(world.read(*world.texts.rows.tolist()), ROWS[world.texts.rows])
        kept.append(len(found))
    assert len(world.memory) > 2 * rowtexts._MOST_PARTS
    assert min(kept[-100:]) > most * 0.6


def test_texts_stay_while_they_are_used_though_their_memory_was_turned_over() -> None:
    world = World(most_bytes=500 * 16 + 40_000)
    found = world.texts.of(np.arange(20))
    wanted = bytes(found)
    for first in range(20, 500, 20):
        world.read(*range(first, first + 20))
    assert world.texts.find(np.arange(20)) is None
    assert bytes(found) == wanted


@pytest.mark.parametrize("most_bytes", [0, 500 * 16, 500 * 16 + 100], ids=["none", "no more than the index", "a row"])
def test_without_memory_texts_are_rendered_each_time(most_bytes: int) -> None:
    world = World(most_bytes)
    for _ in range(2):
        assert np.array_equal(world.read(1, 2, 1), ROWS[[1, 2, 1]])
    assert world.fetched == [1, 2, 1, 2]
    assert len(world.texts.rows) == 0


def test_closed_texts_keep_nothing_and_still_answer(world: World) -> None:
    found = world.texts.of(np.array([1, 2]))
    wanted = bytes(found)
    world.texts.close()
    assert len(world.texts.rows) == 0
    assert np.array_equal(world.read(1, 2), ROWS[[1, 2]])
    assert world.texts.find(np.array([1])) is None
    assert bytes(found) == wanted


def test_a_successor_has_the_texts_of_the_same_rows_of_its_own() -> None:
    before, after = World(), World(rows=ROWS[:400] * np.float32(2))
    before.read(*range(0, 500, 3))
    after.texts.warm(before.texts)
    assert after.texts.rows.tolist() == list(range(0, 400, 3))
    assert np.array_equal(after.read(3, 6), ROWS[[3, 6]] * np.float32(2))


def test_the_text_of_a_blank_row_is_zeros(world: World) -> None:
    assert bytes(world.texts.blank()) == b",[0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0]"


def test_memory_that_is_released_is_empty(world: World) -> None:
    world.read(1)
    (memory,) = world.memory
    assert any(memory.mapping[:100])
    memory.release()
    assert not any(memory.mapping[:100])


@pytest.mark.parametrize("dim", [1, 2, 300])
def test_rows_of_any_width_and_of_extreme_numbers(dim: int) -> None:
    numbers = np.array([0.0, -0.0, 1e-45, 3.4028235e38, -1.1754944e-38, 0.1, 1 / 3, 16777216.0], dtype=np.float32)
    rows = np.resize(numbers, (40, dim)).astype(np.float32)
    world = World(rows=rows)
    for first, end in pairwise((0, 1, 7, 40)):
        ids = list(range(first, end))
        assert world.read(*ids).tobytes() == rows[ids].tobytes()
