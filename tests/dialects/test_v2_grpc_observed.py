"""Ids, lines in the log and traces of calls over gRPC, as they have them over HTTP."""

import asyncio
import logging
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from starlette.types import Receive, Scope, Send
from tritonclient.grpc import service_pb2

from load_tests.running import Running, running
from service.dialects.v2.messages import SERVICE
from service.dialects.v2.rpc import start
from service.server.listening import reserve
from service.store import TableStore
from tests.collecting import attributes, collecting
from tests.dialects.test_v2_grpc import target
from tests.world import KERAS_ROWS, publish, service_over

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = ("traceparent", f"00-{TRACE}-{CALLER}-01")
MADE = re.compile("[0-9a-f]{32}")
INFER, LOAD = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/RepositoryModelLoad"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    root = tmp_path_factory.mktemp("store")
    publish(TableStore(root), "words", KERAS_ROWS)
    with running(root, "--grpc-port", "0") as server, grpc.insecure_channel(target(server)) as channel:
        yield channel


def inference(*ids: int) -> bytes:
    given = {"name": "ids", "datatype": "INT64", "shape": [len(ids)], "contents": {"int64_contents": ids}}
    asked: bytes = service_pb2.ModelInferRequest(model_name="words", inputs=[given]).SerializeToString()
    return asked


def call(channel: grpc.Channel, path: str, message: bytes, *metadata: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """The status and the trailers of a call."""
    try:
        _, called = channel.unary_unary(path).with_call(message, metadata=metadata)
    except grpc.RpcError as error:
        called = error
    return called.code().name, dict(called.trailing_metadata())


# Ids


@pytest.mark.parametrize(("ids", "status"), [((5, 1), "OK"), ((7,), "INVALID_ARGUMENT")])
def test_a_call_keeps_the_id_that_its_client_gave_it(channel: grpc.Channel, ids: tuple[int, ...], status: str) -> None:
    for _ in range(3):  # from the second time on the message is remembered
        found = call(channel, INFER, inference(*ids), ("x-request-id", "mine"))
        assert (found[0], found[1]["x-request-id"]) == (status, "mine")


def test_inferences_that_come_without_an_id_are_answered_without_one(channel: grpc.Channel) -> None:
    for _ in range(3):
        assert call(channel, INFER, inference(5, 1)) == ("OK", {})


def test_everything_else_gets_one(channel: grpc.Channel) -> None:
    refused = [call(channel, INFER, inference(7))[1]["x-request-id"] for _ in range(2)]
    told = call(channel, f"/{SERVICE}/ServerLive", b"")[1]["x-request-id"]
    unread = call(channel, f"/{SERVICE}/ModelMetadata", b"\xff\xff")[1]["x-request-id"]
    assert all(MADE.fullmatch(each) for each in (*refused, told, unread))
    assert len({*refused, told, unread}) == 4


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, 'quoted"'])
def test_an_id_that_cannot_stand_in_a_log_is_replaced(channel: grpc.Channel, given: str) -> None:
    for path, message in ((INFER, inference(5)), (f"/{SERVICE}/ServerLive", b"")):
        status, trailers = call(channel, path, message, ("x-request-id", given))
        assert status == "OK"
        assert MADE.fullmatch(trailers["x-request-id"])


def test_calls_at_the_same_time_keep_their_own(channel: grpc.Channel) -> None:
    infer = channel.unary_unary(INFER)
    for _ in range(5):
        names = [f"r{number}" for number in range(250)]
        futures = [
            infer.future(inference(number % 9), metadata=(("x-request-id", name),)) for number, name in enumerate(names)
        ]
        assert Counter(future.code().name for future in futures) == {"OK": 196, "INVALID_ARGUMENT": 54}
        assert [dict(future.trailing_metadata())["x-request-id"] for future in futures] == names


