"""The contract of lookups, over every form of request and answer, on every way that a lookup may take."""

import io
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.samples import DIM, EXTREME, ROWS, TOKENS
from tests.api.wire import (
    ANSWERS,
    JSON,
    NPY,
    NPZ,
    OCTETS,
    REQUESTS,
    AnswerForm,
    AnyArray,
    Ask,
    Sent,
    as_npz,
    npy,
    npz,
    post,
    read_json,
)

pytestmark = pytest.mark.parametrize("path", ["wire", "front", "behind", "onnx"], indirect=True, scope="session")

W = ROWS
ZERO = np.zeros(DIM, dtype=np.float32)
PADDED = "/v1/tables/padded/lookup"
PLAIN = "/v1/tables/plain/lookup"
LEFT_OUT = None


def unit(vectors: AnyArray) -> AnyArray:
    wide = vectors.astype(np.float64)
    result: AnyArray = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    return result


@dataclass(frozen=True)
class Case:
    """A lookup and its answer; `mask` None is a mask that is left out, `exact` is bit for bit."""

    name: str
    ask: Ask
    vectors: Any
    mask: list[Any] | None
    table: str = "padded"
    exact: bool = True
    dtype: str = "float32"
    shape: tuple[int, ...] = field(default=())

    @property
    def wanted(self) -> AnyArray:
        array: AnyArray = np.array(self.vectors)
        return array.reshape(self.shape) if self.shape else array


def pooled(name: str, ask: Ask, vectors: Any, table: str = "padded") -> Case:  # noqa: ANN401
    return Case(name, ask, vectors, LEFT_OUT, table, exact=False)


NORMATIVE = [
    Case("no ids", Ask([]), [], [], shape=(0, DIM)),
    Case("one empty sequence", Ask([[]]), [], [[]], shape=(1, 0, DIM)),
    Case("a sequence", Ask([5, 2]), W[[5, 2]], [True, True]),
    Case("a ragged batch", Ask([[5, 3, 2], [6]]), W[[[5, 3, 2], [6, 0, 0]]], [[True] * 3, [True, False, False]]),
    Case(
        "a ragged batch with padding ids",
        Ask([[5, 0, 2], [0]]),
        W[[[5, 0, 2], [0, 0, 0]]],
        [[True, False, True], [False] * 3],
    ),
    pooled("a pooled batch", Ask([[5, 2], [3, 4]], {"pooling": "sum"}), [W[5] + W[2], W[3] + W[4]]),
    pooled("a pooled sequence", Ask([5, 2], {"pooling": "sum"}), W[5] + W[2]),
    Case(
        "a flat batch",
        Ask([[5, 2], [3, 0]], {"flatten": True}),
        [np.concatenate(W[[5, 2]]), np.concatenate(W[[3, 0]])],
        [[True, True], [True, False]],
    ),
]

SHAPES = [
    Case("one id", Ask([6]), W[[6]], [True]),
    Case("the padding id in a sequence", Ask([0, 5, 0]), W[[0, 5, 0]], [False, True, False]),
    Case("an id many times", Ask([3] * 50), W[[3] * 50], [True] * 50),
    Case("two empty sequences", Ask([[], []]), [], [[], []], shape=(2, 0, DIM)),
    Case("an empty sequence in a batch", Ask([[5, 2], []]), W[[[5, 2], [0, 0]]], [[True, True], [False, False]]),
    Case(
        "three axes", Ask([[[1, 2], [3, 4]], [[5, 6], [0, 1]]]), W[[[[1, 2], [3, 4]], [[5, 6], [0, 1]]]],
        [[[True, True], [True, True]], [[True, True], [False, True]]],
    ),
    Case("three axes of nothing", Ask([[[], []]]), [], [[[], []]], shape=(1, 2, 0, DIM)),
    Case("32 axes", Ask(json.loads("[" * 32 + "4" + "]" * 32)), W[4], json.loads("[" * 32 + "true" + "]" * 32),
         shape=(1,) * 32 + (DIM,)),
    Case("no padding id, padded with zeros", Ask([[5, 0], [6]]), [W[[5, 0]], [W[6], ZERO]],
         [[True, True], [True, False]], "plain"),
]  # fmt: skip

