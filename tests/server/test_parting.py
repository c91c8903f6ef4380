"""A stop while clients ask all the time over connections that they keep: each is told, and no request is lost."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from load_tests.running import running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

_PATH = "/v1/tables/words/lookup"
_CLIENTS = 8


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
            thread.join(10)
        assert sorted(ended) == list(range(_CLIENTS))
        assert {status for statuses in given for status in statuses} == {200}
