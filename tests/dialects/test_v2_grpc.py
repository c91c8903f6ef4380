"""The Open Inference Protocol over gRPC, driven by Triton's own client against a server process."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient import grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from load_tests.running import Running, running
from service import __version__
from service.dialects.v2.messages import PACKAGE, POOL, SERVICE, message, methods
from service.dialects.v2.rpc import start
from service.server.listening import reserve
from service.server.rpc import why_not
from service.settings import Settings
from service.store import TableStore
from tests.api.samples import DIM, ROWS, TOKENS
from tests.api.wire import AnyArray
from tests.server.test_admin import OPTIONS, SETTINGS
from tests.world import KERAS_ROWS, service_over

IDS = np.array([[5, 1, 0], [2, 2, 6]], dtype=np.int64)
TOKEN = {"authorization": "Bearer secret"}
LIMITS = {"MAX_IDS": "5000", "MAX_BODY_BYTES": "65536", "MAX_RESPONSE_BYTES": "100000"}
Client: TypeAlias = Any
"""Triton's, which has no types."""


def target(server: Running) -> str:
    """Where a server takes gRPC, as its log says."""
    found = re.search(r'over gRPC is at ([^\s"]+)', server.log.read_text())
    assert found is not None
    return found.group(1)


@pytest.fixture(scope="module")
def server(store_root: Path) -> Iterator[Running]:
    with running(store_root, "--grpc-port", "0", settings=LIMITS) as process:
        yield process


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with triton.InferenceServerClient(target(server)) as made:
        yield made


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target(server)) as made:
        yield made


def tensor(name: str, datatype: str, array: AnyArray) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def refused(client: Client, *inputs: triton.InferInput, **named: Any) -> tuple[str, str]:  # noqa: ANN401
    """Status and text of an inference that is refused, of the table `plain` if no `model` is named."""
    with pytest.raises(InferenceServerException) as error:
        client.infer(named.pop("model", "plain"), list(inputs), **named)
    return str(error.value.status()).removeprefix("StatusCode."), str(error.value.message())


# The messages


def described(name: str) -> Mapping[str, DescriptorProto]:
    """Our message of this name, and Triton's."""
    ours, theirs = DescriptorProto(), DescriptorProto()
    POOL.FindMessageTypeByName(f"{PACKAGE}.{name}").CopyToProto(ours)
    module = service_pb2 if hasattr(service_pb2, name) else model_config_pb2
    getattr(module, name).DESCRIPTOR.CopyToProto(theirs)
    return {"ours": ours, "theirs": theirs}


def fields(descriptor: DescriptorProto, path: str = "") -> dict[str, tuple[int, int, int, str]]:
    """Number, type, label and type name of every field, those of nested messages included."""
    found = {
        f"{path}{field.name}": (field.number, field.type, field.label, field.type_name) for field in descriptor.field
    }
    for nested in descriptor.nested_type:
        found |= fields(nested, f"{path}{nested.name}.")
    return found


MESSAGES = sorted(POOL.FindFileContainingSymbol(SERVICE).message_types_by_name)


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_has_the_number_and_the_type_that_triton_gives_it(name: str) -> None:
    ours, theirs = (fields(descriptor) for descriptor in described(name).values())
    assert ours.items() <= theirs.items()


def test_every_method_is_one_of_tritons() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, (asked, answer) in methods().items():
        assert theirs[name].input_type.full_name == asked.DESCRIPTOR.full_name
        assert theirs[name].output_type.full_name == answer.DESCRIPTOR.full_name


def test_the_descriptor_is_that_of_the_file() -> None:
    source = Path(message.__code__.co_filename).with_name("inference.proto").read_text()
    declared = re.findall(r"^message (\w+)", source, re.MULTILINE)
    assert sorted(declared) == MESSAGES
    numbered = re.findall(r"^ +(?:repeated )?[\w<>, .]+ (\w+) = (\d+);", source, re.MULTILINE)
    compiled = [(name.rpartition(".")[2], number) for each in MESSAGES for name, (number, *_) in _own(each).items()]
    enumerated = {name for name, _ in numbered} - {name for name, _ in compiled}
    assert all(name.isupper() for name in enumerated)
    assert sorted((name, int(number)) for name, number in numbered if name not in enumerated) == sorted(compiled)