FITTING = [
    Case("padded behind", Ask([[1, 3, 2]], {"length": 5}), W[[[1, 3, 2, 0, 0]]], [[True] * 3 + [False] * 2]),
    Case("padded in front", Ask([[1, 3], [2]], {"length": 3, "padding": "pre"}), W[[[0, 1, 3], [0, 0, 2]]],
         [[False, True, True], [False, False, True]]),
    Case("ragged in front", Ask([[1, 3], [2]], {"padding": "pre"}), W[[[1, 3], [0, 2]]], [[True, True], [False, True]]),
    Case("cut behind", Ask([[1, 2, 3], [4]], {"length": 2, "truncation": "post"}), W[[[1, 2], [4, 0]]],
         [[True, True], [True, False]]),
    Case("cut in front", Ask([[1, 2, 3], [4]], {"length": 2, "truncation": "pre"}), W[[[2, 3], [4, 0]]],
         [[True, True], [True, False]]),
    Case("cut in front, padded in front", Ask([[1, 2, 3], [4]], {"length": 2, "truncation": "pre", "padding": "pre"}),
         W[[[2, 3], [0, 4]]], [[True, True], [False, True]]),
    Case("a sequence to a length", Ask([5], {"length": 3}), W[[5, 0, 0]], [True, False, False]),
    Case("nothing to a length", Ask([], {"length": 2}), W[[0, 0]], [False, False]),
    Case("nothing to a length without a padding id", Ask([[]], {"length": 2}), [[ZERO, ZERO]], [[False, False]],
         "plain"),
    Case("the length that it has", Ask([[1, 2]], {"length": 2}), W[[[1, 2]]], [[True, True]]),
    Case("three axes to a length", Ask([[[1, 2], [3, 4]]], {"length": 3}), W[[[[1, 2, 0], [3, 4, 0]]]],
         [[[True, True, False], [True, True, False]]]),
    Case("three axes cut", Ask([[[1, 2], [3, 4]]], {"length": 1, "truncation": "pre"}), W[[[[2], [4]]]],
         [[[True], [True]]]),
    Case("padded and flat", Ask([[1], [2, 3]], {"length": 2, "flatten": True}),
         [np.concatenate(W[[1, 0]]), np.concatenate(W[[2, 3]])], [[True, False], [True, True]]),
    Case("a flat sequence", Ask([5, 2], {"flatten": True}), np.concatenate(W[[5, 2]]), [True, True]),
    pooled("cut, then pooled", Ask([[1, 2, 3], [4]], {"length": 2, "truncation": "pre", "pooling": "sum"}),
           [W[2] + W[3], W[4]]),
    pooled("padded, then pooled", Ask([[1, 2, 3], [4]], {"length": 9, "pooling": "mean"}), [W[1:4].mean(0), W[4]]),
]  # fmt: skip

MASKS = [
    Case("an explicit mask takes the place of the derived one", Ask([0, 5], mask=[True, False]), W[[0, 5]],
         [True, False]),
    Case("an explicit mask of ones and zeros", Ask([[5, 2], [0, 1]], mask=[[0, 1], [1, 0]]), W[[[5, 2], [0, 1]]],
         [[False, True], [True, False]]),
    Case("an explicit ragged mask", Ask([[5, 2], [0]], mask=[[True, False], [True]]), W[[[5, 2], [0, 0]]],
         [[True, False], [True, False]]),
    Case("an explicit mask does not reach padding", Ask([[5]], {"length": 2}, mask=[[True]]), W[[[5, 0]]],
         [[True, False]]),
    Case("an explicit mask is cut like its ids", Ask([1, 2, 3], {"length": 2, "truncation": "pre"}, [1, 0, 1]),
         W[[2, 3]], [False, True]),
    Case("an explicit mask of nothing", Ask([[]], mask=[[]]), [], [[]], shape=(1, 0, DIM)),
    Case("masked rows are kept", Ask([0, 5], {"masked": "keep"}), W[[0, 5]], [False, True]),
    Case("masked rows are made zero", Ask([[5, 0], [2]], {"masked": "zero"}), [[W[5], ZERO], [W[2], ZERO]],
         [[True, False], [True, False]]),
    Case("explicitly masked rows are made zero", Ask([5, 0], {"masked": "zero"}, [False, True]), [ZERO, W[0]],
         [False, True]),
]  # fmt: skip

