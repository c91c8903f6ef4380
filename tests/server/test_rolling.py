"""The rolling restart in a short form, and that its clients tell what HTTP lets them try again from what failed."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from load_tests.patient_clients import Tally, asking
from load_tests.rolling import TABLE, published, replace_servers, replace_workers
from load_tests.running import running, until

ONES: Final = np.ones((100, 1), np.float32)
BODY: Final = np.ones(64, np.float32).tobytes()  # what any 64 ids of that table get
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def test_workers_are_replaced_one_by_one_and_no_request_fails(tmp_path: Path) -> None:
    figures = replace_workers(tmp_path, published(tmp_path), workers=2, rounds=1)
    assert figures.broken() == []
    assert len(figures.seconds) == 2


def test_a_server_takes_anothers_place_and_no_request_fails(tmp_path: Path) -> None:
    figures = replace_servers(tmp_path, published(tmp_path), workers=2, times=1)
    assert figures.broken() == []
    assert len(figures.seconds) == 1


def test_rows_that_are_not_those_of_the_ids_are_found(tmp_path: Path) -> None:
    rows = published(tmp_path)
    with running(tmp_path) as server:
        tally = tally_of(server.url, TABLE, rows + 1, lambda tally: tally.failed > 3, keeping=2)
    assert tally.answered == 0
    assert all("other rows" in example for example in tally.examples)


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ([b"", HEAD + BODY], "closed before a byte of the answer"),
        ([None, HEAD + BODY], "reset before a byte of the answer"),
    ],
    ids=["closed", "reset"],
)
def test_a_connection_that_ends_without_an_answer_is_tried_again(replies: Sequence[bytes | None], kind: str) -> None:
    with canned(replies) as url:
        tally = tally_of(url, "ones", ONES, lambda tally: tally.answered > 2)
    assert tally.failed == 0
    assert tally.retried[kind] > 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((HEAD + BODY)[:-1], "an answer broke off"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "503 busy"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 256\r\n\r\n" + bytes(256), "other rows"),
    ],
    ids=["broken off", "refused", "zeros"],
)
def test_any_other_answer_than_the_right_one_is_a_failure(reply: bytes, said: str) -> None:
    with canned([reply]) as url:
        tally = tally_of(url, "ones", ONES, lambda tally: tally.failed > 2)
    assert tally.answered == 0
    assert said in tally.examples[0]


def tally_of(
    url: str, table: str, rows: "np.typing.NDArray[np.float32]", enough: Callable[[Tally], bool], keeping: int = 1
) -> Tally:
    with asking(url, table, rows, keeping, 0) as start:
        clients = start()
        until(lambda: all(map(enough, clients.tallies)))
        return clients.end()


@contextmanager
def canned(replies: Sequence[bytes | None]) -> Iterator[str]:
    """A server that answers each connection's only request with the next of these bytes, None being a reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reply_all, args=(listener, replies))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def reply_all(listener: socket.socket, replies: Sequence[bytes | None]) -> None:
    number = 0
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it is shut down
            return
        with connection:
            reply = replies[number % len(replies)]
            number += 1
            received(connection)
            if reply is None:  # closed so that the other side gets a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.sendall(reply)


def received(connection: socket.socket) -> bytes:
    """A request of 64 raw ids as a whole."""
    data = b""
    while len(data.partition(b"\r\n\r\n")[2]) < 512 and (piece := connection.recv(4096)):
        data += piece
    return data
