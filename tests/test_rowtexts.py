import threading
import weakref
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from service import rowtexts
from service.backends.combining import combined
from service.rowtexts import BETWEEN, Kept, RowTexts
from service.types import Combination, IdArray, RowArray

ROWS: RowArray = np.random.default_rng(5).standard_normal((500, 8)).astype(np.float32)
PLENTY = 1 << 20
INDEX = 500 * 4
"""Bytes that the index of `ROWS` takes."""


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

    def combine(self, ids: IdArray, count: int, combination: Combination) -> NDArray[np.float64]:
        return combined(self.gather(ids), count, combination)

    def release(self) -> None:
        """Nothing is held."""


class World:
    """Texts over counted rows, and what they said is to be released."""

    def __init__(self, most_bytes: int = PLENTY, rows: RowArray = ROWS) -> None:
        self.fetched: list[int] = []
        self.kept: list[Kept] = []
        self.texts = RowTexts(Rows(rows, self.fetched), most_bytes, self._watch)

    def _watch(self, owner: object, kept: Kept) -> None:
        self.kept.append(kept)
        weakref.finalize(owner, kept.release)

    def read(self, *ids: int) -> RowArray:
        found = self.texts.of(np.array(ids, dtype=np.int64))
        assert found.size == sum(map(len, found.texts))
        return numbers(BETWEEN.join(found.texts.tolist()))


def numbers(text: bytes) -> RowArray:
    return np.array(orjson.loads(b"[[" + text + b"]]"), dtype=np.float32)


@pytest.fixture
def world() -> World:
    return World()


def test_texts_are_what_orjson_writes_between_the_brackets(world: World) -> None:
    found = world.texts.of(np.array([7, 3]))
    text = BETWEEN.join(found.texts.tolist())
    assert b"[[" + text + b"]]" == orjson.dumps(ROWS[[7, 3]], option=orjson.OPT_SERIALIZE_NUMPY)


@pytest.mark.parametrize("ids", [[4], [1, 2], [3, 3, 3], list(range(500)), [499, 0, 499]], ids=str)
def test_texts_read_back_as_their_rows(world: World, ids: list[int]) -> None:
    for _ in range(2):
        assert np.array_equal(world.read(*ids), ROWS[ids])


def test_no_ids_have_no_texts(world: World) -> None:
    found = world.texts.of(np.empty(0, dtype=np.int64))
    assert (found.texts.tolist(), found.size) == ([], 0)


def test_a_row_is_rendered_once(world: World) -> None:
    for _ in range(3):
        world.read(5, 6, 5)
    world.read(6, 7)
    world.fetched.sort()
    assert world.fetched == [5, 6, 7]


def test_only_kept_texts_are_found(world: World) -> None:
    world.read(5, 6)
    found, listed = world.texts.find(np.array([6, 5])), world.texts.listed(np.array([6, 5]))
    assert found is not None
    assert listed is not None
    assert listed == found.texts.tolist()
    assert numbers(BETWEEN.join(listed)).tolist() == ROWS[[6, 5]].tolist()
    assert world.texts.find(np.array([6, 7])) is None
    assert world.texts.listed(np.array([6, 7])) is None
    assert world.texts.rows.tolist() == [5, 6]


def test_texts_that_were_put_in_first_make_room_for_others_and_no_more_than_that() -> None:
    most = 40_000
    world = World(INDEX + most)
    generator = np.random.default_rng(0)
    held: list[int] = []
    for _ in range(400):
        ids = generator.integers(0, 500, int(generator.integers(1, 12)))
        assert np.array_equal(world.read(*ids.tolist()), ROWS[ids])
        found = world.texts.find(world.texts.rows)
        assert found is not None
        assert np.array_equal(numbers(BETWEEN.join(found.texts.tolist())), ROWS[world.texts.rows])
        held.append(found.size + 88 * len(found.texts))
    assert max(held) <= most
    assert min(held[-300:]) > most / 2
    assert len(world.fetched) > 2 * 500
    assert world.texts.most_bytes <= INDEX + most