OUTSIDE = [
    Case("zeros", Ask([5, 7, -1], {"on_oov": "zeros"}), [W[5], ZERO, ZERO], [True] * 3),
    Case("the unknown row", Ask([5, 7, -1], {"on_oov": "unk"}), W[[5, 1, 1]], [True] * 3),
    Case("masked", Ask([[5, 7], [-1, 0]], {"on_oov": "mask"}), [[W[5], ZERO], [ZERO, W[0]]],
         [[True, False], [False, False]]),
    Case("zeros in a ragged batch", Ask([[5, 99], [7]], {"on_oov": "zeros"}), [[W[5], ZERO], [ZERO, W[0]]],
         [[True, True], [True, False]]),
    Case("a rule without use", Ask([5], {"on_oov": "mask"}), W[[5]], [True]),
    Case("masked in spite of an explicit mask", Ask([5, 7], {"on_oov": "mask"}, [True, True]), [W[5], ZERO],
         [True, False]),
    Case("the table's rule, zeros", Ask([5, 7]), [W[5], ZERO], [True, True], "default-zeros"),
    Case("the table's rule, the unknown row", Ask([5, 7]), W[[5, 1]], [True, True], "default-unk"),
    Case("the table's rule, masked", Ask([5, 7]), [W[5], ZERO], [True, False], "default-mask"),
    Case("a rule instead of the table's", Ask([5, 7], {"on_oov": "zeros"}), [W[5], ZERO], [True, True],
         "default-mask"),
    pooled("zeros count in a mean", Ask([5, 7], {"on_oov": "zeros", "pooling": "mean"}), W[5] / 2),
    pooled("masked does not count in a mean", Ask([5, 7], {"on_oov": "mask", "pooling": "mean"}), W[5]),
]  # fmt: skip

RAGGED = [[5, 0, 2], [3], [], [0]]
WEIGHED = [[2.0, 9.0, 0.5], [0.25], [], [1.0]]
ROOT = np.sqrt(2.0**2 + 0.5**2)
POOLING = [
    pooled("sum", Ask(RAGGED, {"pooling": "sum"}), [W[5] + W[2], W[3], ZERO, ZERO]),
    pooled("mean", Ask(RAGGED, {"pooling": "mean"}), [(W[5] + W[2]) / 2, W[3], ZERO, ZERO]),
    pooled("max", Ask(RAGGED, {"pooling": "max"}), [np.maximum(W[5], W[2]), W[3], ZERO, ZERO]),
    pooled("sqrtn", Ask(RAGGED, {"pooling": "sqrtn"}), [(W[5] + W[2]) / np.sqrt(2), W[3], ZERO, ZERO]),
    pooled("no ids", Ask([], {"pooling": "mean"}), ZERO),
    pooled("one empty sequence", Ask([[]], {"pooling": "max"}), [ZERO]),
    pooled("three axes", Ask([[[1, 2], [3, 4]]], {"pooling": "sum"}), [[W[1] + W[2], W[3] + W[4]]]),
    pooled("an explicit mask", Ask([[5, 2], [0, 3]], {"pooling": "sum"}, [[1, 0], [1, 1]]), [W[5], W[0] + W[3]]),
    pooled("weighed sum", Ask(RAGGED, {"pooling": "sum"}, weights=WEIGHED),
           [2 * W[5] + 0.5 * W[2], 0.25 * W[3], ZERO, ZERO]),
    pooled("weighed mean", Ask(RAGGED, {"pooling": "mean"}, weights=WEIGHED),
           [(2 * W[5] + 0.5 * W[2]) / 2.5, W[3], ZERO, ZERO]),
    pooled("weighed sqrtn", Ask(RAGGED, {"pooling": "sqrtn"}, weights=WEIGHED),
           [(2 * W[5] + 0.5 * W[2]) / ROOT, W[3], ZERO, ZERO]),
    pooled("weights that sum to zero", Ask([[5, 2]], {"pooling": "mean"}, weights=[[0, 0]]), [ZERO]),
    pooled("integer weights", Ask([5, 2], {"pooling": "sum"}, weights=[3, 1]), 3 * W[5] + W[2]),
]  # fmt: skip

