"""TLS at every port of a real server, with a certificate made for the test."""

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

LOOKUP = "/v1/tables/words/lookup"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tls.crt` and `tls.key`."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-keyout",
        str(folder / "tls.key"),
        "-out",
        str(folder / "tls.crt"),
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    return store


def options(certificate: Path) -> tuple[str, ...]:
    return ("--tls-certificate", str(certificate / "tls.crt"), "--tls-key", str(certificate / "tls.key"))


@pytest.fixture(params=["1", "3"])
def server(store: TableStore, certificate: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    ports = ("--grpc-port", "0", "--admin-port", "0", "--client-seconds", "2")
    with running(
        store.root, "--workers", request.param, *ports, *options(certificate), settings={"ADMIN_TOKEN": "secret"}
    ) as server:
        yield server


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate / "tls.crt"))


def told(server: Running, words: str) -> str:
    """The address that the log tells behind these words."""
    (line,) = [line for line in server.log.read_text().splitlines() if words in line]
    return line.partition(words)[2].strip()


def test_lookups_are_answered_over_tls(server: Running, trust: ssl.SSLContext) -> None:
    assert server.url.startswith("https://")
    raw = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
    ids = np.arange(7, dtype="<i8")
    for _ in range(6):
        with httpx.Client(base_url=server.url, verify=trust) as client:
            for _ in range(3):
                answer = client.post(LOOKUP, content=ids.tobytes(), headers=raw)
                assert answer.content == KERAS_ROWS.tobytes()
            large = client.post(LOOKUP, json={"ids": [5] * 50_000})
            assert large.json()["shape"] == [50_000, 2]


def test_the_admin_port_and_grpc_are_encrypted_as_well(
    server: Running, trust: ssl.SSLContext, certificate: Path
) -> None:
    admin = told(server, "the admin API is at")
    assert admin.startswith("https://")
    headers = {"authorization": "Bearer secret"}
    assert httpx.get(f"{admin}/v1/admin/tables/words", headers=headers, verify=trust).status_code == 200
    address = told(server, "over gRPC is at").removeprefix("https://")
    credentials = grpc.ssl_channel_credentials((certificate / "tls.crt").read_bytes())
    with triton.InferenceServerClient(address, ssl=True, creds=credentials) as client:
        assert client.is_model_ready("words")


def test_who_does_not_speak_tls_is_not_answered_and_takes_no_place(server: Running, trust: ssl.SSLContext) -> None:
    address = urlsplit(server.url)
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", address.port or 0)) as plain:
            plain.settimeout(10)
            plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionResetError):
                assert not plain.recv(1000).startswith(b"HTTP")
    with httpx.Client(base_url=server.url, verify=trust) as client:
        until(lambda: "embedding_connections 1.0" in client.get("/metrics").text)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_does_not_wait_for_clients_that_keep_a_connection(
    store: TableStore, certificate: Path, trust: ssl.SSLContext, workers: str
) -> None:
    patience = ("--drain-seconds", "3000", "--admin-port", "0")
    with (
        running(store.root, "--workers", workers, *patience, *options(certificate)) as server,
        httpx.Client(base_url=server.url, verify=trust) as client,
        httpx.Client(base_url=told(server, "the admin API is at"), verify=trust) as admin,
    ):
        assert client.get("/health/ready").status_code == 200
        assert admin.get("/health/live").status_code == 200
        assert server.stop() == 0


def test_a_silent_connection_is_ended(server: Running, trust: ssl.SSLContext) -> None:
    """The server's patience with clients is two seconds."""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0)) as silent:
        silent.settimeout(30)
        with suppress(ConnectionResetError):
            assert silent.recv(1) == b""


def test_an_encrypted_key_is_an_error_at_the_start(store: TableStore, certificate: Path) -> None:
    command = ["openssl", "ec", "-in", str(certificate / "tls.key"), "-aes128", "-passout", "pass:x"]
    subprocess.run([*command, "-out", str(certificate / "locked.key")], check=True, capture_output=True)
    command = [sys.executable, "-m", "service", "serve", "--store", str(store.root), "--port", "0"]
    command += ["--tls-certificate", str(certificate / "tls.crt"), "--tls-key", str(certificate / "locked.key")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "encrypted" in done.stderr


def test_a_certificate_without_its_key_is_an_error_at_the_start(store: TableStore, certificate: Path) -> None:
    for files in (
        ("--tls-certificate", str(certificate / "tls.crt")),
        ("--tls-key", str(certificate / "tls.key")),
        ("--tls-certificate", str(certificate / "missing")),
        ("--tls-certificate", str(certificate / "tls.key")),
    ):
        command = [sys.executable, "-m", "service", "serve", "--store", str(store.root), "--port", "0", *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "TLS_CERTIFICATE" in done.stderr