def _own(name: str) -> dict[str, tuple[int, int, int, str]]:
    found = fields(described(name)["ours"])
    return {field: said for field, said in found.items() if not field.endswith(("Entry.key", "Entry.value"))}


# What is said of the server


def test_server(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    said = client.get_server_metadata()
    assert (said.name, said.version) == ("embedding-table-service", __version__)


def test_models(client: Client) -> None:
    assert client.is_model_ready("plain")
    assert client.is_model_ready("versions", "3")
    assert not client.is_model_ready("idle")
    said = client.get_model_metadata("padded", as_json=True)
    assert [each["name"] for each in said["inputs"]] == ["ids", "tokens", "mask", "weights", "offsets"]
    assert said["outputs"][0] == {"name": "vectors", "datatype": "FP32", "shape": ["-1", "-1", str(DIM)]}
    config = client.get_model_config("padded", as_json=True)["config"]
    assert config["version_policy"] == {"specific": {"versions": ["1"]}}
    assert config["parameters"]["padding_id"] == {"string_value": "0"}
    index = {(each.name, each.version): each.state for each in client.get_model_repository_index().models}
    assert (index["versions", "2"], index["versions", "3"]) == ("READY", "AVAILABLE")


@pytest.mark.parametrize("verb", ["is_model_ready", "get_model_metadata", "get_model_config"])
def test_models_that_are_not_there(client: Client, verb: str) -> None:
    for arguments, text in ((("nothing",), "there is no table 'nothing'"), (("versions", "9"), "has no version 9")):
        with pytest.raises(InferenceServerException, match=text) as error:
            getattr(client, verb)(*arguments)
        assert error.value.status() == "StatusCode.NOT_FOUND"


def test_inferences_are_counted(client: Client, server: Running) -> None:
    def counted() -> tuple[int, int]:
        said = client.get_inference_statistics("large").model_stats[0].inference_stats
        return said.success.count, said.fail.count

    before = counted()
    client.infer("large", [tensor("ids", "INT64", np.array([0, 1]))])
    refused(client, tensor("ids", "INT64", np.array([3])), model="large")
    assert counted() == (before[0] + 1, before[1] + 1)
    said = httpx.get(f"{server.url}/metrics").text
    assert (
        'embedding_requests_total{code="INVALID_ARGUMENT",endpoint="v2_grpc_infer",table="large",version="1"} 1.0'
        in said
    )
    assert 'embedding_ids_total{table="large"} 2.0' in said


def test_the_health_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        asked = health_pb2.HealthCheckRequest(service=service)
        assert stub.Check(asked).status == health_pb2.HealthCheckResponse.SERVING
        watched = stub.Watch(asked)
        assert next(iter(watched)).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()
    with pytest.raises(grpc.RpcError) as error:
        stub.Check(health_pb2.HealthCheckRequest(service="x"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    file = database.FindFileContainingSymbol(SERVICE)
    assert {method.name for method in file.service[0].method} == set(methods())


# Inferences


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT8", "INT16", "UINT64"])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 1, 2)])
def test_rows_bit_for_bit(client: Client, datatype: str, shape: tuple[int, ...]) -> None:
    ids = IDS.astype(datatype.lower()).reshape(shape)
    found = client.infer("padded", [tensor("ids", datatype, ids)], request_id="a")
    assert found.as_numpy("vectors").tobytes() == ROWS[IDS].tobytes()
    assert found.as_numpy("mask").tolist() == (IDS.reshape(shape) != 0).tolist()
    said = found.get_response()
    assert (said.id, said.model_name, said.model_version) == ("a", "padded", "1")


CONTENTS = {
    "INT64": "int64_contents", "INT32": "int_contents", "INT8": "int_contents", "UINT16": "uint_contents",
    "UINT64": "uint64_contents",
}  # fmt: skip


def infer(channel: grpc.Channel, **request: Any) -> Any:  # noqa: ANN401
    """An inference by the messages of Triton's own package."""
    call = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return call(service_pb2.ModelInferRequest(**request))


@pytest.mark.parametrize(("datatype", "field"), CONTENTS.items())
def test_ids_in_typed_fields(channel: grpc.Channel, datatype: str, field: str) -> None:
    given = {"name": "ids", "datatype": datatype, "shape": [2, 3], "contents": {field: IDS.ravel().tolist()}}
    found = infer(channel, model_name="plain", inputs=[given])
    assert found.raw_output_contents[0] == ROWS[IDS].tobytes()
    assert list(found.outputs[0].shape) == [2, 3, DIM]


def test_tokens_mask_and_weights_in_typed_fields(channel: grpc.Channel) -> None:
    inputs = [
        {"name": "tokens", "datatype": "BYTES", "shape": [1, 3],
         "contents": {"bytes_contents": [TOKENS[place].encode() for place in (2, 3, 4)]}},
        {"name": "mask", "datatype": "BOOL", "shape": [1, 3], "contents": {"bool_contents": [True, True, False]}},
        {"name": "weights", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 0.5, 7]}},
    ]  # fmt: skip
    found = infer(channel, model_name="padded", inputs=inputs, parameters={"pooling": {"string_param": "mean"}})
    vectors = np.frombuffer(found.raw_output_contents[0], "<f4")
    wide = ROWS.astype(np.float64)
    np.testing.assert_allclose(vectors, (wide[2] + 0.5 * wide[3]) / 1.5, rtol=1e-5, atol=1e-6)


def test_tokens_and_a_ragged_batch(client: Client) -> None:
    tokens = tensor("tokens", "BYTES", np.array([TOKENS[2], TOKENS[5], TOKENS[6]], dtype=object))
    found = client.infer("padded", [tokens, tensor("offsets", "INT64", np.array([0, 2, 3]))])
    assert found.as_numpy("vectors").tobytes() == ROWS[[[2, 5], [6, 0]]].tobytes()
    assert found.as_numpy("mask").tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    "options",
    [
        {"length": 5},
        {"pooling": "mean"},
        {"flatten": True},
        {"dtype": "float16"},
        {"on_oov": "zeros"},
        {"masked": "zero"},
    ],
)
def test_options_are_those_of_the_contract(client: Client, server: Running, options: dict[str, Any]) -> None:
    asked = {"ids": IDS.tolist(), **options}
    ours = httpx.post(f"{server.url}/v1/tables/padded/lookup", json=asked).json()
    for _ in range(3):
        found = client.infer("padded", [tensor("ids", "INT64", IDS)], parameters=options)
        assert found.as_numpy("vectors").tobytes() == np.array(ours["vectors"], ours["dtype"]).tobytes()
        assert list(found.get_response().outputs[0].shape) == ours["shape"]
        mask = found.as_numpy("mask")
        assert (None if mask is None else mask.tolist()) == ours.get("mask")


