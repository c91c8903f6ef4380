"""Every kind of damaged version against one real server that is looked up in all the time."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from load_tests.running import Running, running, until
from service import npyfile
from service.imported import ImportedTable
from service.store import TableStore
from tests.store import test_reduced_rows, test_verify
from tests.store.test_reduced_rows import SCALES, both, scales, table
from tests.store.test_verify import (
    MANIFEST,
    VECTORS,
    VOCABULARY,
    Damage,
    change,
    flipped,
    folder_instead,
    manifest,
    missing,
    record,
    reseal,
)
from tests.world import KERAS_ROWS, KERAS_TOKENS, imported, publish

SECRET = {"Authorization": "Bearer secret"}
AS_BYTES = {"Accept": "application/octet-stream"}
FILES = (VECTORS, VOCABULARY, SCALES, MANIFEST)
KERAS = imported(KERAS_ROWS, KERAS_TOKENS)
FLOAT32, INT8 = table("float32"), table("int8")


def link(name: str, target: str) -> Damage:
    """A symbolic link in the place of a file; the target is relative to the version's folder."""
    return both(missing(name), lambda folder: (folder / name).symlink_to(target))


def first_bytes(count: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:count]


def of_version_1(name: str) -> Damage:
    """The file that another version has under this name."""

    def damage(folder: Path) -> None:
        shutil.copyfile(folder.parent / "1" / name, folder / name)

    return damage


def nested(depth: int) -> Damage:
    """A manifest that is whole but for a source which is nested deep."""
    deep = "[" * depth + "]" * depth
    return change(MANIFEST, lambda data: json.dumps({**json.loads(data), "source": {}}).replace("{}", deep).encode())


def pickled(folder: Path) -> None:
    """Rows that are a pickle which would make a folder if anybody read it."""

    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(folder / "exploded"),)

    def edit(_: bytes) -> bytes:
        path = folder / "bomb.npy"
        np.save(path, np.array([[Bomb()]], dtype=object), allow_pickle=True)
        return path.read_bytes()

    reseal(VECTORS, edit)(folder)


# What is damaged beside what the verbs of the store are tested with: what is published, and what is named.
MORE: dict[str, tuple[ImportedTable, Damage, str]] = {
    **{
        f"rows cut to {count} bytes": (FLOAT32, change(VECTORS, first_bytes(count)), f"{VECTORS} has {count} bytes")
        for count in (1, 6, 8, 10, 64, 127, 128, 129, 156)
    },
    **{
        f"rows cut to {count} bytes and sealed": (FLOAT32, reseal(VECTORS, first_bytes(count)), VECTORS)
        for count in (0, 6, 10, 64, 127, 128, 129, 156)
    },
    **{
        f"vocabulary cut to {count} bytes": (FLOAT32, change(VOCABULARY, first_bytes(count)), VOCABULARY)
        for count in (0, 1, 5, 20)
    },
    **{
        f"scales cut to {count} bytes": (INT8, change(SCALES, first_bytes(count)), f"{SCALES} has {count} bytes")
        for count in (0, 8, 100, 128)
    },
    **{
        f"manifest cut to {count} bytes": (FLOAT32, change(MANIFEST, first_bytes(count)), MANIFEST)
        for count in (1, 2, 20, 100, 300)
    },
    **{
        f"bit {at} of the rows flipped": (INT8, change(VECTORS, flipped(at)), VECTORS)
        for at in (1, 6, 8, 30, 127, 128, 140)
    },
    **{
        f"bit {at} of the scales flipped": (INT8, change(SCALES, flipped(at)), SCALES)
        for at in (0, 9, 20, 60, 128, 155)
    },
    **{f"bit {at} of the words flipped": (INT8, change(VOCABULARY, flipped(at)), VOCABULARY) for at in (4, 9, -1)},
    "manifest begins with another byte": (INT8, change(MANIFEST, flipped(0)), MANIFEST),
    "rows a link to themselves": (FLOAT32, link(VECTORS, VECTORS), VECTORS),
    "vocabulary a link to itself": (FLOAT32, link(VOCABULARY, VOCABULARY), VOCABULARY),
    "manifest a link to itself": (FLOAT32, link(MANIFEST, MANIFEST), MANIFEST),
    "two links in a circle": (INT8, both(link(VECTORS, SCALES), link(SCALES, VECTORS)), VECTORS),
    "rows a link to nothing": (FLOAT32, link(VECTORS, "gone"), "vectors.npy is missing"),
    "rows a link to a device": (FLOAT32, link(VECTORS, "/dev/zero"), VECTORS),
    "scales a folder": (INT8, folder_instead(SCALES), SCALES),
    "no file at all": (FLOAT32, both(*map(missing, (VECTORS, VOCABULARY, MANIFEST))), "manifest.json is missing"),
    "manifest of version 1": (INT8, of_version_1(MANIFEST), VECTORS),
    "rows of version 1": (INT8, of_version_1(VECTORS), VECTORS),
    "vocabulary and manifest of version 1": (INT8, both(of_version_1(MANIFEST), of_version_1(VOCABULARY)), VECTORS),
    "num_embeddings of 18 digits": (FLOAT32, manifest(num_embeddings=10**18), "manifest.json says 1000000"),
    "num_embeddings of 25 digits": (FLOAT32, manifest(num_embeddings=10**25), MANIFEST),
    "num_embeddings of 5,000 digits": (FLOAT32, change(MANIFEST, lambda _: b'{"format":' + b"9" * 5000), MANIFEST),
    "embedding_dim of 25 digits": (FLOAT32, manifest(embedding_dim=2**80), MANIFEST),
    "bytes of 25 digits": (FLOAT32, record(VECTORS, bytes=10**25), VECTORS),
    "num_embeddings infinite": (FLOAT32, manifest(num_embeddings=float("inf")), MANIFEST),
    "padding_id not a number": (FLOAT32, manifest(padding_id=float("nan")), "padding_id"),
    "format of 25 digits": (FLOAT32, manifest(format=10**25), "format"),
    "source a list in 50,000 lists": (FLOAT32, nested(50_000), MANIFEST),
    "rows a pickle": (FLOAT32, pickled, "never loaded"),
    "one scale for all rows": (INT8, scales(np.ones(1, "<f4")), SCALES),
    "no scale": (INT8, scales(np.ones(0, "<f4")), SCALES),
}
DAMAGES = (
    {f"store: {kind}": (KERAS, *how) for kind, how in test_verify.DAMAGES.items()}
    | {f"store: {kind}": (table(dtype), *how) for kind, (dtype, *how) in test_reduced_rows.DAMAGES.items()}
    | MORE
)