FINISH = [
    Case("normalised", Ask([[5, 2], [0, 3]], {"normalize": True}), unit(W[[[5, 2], [0, 3]]]),
         [[True, True], [False, True]], exact=False),
    Case("a zero vector stays zero", Ask([5, 7], {"normalize": True, "on_oov": "zeros"}), [unit(W[5]), ZERO],
         [True, True], exact=False),
    Case("normalised, then flat", Ask([5, 2], {"normalize": True, "flatten": True}), np.concatenate(unit(W[[5, 2]])),
         [True, True], exact=False),
    pooled("pooled, then normalised", Ask([[5, 2]], {"pooling": "sum", "normalize": True}), [unit(W[5] + W[2])]),
    Case("float16", Ask([[5, 2]], {"dtype": "float16"}), W[[[5, 2]]].astype(np.float16), [[True, True]],
         dtype="float16"),
    Case("float16 of nothing", Ask([], {"dtype": "float16"}), [], [], shape=(0, DIM), dtype="float16"),
    Case("float16 of a normalised and flat batch", Ask([[5, 2]], {"dtype": "float16", "normalize": True,
         "flatten": True}), [np.concatenate(unit(W[[5, 2]]))], [[True, True]], exact=False, dtype="float16"),
    Case("every default named", Ask([5, 0], {"padding": "post", "truncation": "error", "on_oov": "error",
         "masked": "keep", "pooling": "none", "normalize": False, "flatten": False, "dtype": "float32",
         "encoding": "float"}), W[[5, 0]], [True, False]),
]  # fmt: skip

GROUPS = {
    "normative": NORMATIVE,
    "shapes": SHAPES,
    "fitting": FITTING,
    "masks": MASKS,
    "outside": OUTSIDE,
    "pooling": POOLING,
    "finish": FINISH,
}
SENT = [
    pytest.param(case, request, id=f"{group}-{case.name}-{request}")
    for group, cases in GROUPS.items()
    for case in cases
    for request, form in REQUESTS.items()
    if form(case.ask) is not None
]


def check(answer: httpx.Response, case: Case, form: AnswerForm) -> None:
    assert answer.status_code == 200, answer.text
    wanted = case.wanted
    shape = ",".join(map(str, wanted.shape))
    assert answer.headers["content-type"] == form.accept
    assert answer.headers["embedding-table"] == case.table
    assert answer.headers["embedding-version"] == "1"
    assert answer.headers["embedding-shape"] == shape
    assert answer.headers["embedding-dtype"] == case.dtype
    got = form.read(answer)
    assert got.vectors.shape == wanted.shape
    assert got.vectors.dtype == case.dtype
    if case.exact:
        assert got.vectors.tobytes() == wanted.astype(case.dtype).tobytes()
    elif case.dtype == "float32":
        np.testing.assert_allclose(got.vectors, wanted, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(got.vectors, wanted, rtol=1e-3, atol=1e-4)
    if got.says_mask:
        assert (None if got.mask is None else got.mask.tolist()) == case.mask


@pytest.mark.parametrize("form", [pytest.param(form, id=name) for name, form in ANSWERS.items()])
@pytest.mark.parametrize(("case", "request_form"), SENT)
def test_a_lookup_has_one_answer_in_every_form(
    client: httpx.Client, case: Case, request_form: str, form: AnswerForm
) -> None:
    ask = Ask(case.ask.ids, {**case.ask.options, **form.options}, case.ask.mask, case.ask.weights)
    sent = REQUESTS[request_form](ask)
    assert sent is not None
    check(post(client, f"/v1/tables/{case.table}/lookup", sent, form.accept), case, form)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        pytest.param({"ids": [5, 0]}, {"table", "version", "shape", "dtype", "vectors", "mask"}, id="unpooled"),
        pytest.param(
            {"ids": [5], "pooling": "sum"}, {"table", "version", "shape", "dtype", "vectors"}, id="pooled, no mask"
        ),
    ],
)
def test_a_json_answer_has_the_fields_of_the_contract(
    client: httpx.Client, body: dict[str, object], names: set[str]
) -> None:
    content = client.post(PADDED, json=body).json()
    assert set(content) == names
    assert (content["table"], content["version"], content["dtype"]) == ("padded", 1, "float32")


# Requests in less common forms