def test_other_ids_behind_the_same_message(client: Client) -> None:
    outputs = [None, [triton.InferRequestedOutput("vectors")], [triton.InferRequestedOutput("mask")]]
    for seed in range(4):
        ids = np.random.default_rng(seed).integers(0, len(ROWS), (2, 3))
        for wanted in outputs:
            found = client.infer("padded", [tensor("ids", "INT64", ids)], outputs=wanted)
            vectors, mask = found.as_numpy("vectors"), found.as_numpy("mask")
            assert vectors is None or vectors.tobytes() == ROWS[ids].tobytes()
            assert mask is None or mask.tolist() == (ids != 0).tolist()
            assert (vectors is None, mask is None) == (wanted is outputs[2], wanted is outputs[1])
        status, text = refused(client, tensor("ids", "INT64", np.array([[0, 7, 0], [0, 0, -1]])), model="padded")
        assert (status, "id 7 at [0, 1], id -1 at [1, 2]" in text) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("rule", ["zeros", "unk", "mask"])
def test_ids_outside_behind_the_same_message_follow_the_tables_rule(client: Client, server: Running, rule: str) -> None:
    for ids in ([[5, 1]], [[7, 1]], [[2, -1]]):  # the first is answered, and remembered
        ours = httpx.post(f"{server.url}/v1/tables/default-{rule}/lookup", json={"ids": ids}).json()
        found = client.infer(f"default-{rule}", [tensor("ids", "INT64", np.array(ids))])
        assert found.as_numpy("vectors").tobytes() == np.array(ours["vectors"], np.float32).tobytes()
        assert found.as_numpy("mask").tolist() == ours["mask"]


