"""The worlds of the tests themselves."""

import socket
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from load_tests.bench.openloop.world import address_of
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, Path_, listening, publish, serving


@pytest.mark.parametrize("path", ["wire", "front", "behind", "onnx"])
def test_a_server_answers_the_rows_of_a_published_table(tmp_path: Path, path: Path_) -> None:
    publish(TableStore(tmp_path), "words", KERAS_ROWS, KERAS_TOKENS, padding_id=0)
    with serving(tmp_path, path) as client:
        answer = client.post("/v1/tables/words/lookup", json={"ids": [5, 1]})
    assert answer.status_code == 200
    assert answer.json()["vectors"] == [[0.7, 1.7], [0.1, 4.2]]


def test_a_server_takes_connections_from_the_moment_it_is_given() -> None:
    async def silent(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    for _ in range(10):  # a thread that had to listen first would lose most of these races
        with listening(silent) as url:
            socket.create_connection(address_of(url)).close()