def test_there_are_no_more_slots_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowtexts, "_FIRST_SLOTS", 4)
    monkeypatch.setattr(rowtexts, "_MOST_SLOTS", 64)
    world = World()
    for first in range(0, 500, 7):
        ids = list(range(first, min(first + 7, 500)))
        assert np.array_equal(world.read(*ids), ROWS[ids])
        assert np.array_equal(world.read(*world.texts.rows.tolist()), ROWS[world.texts.rows])
    assert 64 - 7 <= len(world.texts.rows) < 64
    assert np.array_equal(world.read(*range(500)), ROWS)


def test_a_text_that_was_found_stays_though_others_took_its_room() -> None:
    world = World(INDEX + 40_000)
    found = world.texts.of(np.arange(20))
    for first in range(20, 500, 20):
        world.read(*range(first, first + 20))
    assert world.texts.find(np.arange(20)) is None
    assert np.array_equal(numbers(BETWEEN.join(found.texts.tolist())), ROWS[:20])


@pytest.mark.parametrize("most_bytes", [0, INDEX, INDEX + 100], ids=["none", "no more than the index", "half a row"])
def test_without_memory_texts_are_rendered_each_time(most_bytes: int) -> None:
    world = World(most_bytes)
    for _ in range(2):
        assert np.array_equal(world.read(1, 2, 1), ROWS[[1, 2, 1]])
        assert world.texts.listed(np.array([1])) is None
    assert world.fetched == [1, 2, 1, 2]
    assert len(world.texts.rows) == 0


def test_closed_texts_keep_nothing_and_still_answer(world: World) -> None:
    found = world.texts.of(np.array([1, 2]))
    (kept,) = world.kept
    world.texts.close()
    assert not kept.slots.any()
    assert set(kept.texts.tolist()) == {None}
    assert len(world.texts.rows) == 0
    assert np.array_equal(world.read(1, 2), ROWS[[1, 2]])
    assert world.texts.find(np.array([1])) is None
    assert world.texts.listed(np.array([1])) is None
    assert np.array_equal(numbers(BETWEEN.join(found.texts.tolist())), ROWS[[1, 2]])


def test_a_successor_has_the_texts_of_the_same_rows_of_its_own() -> None:
    before, after = World(), World(rows=ROWS[:400] * np.float32(2))
    before.read(*range(0, 500, 3))
    after.texts.warm(before.texts)
    assert after.texts.rows.tolist() == list(range(0, 400, 3))
    assert np.array_equal(after.read(3, 6), ROWS[[3, 6]] * np.float32(2))


def test_the_text_of_a_blank_row_is_zeros(world: World) -> None:
    assert world.texts.blank == b"0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"


@pytest.mark.parametrize("dim", [1, 2, 300])
def test_rows_of_any_width_and_of_extreme_numbers(dim: int) -> None:
    extreme = np.array([0.0, -0.0, 1e-45, 3.4028235e38, -1.1754944e-38, 0.1, 1 / 3, 16777216.0], dtype=np.float32)
    rows = np.resize(extreme, (40, dim)).astype(np.float32)
    world = World(rows=rows)
    for first, end in pairwise((0, 1, 7, 40)):
        ids = list(range(first, end))
        assert world.read(*ids).tobytes() == rows[ids].tobytes()


def test_another_thread_may_ask_which_rows_are_kept_while_that_changes() -> None:
    """As when a version is prepared: what the one before it keeps is looked at while it serves."""
    world = World(rows=np.ones((200_000, 1), dtype=np.float32))
    slots = world.kept[0].slots
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            slots[::3] = 1
            slots[::3] = 0

    changing = threading.Thread(target=change)
    changing.start()
    try:
        found = [len(world.texts.rows) for _ in range(300)]
    finally:
        done.set()
        changing.join()
    assert max(found) <= len(slots[::3])