def test_only_what_is_asked_for_in_its_order(client: Client) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("mask", "vectors")]
    found = client.infer("padded", [tensor("ids", "INT64", IDS)], outputs=outputs)
    assert [each.name for each in found.get_response().outputs] == ["mask", "vectors"]
    assert found.as_numpy("vectors").tobytes() == ROWS[IDS].tobytes()


def test_every_version_answers(client: Client) -> None:
    for version in (1, 2, 3):
        found = client.infer("versions", [tensor("ids", "INT64", IDS)], model_version=str(version))
        assert found.as_numpy("vectors").tobytes() == (ROWS * version)[IDS].tobytes()


def test_large_ones_at_the_same_time(server: Running) -> None:
    def ask(seed: int) -> bool:
        ids = np.random.default_rng(seed).integers(0, len(ROWS), (40, 100))
        with triton.InferenceServerClient(target(server)) as client:
            found = client.infer("plain", [tensor("ids", "INT64", ids)])
        return bool(found.as_numpy("vectors").tobytes() == ROWS[ids].tobytes())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(40)))


# What is wrong


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({}, "either the input 'ids' or the input 'tokens'"),
    "an unknown input": ({"inputs": [{"name": "x", "datatype": "INT64", "shape": [0]}]}, "there is no input 'x'"),
    "an unknown datatype": ({"inputs": [{"name": "ids", "datatype": "INT7", "shape": [1]}]}, "is not one of BOOL"),
    "no axes": ({"inputs": [{"name": "ids", "datatype": "INT64"}]}, "input 'ids' has 0 axes"),
    "another field": (
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "contents": {"int_contents": [1]}}]},
        "input 'ids' is INT64, which stands in int64_contents",
    ),
    "halves in a field": (
        {"inputs": [{"name": "weights", "datatype": "FP16", "shape": [1], "contents": {"fp32_contents": [1]}}]},
        "input 'weights' is FP16, which stands in raw_input_contents",
    ),
    "a number beyond": (
        {"inputs": [{"name": "ids", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}]},
        "input 'ids' holds a number beyond INT8",
    ),
    "too few": (
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [3], "contents": {"int64_contents": [1, 2]}}]},
        "input 'ids' has 2 elements, and its shape [3] needs 3",
    ),
    "some raw": (
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1]}], "raw_input_contents": [b"", b""]},
        "2 raw_input_contents for 1 inputs",
    ),
    "no UTF-8": (
        {"inputs": [{"name": "tokens", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"\xff"]}}]},
        "element 0 of input 'tokens' is not UTF-8",
    ),
    "an unknown parameter": (
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [0]}], "parameters": {"x": {"int64_param": 1}}},
        "unknown parameter 'x'",
    ),
    "an output": (
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [0]}], "outputs": [{"name": "y"}]},
        "there is no output 'y'",
    ),
    "a shape beyond all limits": (
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [2**39, 2**39, 0]}], "raw_input_contents": [b""]},
        "the shape of input 'ids' is beyond all limits",
    ),
    "a long name": ({"inputs": [{"name": "x" * 20_000, "datatype": "INT64", "shape": [0]}]}, "there is no input 'xxx"),
    "a long name of other letters": (
        {"inputs": [{"name": "ü" * 20_000, "datatype": "INT64", "shape": [0]}]}, "there is no input '"
    ),
    "shared memory": (        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [0],
                     "parameters": {"shared_memory_region": {"string_param": "x"}}}]},
        "input 'ids': shared memory is not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(channel: grpc.Channel, request_: dict[str, Any], text: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        infer(channel, model_name="plain", **request_)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text in error.value.details()
    assert dict(error.value.trailing_metadata())["embedding-code"] == "invalid_request"