def test_a_fault_of_ours_is_told_by_the_id_that_its_client_gave(
    store: TableStore, caplog: pytest.LogCaptureFixture
) -> None:
    service, _ = service_over(store.root)

    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("of the inside")

    async def test() -> None:
        kept = reserve("127.0.0.1", 0)
        host, port = kept.getsockname()
        server = await start(service.served, broken, host, port)
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            for metadata, named in (((("x-request-id", "mine"),), "mine"), ((), None)):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await channel.unary_unary(LOAD)(b"\x12\x05words", metadata=metadata)
                trailers = dict(error.value.trailing_metadata())
                assert error.value.code() == grpc.StatusCode.INTERNAL
                assert trailers["embedding-code"] == "internal"
                assert named in (trailers["x-request-id"], None)
                assert error.value.details().endswith(f"under the request id {trailers['x-request-id']}")
                assert "of the inside" not in error.value.details()
                assert f"request {trailers['x-request-id']} failed" in caplog.text
        await server.stop(0)
        kept.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert caplog.text.count("RuntimeError: of the inside") == 2


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Of HTTP/2 (RFC 9113 section 4.1)."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as it is (RFC 7541 section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


@pytest.mark.parametrize("name", [b"authorization", b"x-request-id", b"traceparent", b"tracestate"])
def test_metadata_that_is_no_text_is_borne_and_not_logged(store: TableStore, name: bytes) -> None:
    """No client library sends such a thing."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": LOAD.encode(), b":authority": b"x",
              b"te": b"trailers", b"content-type": b"application/grpc", name: b"Bearer secret \xff"}  # fmt: skip
    head = b"".join(literal(*field) for field in fields.items())
    asked = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, head)
    options = ("--grpc-port", "0", "--traces-endpoint", "http://127.0.0.1:9/v1/traces", "--traces-ratio", "1")
    with running(store.root, *options, settings={"ADMIN_TOKEN": "secret"}) as server:
        host, _, port = target(server).rpartition(":")
        with socket.create_connection((host, int(port)), 10) as client:
            client.sendall(asked + frame(0, 1, 1, b"\0\0\0\0\7\x12\5words"))
            answer = b""
            while b"x-request-id" not in answer:
                received = client.recv(65_536)
                assert received, answer
                answer += received
            assert b"grpc-status\x0216" in answer  # UNAUTHENTICATED
        server.stop()
        said = server.log.read_text()
    assert "Traceback" not in said
    assert "Bearer" not in said


# The log


def records(server: Running) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in server.log.read_text().splitlines()]


def test_the_access_log_has_every_call(store: TableStore) -> None:
    settings = {"ADMIN_TOKEN": "secret", "LOG_FORMAT": "json"}
    with running(store.root, "--workers", "2", "--grpc-port", "0", "--access-log", settings=settings) as server:
        with grpc.insecure_channel(target(server)) as channel:
            assert call(channel, INFER, inference(5)) == ("OK", {})
            call(channel, INFER, inference(7), ("x-request-id", "outside"))
            load = service_pb2.RepositoryModelLoadRequest(model_name="words").SerializeToString()
            admin = (("authorization", "Bearer secret"), ("x-request-id", "load"))
            assert call(channel, LOAD, load, *admin)[0] == "OK"
        server.stop()
        found = records(server)
    calls = [record for record in found if record["logger"] == "service.access" and record["method"] == "gRPC"]
    said = [(record["path"], record["grpc_status"], record["client"]) for record in calls]
    assert said == [
        (INFER, "OK", "127.0.0.1"), (INFER, "INVALID_ARGUMENT", "127.0.0.1"), (LOAD, "OK", "127.0.0.1"),
    ]  # fmt: skip
    assert [record["request_id"] for record in calls[1:]] == ["outside", "load"]
    assert MADE.fullmatch(calls[0]["request_id"])
    assert calls[0]["bytes"] > 8
    assert all(0 < record["seconds"] < 10 for record in calls)
    (audit,) = [record for record in found if record["logger"] == "service.audit"]
    assert audit["request_id"] == "load"
    assert "secret" not in str(found)


def test_calls_are_not_logged_unless_that_is_wanted(store: TableStore) -> None:
    with running(store.root, "--grpc-port", "0", "--log-level", "debug") as server:
        with grpc.insecure_channel(target(server)) as channel:
            call(channel, INFER, inference(5), ("x-request-id", "mine"))
        server.stop()
        assert INFER not in server.log.read_text()


# Traces


def test_a_call_goes_on_with_its_clients_trace(store: TableStore) -> None:
    with collecting() as collector:
        options = ("--workers", "2", "--grpc-port", "0", "--traces-endpoint", collector.url)
        with running(store.root, *options) as server:
            with grpc.insecure_channel(target(server)) as channel:
                call(channel, INFER, inference(5), SAMPLED, ("x-request-id", "mine"))
                call(channel, INFER, inference(7), SAMPLED)
                for metadata in ((), (("traceparent", SAMPLED[1].replace("-01", "-00")),), (("traceparent", "00-x"),)):
                    assert call(channel, INFER, inference(5), *metadata) == ("OK", {})
            server.stop()  # which sends what has not been sent
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in collector.spans} == {(TRACE, CALLER)}
    assert {span.name for span in collector.spans} == {INFER.removeprefix("/")}
    answered, refused = map(attributes, sorted(collector.spans, key=lambda span: span.start_time_unix_nano))
    assert answered.pop("client.port") > 0
    assert answered == {
        "rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": "ModelInfer", "rpc.grpc.status_code": 0,
        "client.address": "127.0.0.1", "embedding.request_id": "mine", "embedding.table": "words",
        "embedding.version": "1",
    }  # fmt: skip
    assert (refused["rpc.grpc.status_code"], "embedding.table" in refused) == (3, False)
    assert all(not span.events for span in collector.spans)


def test_probes_are_not_traced_and_who_is_cancelled_is(store: TableStore) -> None:
    with collecting() as collector:
        options = ("--grpc-port", "0", "--traces-endpoint", collector.url)
        with running(store.root, *options, settings={"ADMIN_TOKEN": "secret"}) as server:
            with grpc.insecure_channel(target(server)) as channel:
                for probe in ("ServerLive", "ServerReady"):
                    assert call(channel, f"/{SERVICE}/{probe}", b"", SAMPLED)[0] == "OK"
                assert call(channel, f"/{SERVICE}/ModelReady", b"\n\5words", SAMPLED)[0] == "OK"
                os.kill(server.steward(), signal.SIGSTOP)  # so that a load takes until its client has gone
                load = service_pb2.RepositoryModelLoadRequest(model_name="words").SerializeToString()
                asked = channel.unary_unary(LOAD).future(
                    load, metadata=(SAMPLED, ("authorization", "Bearer secret")), timeout=0.5
                )
                assert asked.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
                os.kill(server.steward(), signal.SIGCONT)
            server.stop()
    ended = {attributes(span)["rpc.method"]: attributes(span)["rpc.grpc.status_code"] for span in collector.spans
             if "rpc.method" in attributes(span)}  # fmt: skip
    assert ended == {"ModelReady": 0, "RepositoryModelLoad": 1}


def test_inferences_are_not_observed_for_a_trace_that_they_do_not_have(store: TableStore) -> None:
    with collecting() as collector:
        options = ("--grpc-port", "0", "--traces-endpoint", collector.url)
        with running(store.root, *options) as server, grpc.insecure_channel(target(server)) as channel:
            for _ in range(3):
                assert call(channel, INFER, inference(5)) == ("OK", {})
            assert MADE.fullmatch(call(channel, INFER, inference(7), SAMPLED)[1]["x-request-id"])
            server.stop()
    assert [attributes(span)["embedding.request_id"] != "" for span in collector.spans] == [True]


def test_a_share_of_what_comes_without_a_trace_is_traced(store: TableStore) -> None:
    with collecting() as collector:
        options = ("--grpc-port", "0", "--traces-endpoint", collector.url, "--traces-ratio", "1")
        with running(store.root, *options) as server, grpc.insecure_channel(target(server)) as channel:
            for _ in range(3):
                assert call(channel, INFER, inference(5)) == ("OK", {})
            server.stop()
    assert len({span.trace_id for span in collector.spans}) == 3


def test_a_load_is_one_trace_through_worker_and_steward(store: TableStore) -> None:
    with collecting() as collector:
        options = ("--workers", "2", "--grpc-port", "0", "--traces-endpoint", collector.url)
        with running(store.root, *options, settings={"ADMIN_TOKEN": "secret"}) as server:
            with grpc.insecure_channel(target(server)) as channel:
                load = service_pb2.RepositoryModelLoadRequest(model_name="words").SerializeToString()
                assert call(channel, LOAD, load, SAMPLED, ("authorization", "Bearer secret"))[0] == "OK"
            server.stop()
    worker, steward = sorted(collector.spans, key=lambda span: span.parent_span_id.hex() != CALLER)
    assert (worker.parent_span_id.hex(), steward.parent_span_id) == (CALLER, worker.span_id)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert len({attributes(span)["embedding.request_id"] for span in collector.spans}) == 1
