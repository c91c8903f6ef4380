"""The Open Inference Protocol over HTTP, driven by Triton's own client and by plain requests."""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from service import __version__
from tests.api.samples import DIM, ROWS, TOKENS

AnyArray = NDArray[Any]
IDS = np.array([[5, 1, 0], [2, 2, 6]], dtype=np.int64)
CODINGS = [None, "gzip", "deflate"]


@pytest.fixture
def server(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def tensor(name: str, datatype: str, array: AnyArray, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def refused(server: triton.InferenceServerClient, *inputs: triton.InferInput, **named: Any) -> tuple[str, str]:  # noqa: ANN401
    """Status and text of an inference that is refused, of the table `plain` if no `model` is named."""
    with pytest.raises(InferenceServerException) as error:
        server.infer(named.pop("model", "plain"), list(inputs), **named)
    return str(error.value.status()), str(error.value.message())


# What the server says of itself


def test_server_metadata(server: triton.InferenceServerClient) -> None:
    assert server.is_server_live()
    said = server.get_server_metadata()
    assert (said["name"], said["version"]) == ("embedding-table-service", __version__)
    assert {"binary_tensor_data", "model_repository"} <= set(said["extensions"])


def test_readiness(server: triton.InferenceServerClient) -> None:
    assert server.is_server_ready()
    assert server.is_model_ready("plain")
    assert server.is_model_ready("versions", "3")
    assert not server.is_model_ready("idle")
    assert not server.is_model_ready("versions", "9")
    assert not server.is_model_ready("nothing")


def test_model_metadata(server: triton.InferenceServerClient) -> None:
    said = server.get_model_metadata("padded")
    assert (said["name"], said["versions"], said["platform"]) == ("padded", ["1"], "embedding_table")
    assert [(each["name"], each["datatype"]) for each in said["inputs"]] == [
        ("ids", "INT64"), ("tokens", "BYTES"), ("mask", "BOOL"), ("weights", "FP32"), ("offsets", "INT64"),
    ]  # fmt: skip
    assert said["outputs"] == [
        {"name": "vectors", "datatype": "FP32", "shape": [-1, -1, DIM]},
        {"name": "mask", "datatype": "BOOL", "shape": [-1, -1]},
    ]


def test_metadata_names_every_version_and_tokens_only_with_a_vocabulary(server: triton.InferenceServerClient) -> None:
    assert server.get_model_metadata("versions")["versions"] == ["1", "2", "3"]
    assert server.get_model_metadata("versions", "3")["versions"] == ["3"]
    assert "tokens" not in [each["name"] for each in server.get_model_metadata("plain")["inputs"]]


def test_configuration(server: triton.InferenceServerClient) -> None:
    said = server.get_model_config("padded")
    assert said["name"] == "padded"
    assert said["version_policy"] == {"specific": {"versions": [1]}}
    assert said["output"][0] == {"name": "vectors", "data_type": "TYPE_FP32", "dims": [-1, -1, DIM]}
    assert said["parameters"]["padding_id"] == {"string_value": "0"}
    assert "padding_id" not in server.get_model_config("plain")["parameters"]


def test_statistics_count_inferences(server: triton.InferenceServerClient) -> None:
    def counted() -> tuple[int, int]:
        (said,) = server.get_inference_statistics("large")["model_stats"]
        return said["inference_stats"]["success"]["count"], said["inference_stats"]["fail"]["count"]

    before = counted()
    server.infer("large", [tensor("ids", "INT64", np.array([0]))])
    refused(server, tensor("ids", "INT64", np.array([3])), model="large")
    assert counted() == (before[0] + 1, before[1] + 1)
    names = [said["name"] for said in server.get_inference_statistics()["model_stats"]]
    assert {"plain", "versions"} <= set(names)
    assert "idle" not in names


def test_index(server: triton.InferenceServerClient, client: httpx.Client) -> None:
    said = {(each["name"], each["version"]): each["state"] for each in server.get_model_repository_index()}
    assert said["versions", "2"] == "READY"
    assert said["versions", "1"] == said["versions", "3"] == said["idle", "1"] == "AVAILABLE"
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert ("idle", "1") not in {(each["name"], each["version"]) for each in ready}
    assert {each["state"] for each in ready} == {"READY"}


# Inferences


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("wanted", [None, True, False], ids=["all out", "binary out", "JSON out"])
@pytest.mark.parametrize("request_coding", CODINGS)
@pytest.mark.parametrize("response_coding", CODINGS)
def test_rows_bit_for_bit(
    server: triton.InferenceServerClient,
    sent: bool,
    wanted: bool | None,
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    names = ("vectors", "mask")
    outputs = None if wanted is None else [triton.InferRequestedOutput(name, binary_data=wanted) for name in names]
    for _ in range(3):  # the second time the head is known, the third time its JSON, too
        found = server.infer(
            "padded",
            [tensor("ids", "INT64", IDS, binary=sent)],
            outputs=outputs,
            request_compression_algorithm=request_coding,
            response_compression_algorithm=response_coding,
        )
        assert found.as_numpy("vectors").tobytes() == ROWS[IDS].tobytes()
        assert found.as_numpy("mask").tolist() == (IDS != 0).tolist()
        said = found.get_response()
        assert (said["model_name"], said["model_version"]) == ("padded", "1")


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT8", "INT16", "UINT64"])
@pytest.mark.parametrize("binary", [True, False])
def test_integers_of_every_size(server: triton.InferenceServerClient, datatype: str, binary: bool) -> None:
    ids = IDS.astype(datatype.lower())
    found = server.infer("plain", [tensor("ids", datatype, ids, binary=binary)])
    assert found.as_numpy("vectors").tobytes() == ROWS[IDS].tobytes()


@pytest.mark.parametrize("shape", [(6,), (1, 6), (2, 3), (3, 1, 2), (1, 1, 1, 6)])
@pytest.mark.parametrize("binary", [True, False])
def test_ids_of_any_rank(server: triton.InferenceServerClient, shape: tuple[int, ...], binary: bool) -> None:
    found = server.infer("plain", [tensor("ids", "INT64", IDS.reshape(shape), binary=binary)])
    assert found.as_numpy("vectors").shape == (*shape, DIM)
    assert found.as_numpy("vectors").tobytes() == ROWS[IDS].tobytes()


@pytest.mark.parametrize("binary", [True, False])
def test_tokens(server: triton.InferenceServerClient, binary: bool) -> None:
    tokens = np.array([[TOKENS[3], TOKENS[4]], [TOKENS[5], TOKENS[0]]], dtype=object)
    found = server.infer("padded", [tensor("tokens", "BYTES", tokens, binary=binary)])
    assert found.as_numpy("vectors").tobytes() == ROWS[[3, 4, 5, 0]].tobytes()
    assert found.as_numpy("mask").tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("binary", [True, False])
def test_mask_and_weights(server: triton.InferenceServerClient, binary: bool) -> None:
    mask = np.array([[True, True, False], [True, False, True]])
    weights = np.array([[1, 2, 9], [0.5, 9, 0.25]], dtype=np.float32)
    inputs = [
        tensor("ids", "INT64", IDS, binary=binary),
        tensor("mask", "BOOL", mask, binary=binary),
        tensor("weights", "FP32", weights, binary=binary),
    ]
    found = server.infer("plain", inputs, parameters={"pooling": "sum"})
    counted = np.where(mask, weights, 0.0).astype(np.float64)
    expected = np.einsum("ij,ijd->id", counted, ROWS[IDS].astype(np.float64))
    np.testing.assert_allclose(found.as_numpy("vectors"), expected, rtol=1e-5, atol=1e-6)
    assert found.as_numpy("mask") is None


@pytest.mark.parametrize("binary", [True, False])
def test_a_ragged_batch_is_flat_with_offsets(server: triton.InferenceServerClient, binary: bool) -> None:
    inputs = [
        tensor("ids", "INT64", np.array([5, 1, 2, 4]), binary=binary),
        tensor("offsets", "INT64", np.array([0, 3, 4]), binary=binary),
    ]
    found = server.infer("padded", inputs)
    assert found.as_numpy("vectors").tobytes() == ROWS[[[5, 1, 2], [4, 0, 0]]].tobytes()
    assert found.as_numpy("mask").tolist() == [[True, True, True], [True, False, False]]


OPTIONS: dict[str, tuple[Mapping[str, Any], tuple[int, ...]]] = {
    "length": ({"length": 5}, (2, 5, DIM)),
    "cut": ({"length": 2, "truncation": "pre"}, (2, 2, DIM)),
    "mean": ({"pooling": "mean"}, (2, DIM)),
    "flat": ({"flatten": True}, (2, 3 * DIM)),
    "unit": ({"normalize": True}, (2, 3, DIM)),
    "zeroed": ({"masked": "zero"}, (2, 3, DIM)),
    "half": ({"dtype": "float16"}, (2, 3, DIM)),
}


@pytest.mark.parametrize(("options", "shape"), OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("binary", [True, False])
def test_options_are_those_of_the_contract(
    server: triton.InferenceServerClient,
    client: httpx.Client,
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    binary: bool,
) -> None:
    ours = client.post("/v1/tables/padded/lookup", json={"ids": IDS.tolist(), **options}).json()
    for _ in range(3):
        names = ("vectors", "mask") if "mask" in ours else ("vectors",)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        found = server.infer("padded", [tensor("ids", "INT64", IDS)], outputs=outputs, parameters=dict(options))
        assert found.get_output("vectors")["datatype"] == ("FP16" if "dtype" in options else "FP32")
        assert found.as_numpy("vectors").shape == shape
        expected = np.array(ours["vectors"], ours["dtype"])
        assert found.as_numpy("vectors").tobytes() == expected.tobytes()
        if "mask" in ours:
            assert found.as_numpy("mask").tolist() == ours["mask"]


def test_only_what_is_asked_for_in_its_order(server: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=True) for name in ("mask", "vectors")]
    found = server.infer("padded", [tensor("ids", "INT64", IDS)], outputs=outputs)
    assert [each["name"] for each in found.get_response()["outputs"]] == ["mask", "vectors"]
    assert found.as_numpy("vectors").tobytes() == ROWS[IDS].tobytes()
    one = server.infer("padded", [tensor("ids", "INT64", IDS)], outputs=outputs[:1])
    assert one.as_numpy("vectors") is None


def test_the_id_is_echoed(server: triton.InferenceServerClient) -> None:
    for identity in ("a", "b", "\u00fc\U0001f42d", "a"):
        found = server.infer("plain", [tensor("ids", "INT64", IDS)], request_id=identity)
        assert found.get_response()["id"] == identity
    assert "id" not in server.infer("plain", [tensor("ids", "INT64", IDS)]).get_response()


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_every_version_answers(server: triton.InferenceServerClient, version: str) -> None:
    found = server.infer("versions", [tensor("ids", "INT64", IDS)], model_version=version)
    assert found.as_numpy("vectors").tobytes() == (ROWS * int(version))[IDS].tobytes()
    assert found.get_response()["model_version"] == version


@pytest.mark.parametrize("count", [300, 4000, 40_000], ids=["small", "large", "very large"])
@pytest.mark.parametrize("model", ["padded", "plain"])
@pytest.mark.parametrize("wanted", [True, False], ids=["binary out", "JSON out"])
def test_large_ones(server: triton.InferenceServerClient, count: int, model: str, wanted: bool) -> None:
    ids = np.random.default_rng(count).integers(0, len(ROWS), (count // 100, 100))
    outputs = [triton.InferRequestedOutput(name, binary_data=wanted) for name in ("vectors", "mask")]
    for _ in range(3):
        found = server.infer(model, [tensor("ids", "INT64", ids)], outputs=outputs)
        assert found.as_numpy("vectors").tobytes() == ROWS[ids].tobytes()
        assert (found.as_numpy("mask") == ((ids != 0) | (model == "plain"))).all()


def test_other_ids_behind_the_same_json(server: triton.InferenceServerClient) -> None:
    for seed in range(5):
        ids = np.random.default_rng(seed).integers(0, len(ROWS), (2, 3))
        found = server.infer("padded", [tensor("ids", "INT64", ids)])
        assert found.as_numpy("vectors").tobytes() == ROWS[ids].tobytes()
        assert found.as_numpy("mask").tolist() == (ids != 0).tolist()
    status, text = refused(server, tensor("ids", "INT64", np.array([[0, 7, 0], [0, 0, -1]])), model="padded")
    assert status == "400"
    assert text == "2 are not in table padded version 1, which has the ids 0 to 6: id 7 at [0, 1], id -1 at [1, 2]"


def test_raw_binary_requests(client: httpx.Client) -> None:
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    for _ in range(3):
        answer = client.post("/v2/models/padded/infer", content=IDS.tobytes(), headers=headers)
        at = int(answer.headers["Inference-Header-Content-Length"])
        said = json.loads(answer.content[:at])
        assert [(each["name"], each["shape"]) for each in said["outputs"]] == [("vectors", [6, DIM]), ("mask", [6])]
        assert answer.content[at:] == ROWS[IDS].tobytes() + (IDS != 0).tobytes()


def test_json_without_a_length_is_all_of_the_body(client: httpx.Client) -> None:
    inputs = [{"name": "ids", "datatype": "INT64", "shape": [2, 3], "data": IDS.tolist()}]
    for data in (IDS.tolist(), IDS.ravel().tolist()):
        inputs[0]["data"] = data
        answer = client.post("/v2/models/plain/infer", json={"inputs": inputs})
        assert answer.headers["content-type"] == "application/json"
        vectors, mask = answer.json()["outputs"]
        assert np.array(vectors["data"], np.float32).tobytes() == ROWS[IDS].tobytes()
        assert (vectors["shape"], mask["shape"], mask["data"]) == ([2, 3, DIM], [2, 3], [True] * 6)


@pytest.mark.parametrize("accept", ["gzip, deflate, br", "br", "identity", "gzip;q=0.5, deflate"])
def test_a_list_of_codings_is_no_wish_for_one(client: httpx.Client, accept: str) -> None:
    inputs = [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [1]}]
    headers = {"Accept-Encoding": accept}
    assert (
        "content-encoding"
        not in client.post("/v2/models/plain/infer", json={"inputs": inputs}, headers=headers).headers
    )


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("binary", [True, False])
def test_no_ids(client: httpx.Client, shape: tuple[int, ...], binary: bool) -> None:
    output = {"name": "vectors", "parameters": {"binary_data": binary}}
    inputs = [{"name": "ids", "datatype": "INT64", "shape": shape, "data": []}]
    answer = client.post("/v2/models/plain/infer", json={"inputs": inputs, "outputs": [output]})
    at = answer.headers.get("Inference-Header-Content-Length")
    (said,) = json.loads(answer.content if at is None else answer.content[: int(at)])["outputs"]
    assert said["shape"] == [*shape, DIM]
    assert said.get("data", []) == []


# What is wrong


def infer(client: httpx.Client, content: Any, model: str = "plain", **headers: str) -> tuple[int, str]:  # noqa: ANN401
    """Status and text of a refusal."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(f"/v2/models/{model}/infer", content=body, headers=names)
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert list(said) == ["error"]
    return answer.status_code, said["error"]


def ids(**fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [2], "data": [1, 2], **fields}]}


def ragged(shape: list[int], offsets: list[int]) -> dict[str, Any]:
    """Two ids, and offsets in a shape."""
    (one,) = ids()["inputs"]
    return {"inputs": [one, {"name": "offsets", "datatype": "INT64", "shape": shape, "data": offsets}]}


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "not valid JSON"),
    "an array": ([], "the request must be an object, not an array"),
    "no inputs": ({}, "inputs must be an array, not null"),
    "an empty list": ({"inputs": []}, "either the input 'ids' or the input 'tokens'"),
    "an unknown input": (ids(name="x"), "there is no input 'x'; there are ids, tokens, mask, weights, offsets"),
    "a number for a name": (ids(name=1), "inputs[0].name must be a string, not an integer"),
    "an unknown datatype": (ids(datatype="INT128"), "the datatype of input 'ids' is not one of BOOL, BYTES"),
    "floats": (ids(datatype="FP32"), "input 'ids' is 'FP32', and must be INT16 or INT32"),
    "no shape": (ids(shape=None), "the shape of input 'ids' must be a list of axes"),
    "a negative axis": (ids(shape=[-1]), "the shape of input 'ids' must be a list of axes"),
    "no axes": (ids(shape=[]), "input 'ids' has 0 axes, and needs 1 to 32"),
    "too few elements": (ids(shape=[3]), "input 'ids' has 2 elements, and its shape [3] needs 3"),
    "another nesting": (ids(data=[[1], [2]]), "the data of input 'ids' is neither flat nor of its shape [2]"),
    "ragged data": (ids(data=[[1], [2, 3]]), "ragged batches are flat, with the input 'offsets'"),
    "no data": (ids(data=None), "the data of input 'ids' must be an array, not null"),
    "a fraction": (ids(data=[1, 2.5]), "ids[1] must be an integer, not a fraction"),
    "a boolean": (ids(data=[1, True]), "ids[1] must be an integer, not a boolean"),
    "a string": (ids(data=[1, "2"]), "ids[1] must be an integer, not a string"),
    "an unknown parameter": (ids() | {"parameters": {"poling": "sum"}}, "unknown parameter 'poling'; there are dtype"),
    "the contract's encoding": (ids() | {"parameters": {"encoding": "base64"}}, "unknown parameter 'encoding'"),
    "a wrong option": (ids() | {"parameters": {"pooling": "median"}}, "pooling must be one of none, sum"),
    "an unknown output": (ids() | {"outputs": [{"name": "y"}]}, "there is no output 'y'; there are vectors, mask"),
    "an output twice": (ids() | {"outputs": [{"name": "mask"}] * 2}, "output 'mask' is asked for twice"),
    "a mask with pooling": (
        ids() | {"outputs": [{"name": "mask"}], "parameters": {"pooling": "sum"}},
        "there is no output 'mask' with pooling",
    ),
    "shared memory": (ids(parameters={"shared_memory_region": "x"}), "input 'ids': shared memory is not supported"),
    "an id that is a number": (ids() | {"id": 1}, "id must be a string, not an integer"),
    "classification": (
        ids() | {"outputs": [{"name": "vectors", "parameters": {"classification": 3}}]},
        "there is no classification of vectors",
    ),
    "bytes that are not there": (
        ids(data=None)
        | {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}}]},
        "input 'ids' should have 8 bytes behind the JSON, 0 are left",
    ),
    "offsets of two axes": (
        ragged([1, 2], [0, 2]),
        "offsets must be a flat array of batch + 1 integers",
    ),
    "offsets beyond 64 bits": (ragged([2], [0, 2**70]), "input 'offsets' holds an integer beyond 64 bits"),
    "offsets that descend": (ragged([3], [0, 3, 2]), "offsets must ascend; offsets[2] is less than the one before"),
    "offsets of other ids": (ragged([2], [0, 3]), "offsets must begin with 0 and end with the 2 ids, not 0 and 3"),
    "an id of 70 bits": (ids(data=[1, 2**70]), f"id {2**70} at [1] is not in table plain version 1"),
    "a bit more than int64": (ids(data=[-(2**63) - 1, 0]), f"id {-(2**63) - 1} at [0] is not in"),
}


@pytest.mark.parametrize(("content", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(client: httpx.Client, content: Any, text: str) -> None:  # noqa: ANN401
    status, said = infer(client, content)
    assert (status, text in said) == (400, True), said


def behind(size: int, sent: bytes, shape: list[int], name: str = "ids", datatype: str = "INT64") -> tuple[bytes, str]:
    """A body with bytes behind its JSON, and the length of that."""
    parameters = {"binary_data_size": size}
    tensors = [{"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}]
    head = json.dumps({"inputs": tensors}).encode()
    return head + sent, str(len(head))


BINARY: dict[str, tuple[tuple[bytes, str], str]] = {
    "bytes for another shape": (behind(8, bytes(8), [2]), "has 8 bytes, and its shape [2] of INT64 needs 16"),
    "bytes that break off": (behind(16, bytes(8), [2]), "should have 16 bytes behind the JSON, 8 are left"),
    "bytes too many": (behind(8, bytes(9), [1]), "9 bytes follow the JSON, and the inputs have 8"),
    "a negative size": (behind(-8, bytes(8), [1]), "binary_data_size of input 'ids' must be a number of bytes"),
    "a length beyond the body": ((b"{}", "3"), "Inference-Header-Content-Length is 3, and the body has 2 bytes"),
    "no length": ((b"{}", "x"), "Inference-Header-Content-Length is not a number of bytes"),
    "a negative length": ((b"{}", "-1"), "Inference-Header-Content-Length is not a number of bytes"),
    "half an id": ((bytes(9), "0"), "9 bytes are not a whole number of INT64 ids"),
    "strings that break off": (
        behind(6, struct.pack("<I", 5) + b"ab", [1], "tokens", "BYTES"), "element 0 of input 'tokens' should have 5"
    ),
    "half a length": (behind(2, b"ab", [1], "tokens", "BYTES"), "element 0 of input 'tokens' breaks off in its length"),
    "no UTF-8": (
        behind(5, struct.pack("<I", 1) + b"\xff", [1], "tokens", "BYTES"), "element 0 of input 'tokens' is not UTF-8"
    ),
    "too many strings": (
        behind(8, struct.pack("<II", 0, 0), [1], "tokens", "BYTES"), "input 'tokens' has 2 elements, and its shape [1]"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "text"), BINARY.values(), ids=BINARY.keys())
def test_what_is_wrong_behind_the_json_is_named(client: httpx.Client, sent: tuple[bytes, str], text: str) -> None:
    for _ in range(2):
        status, said = infer(client, sent[0], "padded", Inference_Header_Content_Length=sent[1])
        assert (status, text in said) == (400, True), said


def test_a_mask_of_another_shape(server: triton.InferenceServerClient) -> None:
    inputs = [tensor("ids", "INT64", IDS), tensor("mask", "BOOL", np.ones((3, 2), np.bool_))]
    assert refused(server, *inputs) == ("400", "input 'mask' must have the shape of the ids, [2, 3], and has [3, 2]")


@pytest.mark.parametrize("binary", [True, False])
def test_weights_that_are_negative(server: triton.InferenceServerClient, binary: bool) -> None:
    weights = np.array([[1, 1, 1], [1, -1, 1]], dtype=np.float32)
    inputs = [tensor("ids", "INT64", IDS), tensor("weights", "FP32", weights, binary=binary)]
    status, text = refused(server, *inputs, parameters={"pooling": "sum"})
    assert (status, text) == ("400", "weights[1][1] must be finite and not negative")


def test_tokens_without_a_vocabulary(server: triton.InferenceServerClient) -> None:
    status, text = refused(server, tensor("tokens", "BYTES", np.array(["x"], dtype=object)))
    assert (status, text) == ("400", "plain version 1 has no vocabulary; send ids")


def test_tokens_outside_the_vocabulary(server: triton.InferenceServerClient) -> None:
    tokens = np.array([["river", "zzz"]], dtype=object)
    status, text = refused(server, tensor("tokens", "BYTES", tokens), model="padded")
    assert (status, text) == ("400", "token 'zzz' at [0, 1] is not in table padded version 1, which has the ids 0 to 6")


MISSING = {
    "a model": ("/v2/models/nothing/infer", "there is no table 'nothing'"),
    "a version": ("/v2/models/versions/versions/9/infer", "table 'versions' has no version 9"),
    "a version that is a word": ("/v2/models/versions/versions/new/infer", "table 'versions' has no version new"),
}


@pytest.mark.parametrize(("path_", "text"), MISSING.values(), ids=MISSING.keys())
def test_what_is_not_there(client: httpx.Client, path_: str, text: str) -> None:
    answer = client.post(path_, json=ids())
    assert (answer.status_code, answer.json()) == (404, {"error": text})


def test_a_table_without_an_active_version(client: httpx.Client) -> None:
    answer = client.post("/v2/models/idle/infer", json=ids())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "no version is active" in answer.json()["error"]
    assert client.get("/v2/models/idle/ready").status_code == 400


IN_FRONT = pytest.mark.parametrize("path", ["wire", "front"], indirect=True, scope="session")
"""FastAPI answers in its own form where nothing of the protocol is served."""


@IN_FRONT
def test_an_address_at_which_nothing_is(client: httpx.Client) -> None:
    answer = client.post("/v2/models/plain/classify", json=ids())
    assert (answer.status_code, answer.json()) == (404, {"error": "nothing is served at '/v2/models/plain/classify'"})


@IN_FRONT
def test_another_method(client: httpx.Client) -> None:
    answer = client.get("/v2/models/plain/infer")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"error": "GET is not allowed here; use POST"}


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "x"])
def test_a_coding_that_is_not_known(client: httpx.Client, coding: str) -> None:
    status, text = infer(client, ids(), Content_Encoding=coding)
    assert (status, "is not one of gzip, deflate" in text) == (400, True)


@pytest.mark.parametrize(
    ("coding", "body", "text"),
    [
        ("gzip", b"{}", "the body is not gzip"),
        ("deflate", gzip.compress(b"{}", mtime=0), "the body is not deflate"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-1], "the gzip body breaks off"),
        ("deflate", zlib.compress(b"{}") + b"x", "the deflate body goes on behind its end"),
    ],
)
def test_a_damaged_coding(client: httpx.Client, coding: str, body: bytes, text: str) -> None:
    status, said = infer(client, body, Content_Encoding=coding)
    assert (status, text in said) == (400, True)


# Limits


def test_a_body_that_inflates_beyond_the_limit_is_refused(narrow: httpx.Client) -> None:
    for body in (gzip.compress(bytes(10_000_000)), gzip.compress(b" " * 65_537)):
        status, text = infer(narrow, body, Content_Encoding="gzip")
        assert (status, "EMBEDDING_MAX_BODY_BYTES allows 65,536" in text) == (413, True)


def test_limits_are_those_of_the_contract(narrow: httpx.Client) -> None:
    many = [{"name": "ids", "datatype": "INT64", "shape": [101], "data": [0] * 101}]
    assert "EMBEDDING_MAX_IDS allows 100" in infer(narrow, {"inputs": many})[1]
    assert infer(narrow, bytes(8 * 101), Inference_Header_Content_Length="0")[0] == 413
    assert infer(narrow, b" " * 65_537)[0] == 413
    parameters = {"length": 3000}
    status, text = infer(narrow, {"inputs": [{**many[0], "shape": [1], "data": [0]}], "parameters": parameters})
    assert (status, "EMBEDDING_MAX_RESPONSE_BYTES" in text) == (413, True)


# JSON that differs in its ids alone

REPEATED = '{"inputs": [{"name": "ids", "datatype": "INT64", "shape": [3], "data": [%s]}]%s}'
ENDS = ("", ', "outputs": [{"name": "vectors"}]', ', "outputs": [{"name": "vectors"}, {"name": "mask"}]')


@pytest.mark.parametrize("model", ["plain", "padded"])
@pytest.mark.parametrize("end", ENDS)
def test_other_ids_in_the_same_json(client: httpx.Client, model: str, end: str) -> None:
    for ids_ in ([5, 1, 0], [2, 2, 6], [0, 0, 0], [3, 4, 5]):
        body = REPEATED % (", ".join(map(str, ids_)), end)
        said = client.post(f"/v2/models/{model}/infer", content=body).json()
        vectors, *rest = said["outputs"]
        assert np.array(vectors["data"], np.float32).tobytes() == ROWS[ids_].tobytes()
        assert (said["model_name"], vectors["shape"], len(rest)) == (model, [3, DIM], 0 if end == ENDS[1] else 1)
        for mask in rest:
            assert mask["data"] == [model == "plain" or each != 0 for each in ids_]


@pytest.mark.parametrize(
    ("ids_", "text"),
    [
        ("5, 1, 7", "id 7 at [2] is not in table plain"),
        ("5, 1, -1", "id -1 at [2] is not in table plain"),
        ("5, 1, 01", "not valid JSON"),
        ("5, 1, ,", "not valid JSON"),
        ("5, 1 2  ", "not valid JSON"),
        ("5,    1 ", "input 'ids' has 2 elements, and its shape [3] needs 3"),
        ("5,1,2,3 ", "input 'ids' has 4 elements, and its shape [3] needs 3"),
        ("5, [1,2]", "among arrays"),
        ("5,1,true", "must be an integer, not a boolean"),
        ("5, 1,1.5", "must be an integer, not a fraction"),
        ("99999999", "input 'ids' has 1 elements"),
    ],
)
def test_what_is_wrong_in_the_same_json(client: httpx.Client, ids_: str, text: str) -> None:
    good = REPEATED % ("5, 1, 0 ", "")
    bad = REPEATED % (ids_.ljust(8), "")
    assert len(bad) == len(good)
    for body in (good, good, bad, good):
        answer = client.post("/v2/models/plain/infer", content=body)
        if body == good:
            data = np.array(answer.json()["outputs"][0]["data"], np.float32)
            assert data.tobytes() == ROWS[[5, 1, 0]].tobytes()
        else:
            assert answer.status_code == 400
            assert text in answer.json()["error"]


@pytest.mark.parametrize("datatype", ["INT64", "INT16"])
def test_bytes_that_are_not_the_ids_are_never_taken_for_them(
    server: triton.InferenceServerClient, datatype: str
) -> None:
    """Ids in JSON, or of another width, and offsets behind it that have as many bytes as ids would."""
    ids_ = np.array([5, 1] if datatype == "INT64" else [5, 0, 0, 0], dtype=datatype.lower())
    bounds = np.array([0, 2] if datatype == "INT64" else [0, 2, 4])
    for _ in range(3):
        inputs = [tensor("ids", datatype, ids_, binary=datatype != "INT64"), tensor("offsets", "INT64", bounds)]
        found = server.infer("plain", inputs)
        assert found.as_numpy("vectors").tobytes() == ROWS[ids_].tobytes()


@pytest.mark.parametrize("path", ["wire"], indirect=True, scope="session")
def test_extensions_that_are_not_there(server: triton.InferenceServerClient) -> None:
    for ask in (server.get_log_settings, server.get_trace_settings, server.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match="nothing is served at"):
            ask()


@pytest.mark.parametrize("shape", [[2**39, 2**39, 0], [2**39] * 6 + [0]])
def test_shapes_beyond_all_limits(client: httpx.Client, shape: list[int]) -> None:
    sent, length = behind(0, b"", shape)
    status, text = infer(client, sent, Inference_Header_Content_Length=length)
    assert (status, text) == (400, "the shape of input 'ids' is beyond all limits")


def test_more_strings_than_the_shape_has_are_not_read(client: httpx.Client) -> None:
    sent, length = behind(4_000_000, bytes(4_000_000), [1], "tokens", "BYTES")
    status, text = infer(client, sent, "padded", Inference_Header_Content_Length=length)
    assert (status, text) == (400, "input 'tokens' has 2 elements, and its shape [1] needs 1")