def test_a_message_that_cannot_be_read(channel: grpc.Channel) -> None:
    for method in ("ModelInfer", "ModelMetadata"):
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/{SERVICE}/{method}")(b"\xff\xff\xff")
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "the message cannot be read" in error.value.details()


def test_what_float16_cannot_hold_is_told_and_counted_each_time(client: Client, server: Running) -> None:
    half = {"dtype": "float16"}
    for _ in range(3):
        client.infer("large", [tensor("ids", "INT64", np.array([0, 0]))], parameters=half)
    for _ in range(2):
        status, _ = refused(client, tensor("ids", "INT64", np.array([0, 1])), model="large", parameters=half)
        assert status == "OUT_OF_RANGE"
    said = httpx.get(f"{server.url}/metrics").text
    found = re.search(r'{code="OUT_OF_RANGE",endpoint="v2_grpc_infer",table="large",version=""} (\d+)', said)
    assert found is not None
    assert int(found.group(1)) >= 2


def test_fields_in_another_order_are_not_taken_for_ids(channel: grpc.Channel) -> None:
    """A message may end with anything; its tail is remembered as ids only if it is the raw contents."""
    infer_ = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    one = np.array([1], dtype="<i8").tobytes()
    given = {"name": "ids", "datatype": "INT64", "shape": [1]}
    first = service_pb2.ModelInferRequest(model_name="plain", inputs=[given], raw_input_contents=[one])
    for tail in (1, 2, 3):
        ending = np.array([tail], dtype="<i8").tobytes()
        last = service_pb2.ModelInferRequest(parameters={"headers": {"string_param": ending.decode()}})
        answer = service_pb2.ModelInferResponse.FromString(infer_(first.SerializeToString() + last.SerializeToString()))
        assert answer.raw_output_contents[0] == ROWS[[1]].tobytes()


def test_those_who_watch_the_health_do_not_hold_back_a_stop(store_root: Path) -> None:
    options = ("--grpc-port", "0", "--drain-seconds", "600")
    with running(store_root, *options) as server, grpc.insecure_channel(target(server)) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        told = iter(watched)
        assert next(told).status == health_pb2.HealthCheckResponse.SERVING
        assert server.stop(signal.SIGTERM, timeout=30) == 0
        assert next(told).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_ids_outside_are_named_with_their_places(client: Client) -> None:
    status, text = refused(client, tensor("ids", "INT64", np.array([[0, 7], [-1, 2]])))
    assert status == "INVALID_ARGUMENT"
    assert text == "2 are not in table plain version 1, which has the ids 0 to 6: id 7 at [0, 1], id -1 at [1, 0]"


def test_statuses(client: Client) -> None:
    one = tensor("ids", "INT64", np.array([1]))
    assert refused(client, one, model="nothing")[0] == "NOT_FOUND"
    assert refused(client, one, model="versions", model_version="9")[0] == "NOT_FOUND"
    assert refused(client, one, model="idle")[0] == "UNAVAILABLE"
    assert refused(client, one, model="large", parameters={"dtype": "float16"})[0] == "OUT_OF_RANGE"
    many = refused(client, tensor("ids", "INT64", np.zeros(5001, np.int64)))
    assert (many[0], "EMBEDDING_MAX_IDS allows 5,000" in many[1]) == ("RESOURCE_EXHAUSTED", True)
    wide = refused(client, tensor("ids", "INT64", np.zeros(10, np.int64)), parameters={"length": 100_000})
    assert (wide[0], "EMBEDDING_MAX_RESPONSE_BYTES" in wide[1]) == ("RESOURCE_EXHAUSTED", True)
    assert refused(client, tensor("ids", "INT64", np.zeros(30_000, np.int64)))[0] == "RESOURCE_EXHAUSTED"


def test_a_deadline_that_passes(client: Client, server: Running) -> None:
    """The worker stands still over it, and does nothing for a client that has gone when it goes on."""
    (worker,) = server.workers()
    client.infer("plain", [tensor("ids", "INT64", IDS)])
    os.kill(worker, signal.SIGSTOP)
    try:
        status, _ = refused(client, tensor("ids", "INT64", IDS), client_timeout=0.2)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert status == "DEADLINE_EXCEEDED"
    assert client.infer("plain", [tensor("ids", "INT64", IDS)], client_timeout=60) is not None


