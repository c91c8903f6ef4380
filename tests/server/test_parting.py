"""A stop while clients ask all the time over connections that they keep: each is told, and no request is lost."""

import errno
import http.client
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from load_tests.bench.openloop.world import address_of
from load_tests.running import running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

_PATH = "/v1/tables/words/lookup"
_CLIENTS = 8
_SYN_SENT = b"\2"
"""The first byte of the system's `struct tcp_info`: asked for a connection, and not answered."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    publish(TableStore(root), "words", KERAS_ROWS, KERAS_TOKENS)
    return root


def _answers(address: str) -> Iterator[int]:
    """Statuses of one lookup behind the other, until nobody listens there any more."""
    connection = http.client.HTTPConnection(address)  # it opens another one after an answer that is the last
    while True:
        if connection.sock is None:
            try:
                connection.connect()
            except (ConnectionRefusedError, ConnectionResetError):  # nothing was asked yet
                return
        connection.request("POST", _PATH, b'{"ids":[5,1]}', {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        yield answer.status


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_is_lost_at_a_stop(root: Path, workers: str) -> None:
    with running(root, "--workers", workers) as server:
        given: list[list[int]] = [[] for _ in range(_CLIENTS)]
        ended: list[int] = []

        def client(number: int) -> None:
            for status in _answers(urlsplit(server.url).netloc):
                given[number].append(status)
            ended.append(number)  # not reached where a request fails

        threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        until(lambda: all(len(statuses) > 20 for statuses in given))
        assert server.stop() == 0
        for thread in threads:
            thread.join(30)
        assert sorted(ended) == list(range(_CLIENTS))
        assert {status for statuses in given for status in statuses} == {200}


def test_nobody_is_let_in_whom_no_worker_would_answer_any_more(root: Path) -> None:
    """The worker that would answer stands still while the server stops: who came before gets an answer, nobody else."""
    with running(root, "--workers", "1") as server, ExitStack() as stack:
        address = address_of(server.url)
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        waiting = stack.enter_context(socket.create_connection(address))
        waiting.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.log.read_text() and _signalled(worker))
        late = stack.enter_context(socket.socket())
        late.setblocking(False)
        assert late.connect_ex(address) == errno.EINPROGRESS
        assert late.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _SYN_SENT
        os.kill(worker, signal.SIGCONT)
        assert waiting.recv(15) == b"HTTP/1.1 200 OK"
        assert server.process.wait(30) == 0


def _signalled(pid: int) -> bool:
    """Whether SIGTERM waits for a process that stands still."""
    (mask,) = re.findall(r"^ShdPnd:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)