class Lookups(threading.Thread):
    """Looks up in the version that is whole, all the time; keeps every answer that is wrong."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.done = 0
        self.failed: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self.stopped.wait(0.001):
                self._look(client)
                self.done += 1

    def _look(self, client: httpx.Client) -> None:
        try:
            answer = client.post("/v1/tables/words/lookup", json={"ids": [5, 1]}, headers=AS_BYTES)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return
        version = answer.headers.get("embedding-version")
        if (answer.status_code, version, answer.content) != (200, "1", KERAS_ROWS[[5, 1]].tobytes()):
            self.failed.append(f"{answer.status_code} of version {version}: {answer.content!r}")

    def some_more(self) -> None:
        """Waits for a lookup that begins and ends from now on; raises TimeoutError."""
        target = self.done + 2
        until(lambda: self.done >= target)


@dataclass(frozen=True)
class World:
    """One server for all kinds of damage: version 1 of `words` is whole and serves."""

    store: TableStore
    server: Running
    lookups: Lookups
    admin: httpx.Client

    @contextmanager
    def published(self, whole: ImportedTable = FLOAT32) -> Iterator[Path]:
        """The folder of a second version, taken away in the end so that the next one is the second again."""
        folder = self.store.version(self.store.publish("words", whole)).path
        yield folder
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)

    def activate(self, version: int, name: str = "words") -> httpx.Response:
        return self.admin.post(f"/v1/admin/tables/{name}/activate", json={"version": version})

    def label(self, version: int) -> httpx.Response:
        return self.admin.put("/v1/admin/tables/words/labels/candidate", json={"version": version})

    def serving(self) -> set[tuple[str, int, str | None]]:
        """What each worker has of `words`."""
        workers = self.admin.get("/v1/admin/tables/words").raise_for_status().json()["workers"]
        return {(worker["state"], worker["version"], worker["reason"]) for worker in workers}

    def is_as_it_was(self) -> bool:
        """Whether version 1 serves everywhere, without a gap, and no label came up."""
        self.lookups.some_more()
        assert self.lookups.failed == []
        assert self.store.labels("words") == {}
        return self.store.active_version("words") == 1 and self.serving() == {("READY", 1, None)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    store = TableStore(tmp_path_factory.mktemp("damaged") / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    with (
        running(store.root, "--workers", "2", settings={"ADMIN_TOKEN": "secret"}) as server,
        httpx.Client(base_url=server.url, headers=SECRET, timeout=30) as admin,
    ):
        workers = server.workers()
        lookups = Lookups(server.url)
        lookups.start()
        yield World(store, server, lookups, admin)
        lookups.stopped.set()
        lookups.join()
        assert lookups.done > len(DAMAGES)
        assert lookups.failed == []
        assert server.workers() == workers


def refused_as_damaged(answer: httpx.Response, named: str) -> None:
    said = answer.json()
    assert (answer.status_code, said["code"], said["version"]) == (409, "conflict", 2), answer.text
    assert named in said["reason"]
    assert any(name in said["reason"] for name in FILES)
    assert said["detail"] == f"words version 2 is damaged: {said['reason']}"


def test_there_are_more_than_50_kinds() -> None:
    assert len(DAMAGES) == len(test_verify.DAMAGES) + len(test_reduced_rows.DAMAGES) + len(MORE) > 200


@pytest.mark.parametrize(("whole", "damage", "named"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_version_is_refused_with_the_reason_and_the_old_one_serves_on(
    world: World, whole: ImportedTable, damage: Damage, named: str
) -> None:
    with world.published(whole) as folder:
        damage(folder)
        refused_as_damaged(world.activate(2), named)
        refused_as_damaged(world.label(2), named)
        assert world.is_as_it_was()
    assert not list(world.store.root.glob("**/exploded"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", [VECTORS, VOCABULARY, MANIFEST])
def test_a_version_that_may_not_be_read_is_refused(world: World, name: str) -> None:
    with world.published() as folder:
        (folder / name).chmod(0)
        refused_as_damaged(world.activate(2), name)
        refused_as_damaged(world.label(2), name)
        assert world.is_as_it_was()


def as_file(folder: Path) -> None:
    folder.write_text("not a folder")


def as_loop(folder: Path) -> None:
    folder.symlink_to(folder.name)


def as_link_to_nothing(folder: Path) -> None:
    folder.symlink_to("gone")


@pytest.mark.parametrize("instead", [as_file, as_loop, as_link_to_nothing, lambda _: None])
def test_what_is_no_folder_is_no_version(world: World, instead: Damage) -> None:
    with world.published() as folder:
        shutil.rmtree(folder)
        instead(folder)
        for answer in (world.activate(2), world.label(2)):
            assert (answer.status_code, answer.json()["code"]) == (404, "version_not_found")
            assert "version 2" in answer.json()["detail"]
        assert world.is_as_it_was()


def test_a_folder_of_another_version_in_its_place_is_what_it_is(world: World) -> None:
    with world.published(INT8) as folder:
        shutil.rmtree(folder)
        shutil.copytree(folder.with_name("1"), folder)
        assert world.label(2).status_code == 200  # a version does not hold its own number
        assert world.admin.delete("/v1/admin/tables/words/labels/candidate").status_code == 204
        assert world.is_as_it_was()


def test_a_pair_with_one_damaged_version_is_refused_whole(world: World) -> None:
    for number in (1, 2):
        publish(world.store, "others", KERAS_ROWS * number, activate=number == 1)
    with world.published() as folder:
        missing(VECTORS)(folder)
        answer = world.admin.post("/v1/admin/activate", json={"tables": {"others": 2, "words": 2}})
        refused_as_damaged(answer, "vectors.npy is missing")
        assert world.store.active_version("others") == 1
        assert world.is_as_it_was()


def test_not_a_number_under_right_checksums_is_seen_at_publish_only(world: World) -> None:
    rows = KERAS_ROWS.copy()
    rows[3, 1] = np.nan
    publish(world.store, "sealed", KERAS_ROWS)
    chosen = publish(world.store, "sealed", KERAS_ROWS, activate=False)
    reseal(VECTORS, lambda _: npyfile.dump(rows))(world.store.version(chosen).path)
    assert world.activate(chosen.version, "sealed").status_code == 200  # model_store/README.md, what is checked
    lookup = "/v1/tables/sealed/lookup"
    exact = world.admin.post(lookup, json={"ids": [2, 3]}, headers=AS_BYTES)
    assert exact.content == rows[[2, 3]].tobytes()
    as_text = world.admin.post(lookup, json={"ids": [2, 3]})
    assert (as_text.status_code, '"vectors":[[1.0,3.1],[0.3,null]]' in as_text.text) == (200, True)
    assert world.is_as_it_was()


def test_a_damaged_version_can_be_deleted_and_a_whole_one_activated_after_all(world: World) -> None:
    publish(world.store, "later", KERAS_ROWS)
    for damage in (missing(MANIFEST), change(VECTORS, flipped(-1))):
        chosen = publish(world.store, "later", KERAS_ROWS, activate=False)
        damage(world.store.version(chosen).path)
        assert world.activate(chosen.version, "later").status_code == 409
        assert world.admin.delete(f"/v1/admin/tables/later/versions/{chosen.version}").status_code == 204
    chosen = publish(world.store, "later", KERAS_ROWS * 2, activate=False)
    assert world.activate(chosen.version, "later").json()["active_version"] == chosen.version
    assert world.is_as_it_was()
