"""Admin verbs of the client against the real admin API."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.client import (
    Conflict,
    InvalidRequest,
    LabelNotFound,
    Published,
    RequestTooLarge,
    Switch,
    TableNotFound,
    VersionNotFound,
    WrongType,
)
from service.client.uploads import upload_of
from tests.client.both import Asked, Kind, opened
from tests.client.scripted import answer, scripted
from tests.world import KERAS_ROWS, KERAS_TOKENS, serving

GLOVE = "hope 1.2 3.1\nto 0.1 4.2\nsee 1.0 3.1\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "hope.txt").write_text(GLOVE)
    return folder


@pytest.fixture
def admin(tmp_path: Path, files: Path, kind: Kind) -> Iterator[Asked]:
    """A client of a server over an empty store."""
    store = tmp_path / "store"
    store.mkdir()
    with (
        serving(store, admin_token="secret", import_folder=files, max_upload_bytes=3_000_000) as http,
        opened(kind, str(http.base_url), token="secret") as client,
    ):
        yield client


def rows(client: Asked, table: str = "words", count: int = len(KERAS_ROWS)) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = client.lookup(table, np.arange(count)).vectors
    return found


@pytest.mark.parametrize(
    "matrix",
    [
        KERAS_ROWS,
        np.asfortranarray(KERAS_ROWS),
        np.repeat(KERAS_ROWS, 2, axis=0)[::2],
        KERAS_ROWS.astype(">f4"),
        KERAS_ROWS.astype(np.float64),
        np.round(KERAS_ROWS).astype(np.int16),
    ],
    ids=["float32", "fortran", "strided", "big-endian", "float64", "int16"],
)
def test_an_array_is_published(admin: Asked, matrix: np.ndarray[Any, Any]) -> None:
    assert admin.publish("words", matrix, activate=True, padding_id=0) == Published("words", 1, active=True)
    assert rows(admin).tobytes() == matrix.astype(np.float32).tobytes()
    assert admin.table("words").padding_id == 0


def test_an_array_with_tokens_has_a_vocabulary(admin: Asked) -> None:
    tokens = [*KERAS_TOKENS[:-2], "two\nlines", "\u00fcber"]
    admin.publish("words", KERAS_ROWS, tokens=tokens, activate=True, note="by hand")
    assert admin.lookup("words", tokens=tokens).vectors.tobytes() == KERAS_ROWS.tobytes()
    assert admin.table("words").source["note"] == "by hand"


@pytest.mark.parametrize(
    "source",
    [lambda path: path, str, Path.read_bytes, lambda path: io.BytesIO(path.read_bytes())],
    ids=["path", "string", "bytes", "open file"],
)
def test_a_file_is_published(admin: Asked, files: Path, source: Callable[[Path], Any]) -> None:
    admin.publish("words", source(files / "hope.txt"), activate=True)
    assert admin.lookup("words", tokens=["to"]).vectors.tolist() == [[np.float32(0.1), np.float32(4.2)]]


def test_a_tar_is_published(admin: Asked, files: Path) -> None:
    with tarfile.open(files / "all.tar", "w") as tar:
        tar.add(files / "hope.txt", "in/hope.txt")
    admin.publish("words", files / "all.tar", file="in/hope.txt", activate=True)
    assert rows(admin, count=3).shape == (3, 2)


def test_a_file_of_the_servers_is_published(admin: Asked) -> None:
    assert admin.publish_from("words", "hope.txt", rows=2, activate=True).active
    assert admin.table("words").num_embeddings == 2


def test_a_large_array_is_streamed_and_checked(admin: Asked) -> None:
    matrix = np.random.default_rng(0).standard_normal((40_000, 16), dtype=np.float32)
    admin.publish("words", matrix, activate=True)
    assert rows(admin, count=40_000).tobytes() == matrix.tobytes()


def test_a_table_beyond_8_gib_has_a_head_of_one_block(tmp_path: Path) -> None:
    shape = (2**17, 2**14 + 1)
    matrix = np.memmap(tmp_path / "sparse", dtype=np.float32, mode="w+", shape=shape)
    upload, _ = upload_of(matrix, ["a"])
    head = next(iter(upload))
    assert len(head) == tarfile.BLOCKSIZE
    assert tarfile.TarInfo.frombuf(head, "utf-8", "strict").size == 4 * shape[0] * shape[1] + 128


def test_what_was_damaged_on_its_way_is_refused(kind: Kind, tmp_path: Path) -> None:
    """The digest is that of what was read, so that another body does not pass."""
    done = answer(201, b'{"table":"words","version":1,"active":false}')
    with scripted(done) as server, opened(kind, server.url, token="secret") as client:
        client.publish("words", KERAS_ROWS)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    (sent,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-digest")]
    upload, _ = upload_of(KERAS_ROWS, None)
    assert sent.split(b": ")[1].decode() == upload.digest()
    assert hashlib.sha256(body).digest() == hashlib.sha256(b"".join(upload)).digest()
    store = tmp_path / "store"
    store.mkdir()
    with serving(store, admin_token="secret") as http:
        wrong = http.post(
            "/v1/admin/tables/words/versions",
            content=body[:-1] + b"?",
            headers={"Authorization": "Bearer secret", "Content-Digest": upload.digest()},
        )
    assert wrong.status_code == 422


@pytest.mark.parametrize(
    ("source", "options", "kind_of"),
    [
        (np.zeros((3, 2)), {"padding_id": 9}, InvalidRequest),
        (np.zeros((3, 2, 2)), {}, InvalidRequest),
        (np.array([[None]]), {}, WrongType),
        (np.zeros((1000, 1000)), {}, RequestTooLarge),
        (b"what is this?", {}, InvalidRequest),
        (b"", {}, InvalidRequest),
        (3, {}, WrongType),
        (b"", {"tokens": ["a"]}, WrongType),
        (np.zeros((3, 2)), {"tokens": ["a"]}, InvalidRequest),
        (np.zeros((3, 2)), {"foramt": "npy"}, TypeError),
        (Path("/nowhere/at/all"), {}, FileNotFoundError),
    ],
    ids=repr,
)
def test_what_is_no_table_is_refused(
    admin: Asked, source: object, options: dict[str, Any], kind_of: type[Exception]
) -> None:
    with pytest.raises(kind_of):
        admin.publish("words", source, **options)
    with pytest.raises(TableNotFound):
        admin.admin_table("words")


def test_versions_are_activated_labelled_and_deleted(admin: Asked) -> None:
    for factor in (1, 2, 3):
        admin.publish("words", KERAS_ROWS * factor, activate=factor == 1)
    done = admin.activate("words", 2)
    assert (done.table, done.previous_version, done.active_version, done.workers) == ("words", 1, 2, 1)
    assert rows(admin).tobytes() == (KERAS_ROWS * 2).tobytes()
    assert admin.rollback("words").active_version == 1
    assert admin.label("words", "canary", 3).version == 3
    assert admin.lookup("words", [1], label="canary").version == 3
    with pytest.raises(Conflict):
        admin.delete_version("words", 3)
    assert admin.delete_label("words", "canary") is None
    with pytest.raises(LabelNotFound):
        admin.delete_label("words", "canary")
    assert admin.delete_version("words", 3) is None
    with pytest.raises(VersionNotFound):
        admin.activate("words", 3)
    detail = admin.admin_table("words")
    assert ([v.version for v in detail.versions], detail.active_version, detail.labels) == ([1, 2], 1, {})
    assert [event.event for event in detail.history] == ["activation"] * 3 + ["deletion"]
    assert [(worker.state, worker.version) for worker in detail.workers] == [("READY", 1)]
    (line,) = admin.admin_tables()
    assert (line.table, line.versions, line.workers) == ("words", (1, 2), detail.workers)


def test_integers_of_numpy_are_versions(admin: Asked) -> None:
    first, second, third = np.arange(1, 4)
    for _ in range(3):
        admin.publish("words", KERAS_ROWS, padding_id=np.int64(0))
    assert admin.activate("words", second).active_version == 2
    assert admin.activate_all({"words": third}).tables[0].active_version == 3
    assert admin.label("words", "canary", second).version == 2
    assert admin.prune("words", keep=np.int64(9), older_than_days=np.float32(1)).removed == ()
    admin.delete_version("words", first)
    for wrong in ("3", 3.0, True):
        with pytest.raises(WrongType, match="version must be an integer"):
            admin.activate("words", wrong)


def test_a_table_that_was_never_activated_has_nothing_to_roll_back(admin: Asked) -> None:
    admin.publish("words", KERAS_ROWS)
    with pytest.raises(Conflict):
        admin.rollback("words")


def test_several_tables_are_activated_together(admin: Asked) -> None:
    for table in ("user", "item"):
        admin.publish(table, KERAS_ROWS)
    done = admin.activate_all({"user": 1, "item": 1})
    assert set(done.tables) == {Switch("user", None, 1), Switch("item", None, 1)}
    with pytest.raises(VersionNotFound):
        admin.activate_all({"user": 1, "item": 2})


def test_old_versions_are_pruned(admin: Asked) -> None:
    for _ in range(4):
        admin.publish("words", KERAS_ROWS, activate=True)
    assert admin.prune("words", keep=1).removed == (1, 2)  # 3 was active before: a rollback finds it