BATCH = np.array([[5, 2, 0], [3, 6, 1]])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "<i2", ">i2", "<u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"]
)
@pytest.mark.parametrize("media", [NPY, NPZ])
def test_ids_of_every_integer_dtype_and_order_are_read(
    client: httpx.Client, media: str, dtype: str, order: str
) -> None:
    ids = np.asarray(BATCH.astype(dtype), order="F" if order == "F" else "C")
    content = npy(ids) if media == NPY else npz(ids=ids)
    got = read_json(post(client, PADDED, Sent(content, media)))
    assert got.vectors.tobytes() == W[BATCH].tobytes()
    assert got.mask is not None
    assert got.mask.tolist() == (BATCH != 0).tolist()


def test_an_npy_body_of_format_version_2_is_read(client: httpx.Client) -> None:
    got = read_json(post(client, PADDED, Sent(npy(BATCH, (2, 0)), NPY)))
    assert got.vectors.tobytes() == W[BATCH].tobytes()


def test_mask_and_weights_in_fortran_order_belong_to_their_ids(client: httpx.Client) -> None:
    mask, weights = np.array([[1, 0, 1], [1, 1, 0]]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    body = npz(ids=np.asfortranarray(BATCH), mask=np.asfortranarray(mask), weights=weights)
    got = read_json(post(client, PADDED, Sent(body, NPZ, {"pooling": "sum"})))
    wanted = [W[5] + 3 * W[0], 4 * W[3] + 5 * W[6]]
    np.testing.assert_allclose(got.vectors, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["i1", "<i4", "<i8", ">i8", "<u8"])
def test_offsets_of_every_integer_dtype_are_read(client: httpx.Client, dtype: str) -> None:
    body = npz(ids=np.array([5, 2, 3]), offsets=np.array([0, 2, 2, 3], dtype=dtype))
    got = read_json(post(client, PADDED, Sent(body, NPZ)))
    assert got.vectors.tobytes() == W[[[5, 2], [0, 0], [3, 0]]].tobytes()
    assert got.mask is not None
    assert got.mask.tolist() == [[True, True], [False, False], [True, False]]


@pytest.mark.parametrize(
    ("offsets", "shape"),
    [([0], [0, 0, DIM]), ([0, 0], [1, 0, DIM]), ([0, 0, 0], [2, 0, DIM])],
    ids=["no sequence", "one empty sequence", "two empty sequences"],
)
def test_offsets_over_no_ids_give_empty_sequences(client: httpx.Client, offsets: list[int], shape: list[int]) -> None:
    body = npz(ids=np.array([], dtype=np.int64), offsets=np.array(offsets))
    assert post(client, PADDED, Sent(body, NPZ)).json()["shape"] == shape


def test_an_npz_body_may_be_compressed(client: httpx.Client) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, ids=np.array([5, 2]))
    assert read_json(post(client, PADDED, Sent(file.getvalue(), NPZ))).vectors.tobytes() == W[[5, 2]].tobytes()


