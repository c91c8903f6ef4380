"""`POST /v1/admin/tables/{table}/versions` in one process: every format, every refusal, and what a refusal leaves."""

import base64
import hashlib
import io
import json
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import httpx
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save as safetensors

from load_tests.running import until
from service.store import TableStore
from service.types import RowArray, TableVersion
from tests.api.test_admin import administrating, ok, refused, served
from tests.api.wire import AnyArray, npy, npz
from tests.importers.samples import row_lines
from tests.test_durable import contents
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

DATA: Final = Path(__file__).parents[1] / "data"
VERSIONS: Final = "/v1/admin/tables/words/versions"
GOOD: Final = npy(KERAS_ROWS * 3)
Query: TypeAlias = Mapping[str, str | int | float | bool]


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` has the version 1, which is active."""
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    return store


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the `store` of all that is refused, and `allowed`, from which files may be imported."""
    world = tmp_path_factory.mktemp("world")
    publish(TableStore(world / "store"), "words", KERAS_ROWS, KERAS_TOKENS)
    (world / "allowed" / "deep").mkdir(parents=True)
    (world / "allowed" / "deep" / "good.npy").write_bytes(GOOD)
    (world / "allowed" / "bad.npy").write_bytes(GOOD[:-1])
    (world / "outside.npy").write_bytes(GOOD)
    (world / "allowed" / "out").symlink_to(world)
    (world / "allowed" / "out.npy").symlink_to("../outside.npy")
    (world / "allowed" / "in.npy").symlink_to("deep/good.npy")
    (world / "allowed" / "round").symlink_to("round")
    (world / "allowed-not").mkdir()
    (world / "allowed-not" / "x.npy").write_bytes(GOOD)
    return world


@pytest.fixture(scope="module")
def client(world: Path) -> Iterator[httpx.Client]:
    with administrating(world / "store", import_folder=world / "allowed", max_upload_bytes=1 << 20) as client:
        yield client


@pytest.fixture
def unchanged(world: Path, client: httpx.Client) -> Iterator[None]:
    """Afterwards the store has every byte that it had, no staging, and version 1 serves."""
    before = contents(world / "store")
    folders = sorted((world / "store").rglob("*"))
    yield
    assert contents(world / "store") == before
    assert sorted((world / "store").rglob("*")) == folders
    assert served(client) == "1"


def refusal(
    world: Path, answer: httpx.Response, status: int = 422, code: str = "invalid_request", named: str = ""
) -> dict[str, Any]:
    """The problem, which says what is named and does not say where anything lies on the server."""
    problem = refused(answer, status, code)
    assert named in problem["detail"], problem["detail"]
    for secret in (str(world), ".staging", "received", "/tmp/"):
        assert secret not in answer.text
    return problem


def tar(members: Mapping[str, bytes] | Sequence[tuple[tarfile.TarInfo, bytes]], format_: int = tarfile.PAX_FORMAT) -> bytes:  # fmt: skip  # noqa: E501
    file = io.BytesIO()
    listed = [(plain(name, data), data) for name, data in members.items()] if isinstance(members, Mapping) else members
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        for info, data in listed:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def plain(name: str, data: bytes = b"") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def folder(path: Path, *names: str, below: str = "") -> dict[str, bytes]:
    """Files of a folder, by their names in a tar; all of them where none is named."""
    return {f"{below}{name}": (path / name).read_bytes() for name in names or [file.name for file in path.iterdir()]}


# What can be sent


@dataclass(frozen=True, slots=True)
class Upload:
    """A body, how it is asked to be read, and what comes of it."""

    body: Callable[[], bytes]
    rows: Callable[[], AnyArray]
    query: Query = field(default_factory=dict)
    tokens: Sequence[str] | None = None
    media: str = "application/octet-stream"


def keras_rows() -> RowArray:
    return KERAS_ROWS


def text(header: str = "", separator: str = " ") -> bytes:
    return (header + row_lines(KERAS_ROWS, KERAS_TOKENS).replace(" ", separator)).encode()


def word2vec_binary() -> bytes:
    rows = zip(KERAS_TOKENS, KERAS_ROWS, strict=True)
    return b"7 2\n" + b"".join(token.encode() + b" " + row.tobytes() + b"\n" for token, row in rows)


def parquet() -> bytes:
    file = io.BytesIO()
    columns = {"word": KERAS_TOKENS, "x": KERAS_ROWS[:, 0], "y": KERAS_ROWS[:, 1]}
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def shards() -> bytes:
    index = {"weight_map": {"user": "one.safetensors", "item": "two.safetensors"}}
    return tar({
        "model/one.safetensors": safetensors({"user": KERAS_ROWS}),
        "model/two.safetensors": safetensors({"item": KERAS_ROWS * 2}),
        "model/model.safetensors.index.json": json.dumps(index).encode(),
    })  # fmt: skip


def lines(words: Sequence[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def data_rows(name: str) -> Callable[[], AnyArray]:
    return lambda: np.asarray(np.load(DATA / name), dtype=np.float32)


NORMS: Final = np.linalg.norm(KERAS_ROWS.astype(np.float64), axis=1, keepdims=True)
MODEL2VEC: Final = ("config.json", "model.safetensors", "modules.json", "tokenizer.json")
BERT: Final = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
EXTERNAL: Final = ("external.onnx", "external.data")
UPLOADS: Final = {
    "npy": Upload(lambda: npy(KERAS_ROWS), keras_rows),
    "npy of float64": Upload(lambda: npy(KERAS_ROWS.astype("f8")), keras_rows, media="application/x-npy"),
    "npy transposed": Upload(lambda: npy(KERAS_ROWS.T), keras_rows, {"transpose": "true"}),
    "npy, two rows": Upload(lambda: npy(KERAS_ROWS), lambda: KERAS_ROWS[:2], {"rows": 2}),
    "npy, normalized": Upload(lambda: npy(KERAS_ROWS), lambda: KERAS_ROWS / NORMS, {"normalize": "true"}),
    "npy, max_norm": Upload(
        lambda: npy(KERAS_ROWS), lambda: KERAS_ROWS * np.minimum(1, 2 / NORMS), {"max_norm": 2.0}
    ),
    "npy as float16": Upload(
        lambda: npy(KERAS_ROWS), lambda: KERAS_ROWS.astype("f2").astype("f4"), {"dtype": "float16"}
    ),
    "npz": Upload(lambda: npz(a=KERAS_ROWS), keras_rows),
    "npz of two": Upload(lambda: npz(a=KERAS_ROWS * 9, b=KERAS_ROWS), keras_rows, {"tensor": "b"}),
    "safetensors": Upload(lambda: safetensors({"weight": KERAS_ROWS}), keras_rows, {"format": "safetensors"}),
    "safetensors of two": Upload(
        lambda: safetensors({"u": KERAS_ROWS * 9, "v": KERAS_ROWS}), keras_rows, {"tensor": "v"}
    ),
    "word2vec": Upload(lambda: text("7 2\n"), keras_rows, tokens=KERAS_TOKENS, media="text/plain"),
    "word2vec-binary": Upload(word2vec_binary, keras_rows, tokens=KERAS_TOKENS),
    "glove": Upload(text, keras_rows, {"format": "glove"}, KERAS_TOKENS),
    "glove, selected": Upload(
        lambda: tar({"glove.txt": text(), "list": lines(["you", "to", "nowhere"])}),
        lambda: np.array([KERAS_ROWS[3], KERAS_ROWS[1], [0, 0]]),
        {"select": "list", "missing": "zeros", "format": "glove"},
        ("you", "to", "nowhere"),
    ),
    "csv": Upload(lambda: text("word,a,b\n", ","), keras_rows, {"token_column": "word"}, KERAS_TOKENS, "text/csv"),
    "tsv": Upload(lambda: text("", "\t"), keras_rows, tokens=KERAS_TOKENS),
    "parquet": Upload(parquet, keras_rows, {"token_column": "word"}, KERAS_TOKENS),
    "keras": Upload((DATA / "keras/sequential.keras").read_bytes, data_rows("keras/sequential.keras.npy")),
    "keras of two": Upload((DATA / "keras/two.keras").read_bytes, data_rows("keras/two.user.npy"), {"tensor": "user"}),
    "pytorch": Upload((DATA / "pytorch/zip/float32.pt").read_bytes, data_rows("pytorch/float32.npy")),
    "pytorch before 1.6": Upload((DATA / "pytorch/legacy/float32.pt").read_bytes, data_rows("pytorch/float32.npy")),
    "onnx": Upload((DATA / "onnx/torch.onnx").read_bytes, data_rows("onnx/torch.npy")),
    "tar: onnx and its data": Upload(
        lambda: tar(folder(DATA / "onnx", *EXTERNAL)), data_rows("onnx/external.npy"), {"file": "external.onnx"}
    ),
    "tar: one npy": Upload(lambda: tar({"a/b/table.npy": npy(KERAS_ROWS)}), keras_rows),
    "tar: npy and vocabulary.txt": Upload(
        lambda: tar({"table.npy": npy(KERAS_ROWS), "vocabulary.txt": lines(KERAS_TOKENS)}), keras_rows,
        tokens=KERAS_TOKENS, media="application/x-tar",
    ),
    "tar: npy and named words": Upload(
        lambda: tar({"./w/table.npy": npy(KERAS_ROWS), "./w/its words": lines(KERAS_TOKENS)}),
        keras_rows, {"vocabulary": "w/its words"}, KERAS_TOKENS,
    ),
    "tar: one of two npy": Upload(
        lambda: tar({"a.npy": npy(KERAS_ROWS * 9), "b.npy": npy(KERAS_ROWS)}), keras_rows, {"file": "b.npy"}
    ),
    "tar: GNU, with a long name": Upload(
        lambda: tar([(plain(f"{'n' * 120}.npy", npy(KERAS_ROWS)), npy(KERAS_ROWS))], tarfile.GNU_FORMAT), keras_rows
    ),
    "tar: safetensors shards": Upload(shards, keras_rows, {"tensor": "user"}),
    "tar: a static text model": Upload(
        lambda: tar(folder(DATA / "static_text/model2vec_float32", *MODEL2VEC, below="model/")),
        data_rows("static_text/model2vec_float32/rows.npy"),
    ),
    "tar: a Hugging Face model": Upload(
        lambda: tar(folder(DATA / "huggingface/bert", *BERT)), data_rows("huggingface/bert/rows.npy"),
        {"format": "huggingface"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with administrating(tmp_path_factory.mktemp("taking")) as client:
        yield client


@pytest.mark.parametrize("case", UPLOADS)
def test_every_format_becomes_a_version(taking: httpx.Client, case: str) -> None:
    upload, table = UPLOADS[case], f"t{list(UPLOADS).index(case)}"
    answer = taking.post(
        f"/v1/admin/tables/{table}/versions",
        content=upload.body(),
        params={**upload.query, "activate": "true"},
        headers={"content-type": upload.media},
    )
    assert ok(answer, 201) == {"table": table, "version": 1, "active": True}
    assert answer.headers["location"] == f"/v1/tables/{table}/versions/1"
    assert ok(taking.get(answer.headers["location"]))["num_embeddings"] == len(upload.rows())
    assert_rows(taking, table, upload.rows())
    if upload.tokens is not None:
        asked = taking.post(f"/v1/tables/{table}/lookup", json={"tokens": list(upload.tokens)})
        np.testing.assert_allclose(asked.json()["vectors"], upload.rows(), rtol=1e-6)


def assert_rows(client: httpx.Client, table: str, rows: AnyArray) -> None:
    headers = {"accept": "application/x-npy"}
    asked = client.post(f"/v1/tables/{table}/lookup", json={"ids": list(range(len(rows)))}, headers=headers)
    np.testing.assert_allclose(np.load(io.BytesIO(asked.content)), rows, rtol=1e-6)


def test_special_rows_and_the_note_are_kept_with_the_version(store: TableStore) -> None:
    asked: Query = {"padding_id": 0, "unk_id": 1, "on_oov": "unk", "dtype": "int8", "note": "CC0 ü", "file": "my.npy"}
    with administrating(store.root) as client:
        ok(client.post(VERSIONS, content=GOOD, params=asked), 201)
        said = ok(client.get("/v1/tables/words/versions/2"))
        source = ok(client.get("/v1/admin/tables/words"))["versions"][1]["source"]
    assert {name: said[name] for name in ("padding_id", "unk_id", "on_oov", "dtype")} == {
        "padding_id": 0, "unk_id": 1, "on_oov": "unk", "dtype": "int8",
    }  # fmt: skip
    assert (source["format"], source["note"], source["file"]) == ("npy", "CC0 ü", "my.npy")


def test_an_upload_without_activate_leaves_the_old_version_in_force(store: TableStore) -> None:
    with administrating(store.root) as client:
        answer = client.post(VERSIONS, content=GOOD)
        assert ok(answer, 201) == {"table": "words", "version": 2, "active": False}
        assert answer.headers["location"] == "/v1/tables/words/versions/2"
        assert served(client) == "1"
        answer = client.post("/v1/admin/tables/fresh/versions", content=GOOD)
        assert ok(answer, 201) == {"table": "fresh", "version": 1, "active": False}
        assert client.post("/v1/tables/fresh/lookup", json={"ids": [0]}).status_code in (404, 503)
    assert store.active_version("fresh") is None
    assert not list(store.root.glob("*/.staging*"))


def test_an_upload_is_in_the_audit_log_and_the_history(store: TableStore) -> None:
    with administrating(store.root) as client:
        ok(client.post(VERSIONS, content=GOOD, params={"activate": "true"}), 201)
        history = ok(client.get("/v1/admin/tables/words"))["history"]
    assert (history[-1]["version"], history[-1]["by"]) == (2, "activate by admin")


@pytest.mark.parametrize("size", [1, 1 << 10, 1 << 20])
def test_a_body_in_chunks_is_taken_as_one(store: TableStore, size: int) -> None:
    rows = np.random.default_rng(0).random((100_000, 8), dtype=np.float32)
    body = npy(rows if size > 1 else rows[:10])
    pieces = (body[first : first + size] for first in range(0, len(body), size))
    with administrating(store.root) as client:
        ok(client.post(VERSIONS, content=pieces, params={"activate": "true"}), 201)
        assert_rows(client, "words", (rows if size > 1 else rows[:10])[:1000])


def test_two_uploads_at_once_become_two_versions(store: TableStore) -> None:
    with administrating(store.root) as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: client.post(VERSIONS, content=npy(KERAS_ROWS * n)), range(2, 8)))
        versions = [ok(answer, 201)["version"] for answer in answers]
        assert sorted(versions) == [2, 3, 4, 5, 6, 7]
        for n, version in zip(range(2, 8), versions, strict=True):
            asked = client.post(f"/v1/tables/words/versions/{version}/lookup", json={"ids": [0]})
            np.testing.assert_array_equal(np.float32(asked.json()["vectors"]), KERAS_ROWS[:1] * n)


# What it must hash to


def digest(algorithm: str, body: bytes = GOOD) -> str:
    return base64.b64encode(hashlib.new(algorithm, body).digest()).decode()


SHA256, SHA512 = digest("sha256"), digest("sha512")


@pytest.mark.parametrize(
    "value",
    [
        f"sha-256=:{SHA256}:",
        f"sha-512=:{SHA512}:",
        f"sha-256=:{SHA256}:, sha-512=:{SHA512}:",
        f"md5=:AAAA: , sha-256=:{SHA256}:",
        f"sha-256=:{SHA256}:;n=1",
        f"md5=:AAAA:,sha-256=:{SHA256}:",
    ],
)
def test_a_body_that_has_its_digest_is_taken(taking: httpx.Client, value: str) -> None:
    ok(taking.post(VERSIONS, content=GOOD, headers={"content-digest": value}), 201)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (f"sha-256=:{digest('sha256', GOOD + b'x')}:", "sha-256"),
        (f"sha-512=:{digest('sha512', GOOD + b'x')}:", "sha-512"),
        (f"sha-256=:{SHA256}:, sha-512=:{digest('sha512', b'')}:", "sha-512"),
        (f"sha-256=:{SHA512}:", "sha-256"),
        ("sha-256=::", "sha-256"),
        (f"md5=:{digest('md5')}:", "none of sha-256, sha-512"),
        (f"SHA-256=:{SHA256}:", "must be like"),
        (f"sha-256={SHA256}", "must be like"),
        (f"sha-256=:{SHA256}", "must be like"),
        (hashlib.sha256(GOOD).hexdigest(), "must be like"),
        ("sha-256=:A:", "base64"),
        ("sha-256=:ä:", "must be like"),
        ("", "must be like"),
        (",", "must be like"),
        ("sha-256=:" + "A" * 5000 + ":", "4096"),
    ],
)
def test_a_body_without_its_digest_or_a_digest_that_is_none_is_refused(
    world: Path, client: httpx.Client, value: str, named: str
) -> None:
    answer = client.post(VERSIONS, content=GOOD, headers={b"content-digest": value.encode()})
    assert refusal(world, answer, named=named)["field"] == "Content-Digest"


# What is too long, or not all there


@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_breaks_off_leaves_nothing(world: Path, client: httpx.Client) -> None:
    with half_an_upload(client, "Content-Length: 1000\r\n", b"x" * 500):
        until(lambda: staging(world))
    until(lambda: not staging(world))


@pytest.mark.usefixtures("unchanged")
def test_a_chunked_upload_that_breaks_off_leaves_nothing(world: Path, client: httpx.Client) -> None:
    with half_an_upload(client, "Transfer-Encoding: chunked\r\n", b"1f4\r\n" + b"x" * 500 + b"\r\n"):
        until(lambda: staging(world))
    until(lambda: not staging(world))


def staging(world: Path) -> list[Path]:
    return list((world / "store").glob("*/.staging*"))


def half_an_upload(client: httpx.Client, head: str, body: bytes) -> socket.socket:
    address = urlsplit(str(client.base_url))
    connection = socket.create_connection((str(address.hostname), address.port or 0), timeout=30)
    start = f"POST {VERSIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n{head}\r\n"
    connection.sendall(start.encode() + body)
    return connection


@pytest.mark.usefixtures("unchanged")
def test_a_length_beyond_the_limit_is_refused_before_the_body(client: httpx.Client) -> None:
    for length in ("1048577", "9" * 30):
        with half_an_upload(client, f"Content-Length: {length}\r\n", b"") as connection:
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ") or (len(length) > 18 and answer.startswith(b"HTTP/1.1 400 "))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_beyond_the_limit_is_refused(world: Path, client: httpx.Client, chunked: bool) -> None:
    body = npy(np.zeros((1 << 17, 2), np.float32))
    content = (body[first : first + 65536] for first in range(0, len(body), 65536)) if chunked else body
    problem = refusal(world, client.post(VERSIONS, content=content), 413, "request_too_large")
    assert (problem["limit"], problem["allowed"]) == ("EMBEDDING_MAX_UPLOAD_BYTES", 1 << 20)


def test_an_upload_of_just_the_limit_is_taken(tmp_path: Path) -> None:
    with administrating(tmp_path, max_upload_bytes=len(GOOD)) as client:
        ok(client.post(VERSIONS, content=GOOD), 201)
        ok(client.post(VERSIONS, content=iter([GOOD[:7], GOOD[7:]])), 201)


# What is refused


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "empty"),
        (b"\0" * 10_240, "not recognised"),
        (b"hello", "not recognised"),
        (GOOD[:-1], "bytes"),
        (GOOD[:60], ""),
        (GOOD + b"x", "bytes"),
        (npy(np.array([[1.0, np.nan]])), "row 0"),
        (npy(np.zeros(7)), "[7]"),
        (npy(np.zeros((0, 4))), "[0, 4]"),
        (npy(np.array([["a", "b"]])), ""),
        (npy(np.array([[{}]], dtype=object)), "object"),
        (npz(a=KERAS_ROWS, b=KERAS_ROWS), "2 arrays"),
        (npz(a=KERAS_ROWS)[:-30], ""),
        (safetensors({"w": KERAS_ROWS})[:-1], ""),
        (text("7 3\n"), ""),
        (text("8 2\n"), ""),
        (word2vec_binary()[:-5], ""),
        (b"word,a,b\nx,1,2\ny,1\n", ""),
        ((DATA / "keras/sequential.keras").read_bytes()[:9_000], ""),
        ((DATA / "onnx/external.onnx").read_bytes(), "external.data"),
        ((DATA / "pytorch/zip/float32.pt").read_bytes()[:500], ""),
        (parquet()[:-10], ""),
        (b"\x1f\x8b\x08" + b"x" * 100, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes of {value[:8]!a}",
)
def test_what_is_no_table_is_refused_with_the_reason(
    world: Path, client: httpx.Client, body: bytes, named: str
) -> None:
    refusal(world, client.post(VERSIONS, content=body), named=named)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("query", "field", "named"),
    [
        ("force=1", "force", "not known"),
        ("activate=maybe", "activate", ""),
        ("activate=true&activate=true", "activate", "twice"),
        ("rows=0", "rows", ""),
        ("rows=x", "rows", ""),
        ("rows=1.5", "rows", ""),
        ("padding_id=-1", "padding_id", ""),
        ("padding_id=7", None, "padding_id 7 is not a row"),
        ("on_oov=unk", None, "unk_id"),
        ("on_oov=nonsense", "on_oov", ""),
        ("dtype=float64", "dtype", ""),
        ("max_norm=0", "max_norm", ""),
        ("max_norm=nan", "max_norm", ""),
        ("max_norm=inf", "max_norm", ""),
        ("missing=any", "missing", ""),
        ("format=exe", "format", "one of npy"),
        ("format=npz", None, ""),
        ("format=static-text", None, ""),
        ("tensor=x", None, ""),
        ("token_column=x", None, "column"),
        ("vocabulary=words.txt", "vocabulary", "words.txt"),
        ("vocabulary=../../words/CURRENT", "vocabulary", "CURRENT"),
        ("vocabulary=/etc/passwd", "vocabulary", "passwd"),
        ("select=/etc/passwd", "select", "passwd"),
        ("select=", "select", ""),
        ("%ff=1", None, "UTF-8"),
        ("note=%ff", None, "UTF-8"),
        ("note=" + "x" * 20_000, None, "16384"),
    ],
)
def test_a_wrong_option_is_named(world: Path, client: httpx.Client, query: str, field: str | None, named: str) -> None:
    problem = refusal(world, client.post(f"{VERSIONS}?{query}", content=GOOD), named=named)
    assert problem.get("field") == field


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ["../up.npy", "/abs/olute.npy", "..", "a\0b", "x" * 500, "a\nb", "."])
def test_a_file_name_says_nothing_of_where_it_goes(world: Path, client: httpx.Client, name: str) -> None:
    problem = refusal(world, client.post(VERSIONS, content=GOOD[:-1], params={"file": name}))
    assert problem["file"] in ("up.npy", "olute.npy", "upload")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("table", ["-x", ".x", "a b", "%C3%A4", "x" * 129, "..%2e"])
def test_a_bad_name_is_no_table(world: Path, client: httpx.Client, table: str) -> None:
    for sent in ({"content": GOOD}, {"json": {"source": "deep/good.npy"}}):
        answer = client.post(f"/v1/admin/tables/{table}/versions", **sent)
        refusal(world, answer, named="table name")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "identity, gzip"])
def test_an_encoded_body_is_refused(world: Path, client: httpx.Client, coding: str) -> None:
    answer = client.post(VERSIONS, content=GOOD, headers={"content-encoding": coding})
    refusal(world, answer, 415, "unsupported_media_type")


def test_a_body_that_is_said_to_be_as_it_is_is_taken(taking: httpx.Client) -> None:
    ok(taking.post(VERSIONS, content=GOOD, headers={"content-encoding": "identity"}), 201)


# What a tar may not have

PLAIN: Final = [(plain("table.npy", GOOD), GOOD)]


def of_size(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def lying(size: int) -> bytes:
    """A tar whose only member says that it is so long."""
    return of_size("table.npy", size).tobuf(tarfile.GNU_FORMAT) + GOOD


def sparse(version: str) -> bytes:
    info = plain("table.npy", GOOD)
    info.pax_headers = {"GNU.sparse.major": version, "GNU.sparse.minor": "0", "GNU.sparse.map": "0,1",
                        "GNU.sparse.size": "9", "GNU.sparse.name": "x", "GNU.sparse.realsize": "9"}  # fmt: skip
    data = b"1\n0\n9\n".ljust(512, b"\0") + GOOD
    info.size = len(data)
    return tar([(info, data)])


def with_pax(**headers: str) -> bytes:
    info = plain("table.npy", GOOD)
    info.pax_headers = headers
    return tar([(info, GOOD)])


def long_names(count: int) -> bytes:
    """So many headers that all say that the next has a longer name."""
    header = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 2
    return (header.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * count + tar({"table.npy": GOOD})


def long_pax(size: int) -> bytes:
    """A header of extended attributes that says that it is so long."""
    header = special("pax", tarfile.XHDTYPE)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT) + b"30 comment=".ljust(512, b"\0") + tar({"table.npy": GOOD})


TARS: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "a name that climbs": (lambda: tar({"../x.npy": GOOD}), "leads out"),
    "a name that climbs within": (lambda: tar({"a/../../x.npy": GOOD}), "leads out"),
    "a name that climbs and comes back": (lambda: tar({"a/../x.npy": GOOD}), "leads out"),
    "an absolute name": (lambda: tar([(plain("/x.npy", GOOD), GOOD)]), "leads out"),
    "an absolute name by pax": (lambda: with_pax(path="/x.npy"), "leads out"),
    "a folder that climbs": (lambda: tar([(special("../up", tarfile.DIRTYPE), b""), *PLAIN]), "leads out"),
    "a name of dots": (lambda: tar({".": GOOD}), "name"),
    "a symbolic link": (lambda: tar([(special("l", tarfile.SYMTYPE, "/etc/passwd"), b""), *PLAIN]), "symbolic link"),
    "a symbolic link within": (
        lambda: tar([*PLAIN, (special("l", tarfile.SYMTYPE, "table.npy"), b"")]), "symbolic link"
    ),
    "a file through a link": (
        lambda: tar([(special("d", tarfile.SYMTYPE, ".."), b""), (plain("d/x.npy", GOOD), GOOD)]), "symbolic link"
    ),
    "a hard link": (lambda: tar([*PLAIN, (special("l", tarfile.LNKTYPE, "table.npy"), b"")]), "hard link"),
    "a hard link outside": (lambda: tar([(special("l", tarfile.LNKTYPE, "/etc/passwd"), b"")]), "hard link"),
    "a character device": (lambda: tar([*PLAIN, (special("d", tarfile.CHRTYPE), b"")]), "device"),
    "a block device": (lambda: tar([*PLAIN, (special("d", tarfile.BLKTYPE), b"")]), "device"),
    "a FIFO": (lambda: tar([*PLAIN, (special("f", tarfile.FIFOTYPE), b"")]), "special"),
    "a continuous file": (lambda: tar([(special("c", tarfile.CONTTYPE), b""), *PLAIN]), ""),
    "an unknown type": (lambda: tar([(special("u", b"Z"), b""), *PLAIN]), ""),
    "a sparse file, GNU 0.1": (lambda: sparse("0"), "sparse"),
    "a sparse file, GNU 1.0": (lambda: sparse("1"), "sparse"),
    "two of one name": (lambda: tar([*PLAIN, *PLAIN]), "same name"),
    "two of one name, spelt otherwise": (lambda: tar([*PLAIN, (plain("./table.npy", GOOD), GOOD)]), "same name"),
    "a file for a folder": (lambda: tar({"a": GOOD, "a/b": GOOD}), "same name"),
    "a folder for a file": (lambda: tar({"a/b": GOOD, "a": GOOD}), "same name"),
    "2,000 members": (lambda: tar({f"f{number}": b"" for number in range(2000)}), "1000 members"),
    "2,000 folders": (
        lambda: tar([(special(f"d{number}", tarfile.DIRTYPE), b"") for number in range(2000)]), "1000 members"
    ),
    "cut in a file": (lambda: tar({"table.npy": GOOD * 9})[:700], "end of data"),
    "cut in a header": (lambda: tar({"a.npy": GOOD, "b.npy": GOOD})[:1100], "end mark"),
    "cut between two files": (lambda: tar({"a.npy": GOOD, "vocabulary.txt": b""})[:1024], "end mark"),
    "a damaged header": (
        lambda: tar({"a.npy": GOOD, "vocabulary.txt": b""}).replace(b"vocab", b"Vocab"), "header in it is damaged"
    ),
    "a wrong checksum": (lambda: tar({"table.npy": GOOD}).replace(b"ustar", b"ustar\0x"[:5], 1)[:148] + b"x" * 900, ""),
    "no files, a folder": (lambda: tar([(special("d", tarfile.DIRTYPE), b"")]), "no file"),
    "an empty file": (lambda: tar({"table.npy": b""}), "empty"),
    "a name that is too long": (lambda: tar({f"{'x' * 300}.npy": GOOD}), "name"),
    "a path that is too long": (lambda: tar({"/".join(["x" * 99] * 11): GOOD}), "name"),
    "a name with a line end": (lambda: tar({"a\nb": GOOD, "c": GOOD}), "file"),
    "a name that is not UTF-8": (
        lambda: tar({"n.npy": GOOD}, tarfile.GNU_FORMAT).replace(b"n.npy", b"\xff.npy"), ""
    ),
    "900 long names": (lambda: long_names(900), "tar"),
    "attributes that say they are long": (lambda: long_pax(1 << 40), "tar"),
    "a negative size": (lambda: with_pax(size="-5"), ""),
    "a size that is no number": (lambda: with_pax(size="x"), ""),
    "two tables": (lambda: tar({"a.npy": GOOD, "b.npy": GOOD}), "which file has the table"),
    "a tar in the tar": (lambda: tar({"a.tar": tar({"table.npy": GOOD})}), "not recognised"),
    "a damaged table": (lambda: tar({"d/table.npy": GOOD[:-1]}), "d/table.npy"),
    "words for other rows": (lambda: tar({"t.npy": GOOD, "vocabulary.txt": b"a\nb\n"}), "vocabulary.txt"),
    "a shard that is missing": (
        lambda: tar({"m.index.json": b'{"weight_map": {"a": "m.safetensors"}}', "x.safetensors": b""}), "m.safetensors"
    ),
    "an index that climbs": (
        lambda: tar({"m.index.json": b'{"weight_map": {"a": "../../../x.safetensors"}}', "x": b""}), "index.json"
    ),
    "external data that is missing": (lambda: tar(folder(DATA / "onnx", "external.onnx")), "external.data"),
}  # fmt: skip


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("case", TARS)
def test_a_tar_that_is_not_taken_is_refused_with_the_reason(world: Path, client: httpx.Client, case: str) -> None:
    body, named = TARS[case]
    refusal(world, client.post(VERSIONS, content=body()), named=named)
    assert not (world / "x.npy").exists()
    assert not (world / "store" / "x.npy").exists()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("size", [(1 << 20) + 1, 1 << 33, (1 << 63) + 5])
def test_a_tar_that_is_larger_unpacked_than_the_limit_is_refused(world: Path, client: httpx.Client, size: int) -> None:
    problem = refusal(world, client.post(VERSIONS, content=lying(size)), 413, "request_too_large")
    assert problem["limit"] == "EMBEDDING_MAX_UPLOAD_BYTES"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ["c.npy", "../a.npy", "/a.npy", "/etc/passwd"])
def test_a_file_that_is_not_in_the_tar_is_answered_with_those_that_are(
    world: Path, client: httpx.Client, name: str
) -> None:
    body = tar({"a.npy": GOOD, "d/b.npy": GOOD})
    problem = refusal(world, client.post(VERSIONS, content=body, params={"file": name}), named="a.npy, d/b.npy")
    assert problem["field"] == "file"


# From a folder of the server


def source(client: httpx.Client, name: str, **query: str) -> httpx.Response:
    return client.post(VERSIONS, json={"source": name}, params=query)


def sources(allowed: Path) -> dict[str, str]:
    return {
        "relative": "deep/good.npy",
        "with dots inside": "deep/../deep/./good.npy",
        "absolute": str(allowed / "deep" / "good.npy"),
        "through a link that stays inside": "in.npy",
    }


@pytest.mark.parametrize("case", sources(Path()))
def test_a_file_below_the_allowed_folder_is_imported(world: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "link").symlink_to(world / "allowed")
    for allowed in (world / "allowed", tmp_path / "link"):
        with administrating(tmp_path / "store", import_folder=allowed) as client:
            answer = source(client, sources(allowed)[case], activate="true", padding_id="0")
            assert ok(answer, 201)["active"]
            assert answer.headers["location"].startswith("/v1/tables/words/versions/")
            assert_rows(client, "words", KERAS_ROWS * 3)
            assert str(world) not in client.get("/v1/admin/tables/words").text


def test_a_model_and_its_words_are_imported_from_folders(tmp_path: Path) -> None:
    model = tmp_path / "allowed" / "model"
    model.mkdir(parents=True)
    for name, data in folder(DATA / "static_text/model2vec_float32", *MODEL2VEC).items():
        (model / name).write_bytes(data)
    (tmp_path / "allowed" / "table.npy").write_bytes(npy(KERAS_ROWS))
    (tmp_path / "allowed" / "words").write_bytes(lines(KERAS_TOKENS))
    with administrating(tmp_path / "store", import_folder=tmp_path / "allowed") as client:
        ok(source(client, "model", activate="true"), 201)
        assert_rows(client, "words", np.load(DATA / "static_text/model2vec_float32/rows.npy"))
        ok(source(client, "table.npy", vocabulary="words", activate="true"), 201)
        assert client.post("/v1/tables/words/lookup", json={"tokens": ["hope"]}).status_code == 200


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "name",
    ["../outside.npy", "deep/../../outside.npy", "out.npy", "out/outside.npy", "/etc/passwd", "..", ".", "out",
     "../allowed-not/x.npy", "a\0b", "/", "~", "../store/words/1/vectors.npy"],
)  # fmt: skip
def test_a_source_outside_the_allowed_folder_is_forbidden(world: Path, client: httpx.Client, name: str) -> None:
    if name == "~":
        refusal(world, source(client, name), 422, named="no such file")
    else:
        refusal(world, source(client, name), 403, "forbidden", "not below")
        refusal(world, source(client, "deep/good.npy", vocabulary=name), 403, "forbidden", "not below")
        refusal(world, source(client, "deep/good.npy", select=name), 403, "forbidden", "not below")


@pytest.mark.usefixtures("unchanged")
def test_a_file_of_the_server_is_not_told_from_none_outside_the_folder(world: Path, client: httpx.Client) -> None:
    there, gone = source(client, "../outside.npy"), source(client, "../nothing.npy")
    assert there.text.replace("outside", "nothing") == gone.text


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nope.npy", "nope.npy: there is no such file"),
        ("deep/nope.npy", "deep/nope.npy: there is no such file"),
        ("deep", ""),
        ("bad.npy", "bad.npy"),
        ("deep/good.npy/x", "no such file"),
    ],
    ids=["missing", "missing deeper", "a folder", "damaged", "below a file"],
)
def test_a_source_that_is_no_table_is_refused(world: Path, client: httpx.Client, name: str, named: str) -> None:
    refusal(world, source(client, name), named=named)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ["round", "x" * 300, "x/" * 3000], ids=["a circle", "a long name", "a long path"])
def test_a_source_that_no_file_can_be_is_refused(world: Path, client: httpx.Client, name: str) -> None:
    answer = source(client, name)
    assert answer.status_code in (403, 422), answer.text
    assert str(world) not in answer.text


@pytest.mark.usefixtures("unchanged")
def test_words_of_a_source_that_are_missing_are_named(world: Path, client: httpx.Client) -> None:
    refusal(world, source(client, "deep/good.npy", vocabulary="nope.txt"), named="nope.txt")
    refusal(world, source(client, "deep/good.npy", select="nope.txt"), named="nope.txt")


def test_without_a_folder_no_source_is_allowed(store: TableStore) -> None:
    before = contents(store.root)
    with administrating(store.root) as client:
        problem = refusal(store.root, source(client, "good.npy"), 403, "forbidden")
    assert "EMBEDDING_IMPORT_FOLDER" in problem["detail"]
    assert contents(store.root) == before


def test_a_refused_upload_takes_no_number(store: TableStore) -> None:
    with administrating(store.root) as client:
        for _ in range(3):
            refused(client.post(VERSIONS, content=GOOD[:-1]), 422, "invalid_request")
        assert ok(client.post(VERSIONS, content=GOOD), 201)["version"] == 2
    store.verify(TableVersion("words", 2))
