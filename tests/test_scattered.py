import os
import socket

import numpy as np
import pytest

from service.scattered import Scattered, Writer, address_of

PIECES = [b"alpha", b"", b"be", b"gamma ray"]


def scattered(*pieces: bytes) -> Scattered:
    iovecs = np.array([[address_of(piece), len(piece)] for piece in pieces], dtype=np.int64).reshape(-1, 2)
    return Scattered(iovecs, sum(map(len, pieces)), pieces)


def test_the_bytes_are_those_of_all_pieces_in_their_order() -> None:
    pieces = scattered(*PIECES)
    assert bytes(pieces) == b"".join(PIECES)
    assert len(pieces) == len(b"".join(PIECES))


def test_nothing_scattered_is_no_bytes() -> None:
    assert bytes(scattered()) == b""


def test_an_array_lies_where_its_first_number_does() -> None:
    numbers = np.arange(8, dtype=np.int64)
    pieces = Scattered(np.array([[address_of(numbers[2:4]), 16]], dtype=np.int64), 16, numbers)
    assert bytes(pieces) == numbers[2:4].tobytes()


@pytest.mark.parametrize("size", [1, 4, 5, 7, 16, 100])
def test_parts_are_the_whole_and_none_is_empty(size: int) -> None:
    texts = [bytes([97 + at % 26]) * (at % 7) for at in range(60)] + [b"z"]
    parts = list(scattered(*texts).parts(size))
    assert b"".join(map(bytes, parts)) == b"".join(texts)
    assert [len(part) for part in parts] == [len(bytes(part)) for part in parts]
    assert all(len(part) < size + 7 for part in parts)


def test_the_first_byte_can_be_left_out() -> None:
    assert bytes(scattered(b",[1]", b",[2]").without_first_byte()) == b"[1],[2]"


def test_what_is_written_is_head_pieces_and_tail() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb"):
        written = Writer().write(write, b"head ", scattered(*PIECES), b" tail")
        assert reader.read1() == b"head " + b"".join(PIECES) + b" tail"
    assert written == len(b"head " + b"".join(PIECES) + b" tail")


def test_a_full_socket_takes_a_part_and_then_nothing() -> None:
    text = bytes(range(256)) * 4096
    writer = Writer()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        first = writer.write(ours.fileno(), b"", scattered(text, text, text), b"")
        assert 0 < first < 3 * len(text)
        assert writer.write(ours.fileno(), b"", scattered(text), b"") == 0
        received = b""
        while len(received) < first:
            received += theirs.recv(1 << 20)
    assert received == (text * 3)[:first]


def test_a_closed_socket_takes_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert Writer().write(ours.fileno(), b"head", scattered(b"text"), b"") == 0


def test_what_is_too_much_for_one_call_is_known_before() -> None:
    writer = Writer()
    assert writer.takes(b"", scattered(*[b"x"] * 1022), b"")
    assert not writer.takes(b"", scattered(*[b"x"] * 1023), b"")
    assert not writer.takes(b"x" * (32 << 10), scattered(b"x"), b"x")