@pytest.mark.parametrize(
    "content_type",
    [None, JSON, "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_a_json_body_is_read_under_every_name_of_json(client: httpx.Client, content_type: str | None) -> None:
    answer = post(client, PADDED, Sent(b' {"ids": [5]}\n', content_type))
    assert answer.status_code == 200
    assert answer.json()["shape"] == [1, DIM]


def test_identity_is_a_content_encoding(client: httpx.Client) -> None:
    answer = client.post(PADDED, content=b'{"ids": [5]}', headers={"content-encoding": "identity"})
    assert answer.status_code == 200


def test_a_chunked_body_is_read(client: httpx.Client) -> None:
    answer = client.post(PADDED, content=(part for part in (b'{"id', b's": [5', b", 2]}")))
    assert read_json(answer).vectors.tobytes() == W[[5, 2]].tobytes()


# Tokens


@pytest.mark.parametrize(
    ("tokens", "ids"),
    [
        pytest.param(["river", "zebra"], [2, 6], id="a sequence"),
        pytest.param(
            [["\u00fcber", "two words", "\U0001f42d"], ["<pad>"]], [[3, 4, 5], [0, 0, 0]], id="a ragged batch"
        ),
        pytest.param([list(TOKENS)], [list(range(7))], id="the whole vocabulary"),
    ],
)
def test_tokens_give_the_rows_of_their_ids(client: httpx.Client, tokens: list[Any], ids: list[Any]) -> None:
    got = read_json(client.post(PADDED, json={"tokens": tokens}))
    assert got.vectors.tobytes() == W[ids].tobytes()


def test_an_escaped_token_is_the_token(client: httpx.Client) -> None:
    answer = client.post(PADDED, content=rb'{"tokens": ["\u00fcber", "\ud83d\udc2d"]}')
    assert read_json(answer).vectors.tobytes() == W[[3, 5]].tobytes()


@pytest.mark.parametrize(("rule", "row", "known"), [("zeros", ZERO, True), ("unk", W[1], True), ("mask", ZERO, False)])
def test_an_unknown_token_follows_the_rule(client: httpx.Client, rule: str, row: AnyArray, *, known: bool) -> None:
    got = read_json(client.post(PADDED, json={"tokens": ["river", "zzz"], "on_oov": rule}))
    assert got.vectors.tobytes() == np.array([W[2], row]).tobytes()
    assert got.mask is not None
    assert got.mask.tolist() == [True, known]


def test_no_tokens_are_an_empty_sequence(client: httpx.Client) -> None:
    assert client.post(PADDED, json={"tokens": []}).json()["shape"] == [0, DIM]


# Ids outside the table


@pytest.mark.parametrize(
    ("ids", "errors"),
    [
        pytest.param([5, 7], [{"index": [1], "id": 7}], id="in a sequence"),
        pytest.param([[5, 2, 1], [-4]], [{"index": [1, 0], "id": -4}], id="in a ragged batch"),
        pytest.param([[[1, 2], [3, 9]]], [{"index": [0, 1, 1], "id": 9}], id="in three axes"),
        pytest.param([7, 5, 7], [{"index": [0], "id": 7}, {"index": [2], "id": 7}], id="twice"),
    ],
)
@pytest.mark.parametrize("request_form", list(REQUESTS))
def test_an_id_outside_is_named_with_its_position_as_sent(
    client: httpx.Client, ids: list[Any], errors: list[Any], request_form: str
) -> None:
    sent = REQUESTS[request_form](Ask(ids))
    if sent is None:
        sent = as_npz(Ask(ids))
    assert sent is not None
    answer = post(client, PADDED, sent)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "out_of_vocabulary")
    assert (problem["table"], problem["version"], problem["num_embeddings"]) == ("padded", 1, 7)
    assert (problem["total"], problem["errors"]) == (len(errors), errors)


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(Ask([5, 9], mask=[True, False]), id="masked"),
        pytest.param(Ask([5, 9], {"length": 1, "truncation": "post"}), id="cut away"),
        pytest.param(Ask([5, 9], {"length": 4, "padding": "pre"}), id="moved by padding"),
        pytest.param(Ask([5, 9], {"pooling": "sum"}, weights=[1, 0]), id="of weight zero"),
    ],
)
@pytest.mark.parametrize("form", ["json", "npz"])
def test_every_id_sent_is_checked(client: httpx.Client, ask: Ask, form: str) -> None:
    sent = REQUESTS[form](ask)
    assert sent is not None
    problem = post(client, PADDED, sent).json()
    assert (problem["code"], problem["errors"]) == ("out_of_vocabulary", [{"index": [1], "id": 9}])


def test_the_first_hundred_of_all_are_named(client: httpx.Client) -> None:
    problem = client.post(PADDED, json={"ids": [[5, *range(100, 250)]]}).json()
    assert problem["total"] == 150
    assert problem["errors"] == [{"index": [0, i + 1], "id": 100 + i} for i in range(100)]


def test_an_unknown_token_is_named_with_its_position(client: httpx.Client) -> None:
    problem = client.post(PADDED, json={"tokens": [["river"], ["zebra", "zzz"]]}).json()
    assert problem["code"] == "out_of_vocabulary"
    assert problem["errors"] == [{"index": [1, 1], "token": "zzz"}]
    assert (problem["table"], problem["version"], problem["num_embeddings"]) == ("padded", 1, 7)