# Several workers


def versions(server: Running, connections: int = 24) -> set[str]:
    """What inferences get over so many connections of their own, which spread over the workers."""
    found = set()
    for number in range(connections):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", str(number))]
        with grpc.insecure_channel(target(server), options=options) as channel:
            given = {"name": "ids", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [0]}}
            try:
                found.add(infer(channel, model_name="words", inputs=[given]).model_version)
            except grpc.RpcError as error:
                found.add(error.code().name)
    return found


def test_workers_share_a_port_and_the_repositorys_verbs_reach_all_of_them(store: TableStore) -> None:
    with (
        running(store.root, *OPTIONS, "--grpc-port", "0", settings=SETTINGS) as server,
        triton.InferenceServerClient(target(server)) as client,
    ):
        assert versions(server) == {"1"}
        asked = tensor("ids", "INT64", np.arange(7))
        for _ in range(3):  # the second time the message is remembered
            assert client.infer("words", [asked]).as_numpy("vectors").tobytes() == KERAS_ROWS.tobytes()
        with pytest.raises(InferenceServerException, match="a token is needed") as error:
            client.load_model("words")
        assert error.value.status() == "StatusCode.UNAUTHENTICATED"
        client.load_model("words", headers=TOKEN)
        assert versions(server) == {"2"}
        for _ in range(3):
            assert client.infer("words", [asked]).as_numpy("vectors").tobytes() == (KERAS_ROWS * 2).tobytes()
        client.unload_model("words", headers=TOKEN)
        assert versions(server) == {"UNAVAILABLE"}
        client.load_model("words", headers=TOKEN, config='{"version_policy":{"specific":{"versions":[1]}}}')
        assert versions(server) == {"1"}
        for worker in server.workers():
            assert "cygrpc" in Path(f"/proc/{worker}/maps").read_text()
        for other in (server.process.pid, server.steward()):
            assert "cygrpc" not in Path(f"/proc/{other}/maps").read_text()
        assert server.stop(signal.SIGTERM) == 0


def test_a_port_that_is_taken(store: TableStore, server: Running) -> None:
    port = target(server).rpartition(":")[2]
    with pytest.raises(RuntimeError, match=f"port {port} is in use"), running(store.root, "--grpc-port", port):
        pass


def test_why_there_may_be_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(Settings()) is None
    assert why_not(Settings(grpc_port=0)) is None
    assert "switched off" in str(why_not(Settings(grpc_port=0, dialects="tei")))
    monkeypatch.setattr("service.server.rpc._NEEDED", ("grpc_that_is_not_there.v1",))
    assert "pip install 'embedding-table-service[grpc]'" in str(why_not(Settings(grpc_port=0)))


# In this process, where a server can be put into any state


def test_too_many_in_flight_are_refused_and_counted(store_root: Path) -> None:
    """A call that finds no place is told so, and one that comes when there is room again is answered."""
    service, _ = service_over(store_root, max_in_flight=1)
    given = {"name": "ids", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [1]}}
    asked = service_pb2.ModelInferRequest(model_name="plain", inputs=[given]).SerializeToString()

    async def test() -> None:
        kept = reserve("127.0.0.1", 0)
        host, port = kept.getsockname()
        server = await start(service.served, service.front, host, port)
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            service.served.admission.in_flight = 1
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await infer(asked)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "EMBEDDING_MAX_IN_FLIGHT" in error.value.details()
            service.served.admission.leave()
            for _ in range(3):
                answer = service_pb2.ModelInferResponse.FromString(await infer(asked))
                assert answer.raw_output_contents[0] == ROWS[[1]].tobytes()
            assert service.served.admission.in_flight == 0
        await server.stop(0)
        kept.close()

    asyncio.run(test())
    counted = service.served.meter.counters.shared.sums("embedding_requests")
    assert counted["plain", "1", "v2_grpc_infer", "OK"] == (3.0,)
    assert counted["", "", "v2_grpc_infer", "UNAVAILABLE"] == (1.0,)