# Accept


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/X-NPY", NPY),
        ("application/octet-stream", OCTETS),
        ("application/x-npz", NPZ),
        ("application/x-npy, application/json", NPY),
        ("application/x-npy;q=0.5, application/json;q=0.8", JSON),
        ("application/x-npy;q=0.8, application/json;q=0.5", NPY),
        ("application/octet-stream;q=0.9, */*;q=0.1", OCTETS),
        ("*/*, application/x-npz", NPZ),
        ("application/json;q=0, */*", OCTETS),
        ("application/json;q=0, application/octet-stream;q=0, application/*;q=0.2", NPY),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        ("application/x-npy;q=0.001", NPY),
        ("application/x-npy ; q=1.0 , application/json ; q=0.999", NPY),
        ("application/json;version=1;q=0.3, application/x-npz;q=0.4", NPZ),
        ("text/html", None),
        ("application/json;q=0", None),
        ("*/*;q=0", None),
        ("application/*;q=0.0, text/*", None),
        ("application/x-npz;q=0.000", None),
        ("application/jsonp", None),
        ("json", None),
    ],
)
def test_the_answer_has_the_media_type_that_is_liked_best(
    client: httpx.Client, accept: str | None, media: str | None
) -> None:
    request = client.build_request("POST", PADDED, content=b'{"ids": [5]}')
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    answer = client.send(request)
    if media is None:
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (200, media)


def test_several_accept_headers_are_one_list(client: httpx.Client) -> None:
    headers = [("accept", "application/json;q=0.2"), ("accept", "application/x-npy;q=0.7")]
    request = client.build_request("POST", PADDED, content=b'{"ids": [5]}', headers=headers)
    assert client.send(request).headers["content-type"] == NPY


# Versions and labels


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("", 2),
        ("/versions/1", 1),
        ("/versions/2", 2),
        ("/versions/3", 3),
        ("/labels/stable", 1),
        ("/labels/canary", 3),
    ],
)
def test_a_version_or_label_in_the_path_chooses_the_rows(client: httpx.Client, target: str, version: int) -> None:
    answer = client.post(f"/v1/tables/versions{target}/lookup", json={"ids": [5, 2]})
    assert read_json(answer).vectors.tobytes() == (ROWS[[5, 2]] * version).tobytes()
    assert answer.json()["version"] == version
    assert answer.headers["embedding-version"] == str(version)


def test_an_error_names_the_version_that_was_looked_up_in(client: httpx.Client) -> None:
    problem = client.post("/v1/tables/versions/labels/canary/lookup", json={"ids": [7]}).json()
    assert (problem["code"], problem["table"], problem["version"]) == ("out_of_vocabulary", "versions", 3)


def test_a_version_of_a_table_that_has_none_active_can_be_looked_up(client: httpx.Client) -> None:
    answer = client.post("/v1/tables/idle/versions/1/lookup", json={"ids": [5]})
    assert read_json(answer).vectors.tobytes() == ROWS[[5]].tobytes()


# Numbers as text


def significant_digits(number: str) -> int:
    return len(Decimal(number).normalize().as_tuple().digits)


def test_float32_as_json_text_is_the_shortest_that_reads_back_the_same_bits(client: httpx.Client) -> None:
    answer = client.post("/v1/tables/extreme/lookup", json={"ids": list(range(len(EXTREME)))})
    text = re.search(r'"vectors":\[(.*?)\]\]', answer.text)
    assert text is not None
    numbers = text.group(1).replace("[", "").replace("]", "").split(",")
    read_back = np.array([float(number) for number in numbers], dtype=np.float64).astype(np.float32)
    assert read_back.tobytes() == EXTREME.tobytes()
    shortest = [np.format_float_scientific(value, unique=True) for value in EXTREME.ravel()]
    assert [significant_digits(number) for number in numbers] == [significant_digits(number) for number in shortest]


@pytest.mark.parametrize("form", ["base64", "octets", "npy", "npz"])
def test_every_float32_comes_through_in_binary(client: httpx.Client, form: str) -> None:
    ask = Ask(list(range(len(EXTREME))), ANSWERS[form].options)
    sent = REQUESTS["json"](ask)
    assert sent is not None
    answer = post(client, "/v1/tables/extreme/lookup", sent, ANSWERS[form].accept)
    assert ANSWERS[form].read(answer).vectors.tobytes() == EXTREME.tobytes()


def test_a_lookup_does_not_change_the_next(client: httpx.Client) -> None:
    plain = {"ids": [[5, 0], [2]]}
    first = client.post(PADDED, json=plain).content
    for options in ({"masked": "zero"}, {"normalize": True}, {"pooling": "max"}, {"dtype": "float16"}):
        assert client.post(PADDED, json={**plain, **options}).status_code == 200
    assert client.post(PADDED, json=plain).content == first
