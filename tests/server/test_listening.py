import errno
import socket

import pytest

from service.errors import Conflict
from service.server.listening import address_of, bind, shut


@pytest.mark.parametrize("workers", [1, 4])
def test_all_sockets_listen_on_one_address(workers: int) -> None:
    listeners = bind("127.0.0.1", 0, workers)
    try:
        assert len(listeners) == workers
        assert len({address_of(listener) for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_an_address_is_taken_once(first: int, second: int) -> None:
    listeners = bind("127.0.0.1", 0, first)
    try:
        port = listeners[0].getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} is in use"):
            bind("127.0.0.1", port, second)
    finally:
        for listener in listeners:
            listener.close()


def test_a_connection_can_be_taken_from_every_socket() -> None:
    listeners = bind("127.0.0.1", 0, 4)
    address = listeners[0].getsockname()
    clients = []
    try:
        for listener in listeners:
            clients.append(socket.create_connection(address))
            taken, peer = listener.accept()
            taken.close()
            assert peer == clients[-1].getsockname()
    finally:
        for open_socket in (*clients, *listeners):
            open_socket.close()


def test_an_ipv6_address_is_written_as_clients_write_it() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        (listener,) = bind("::1", 0, 1)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with listener:
        assert address_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_was_there_before_a_socket_is_shut_can_be_accepted_and_nothing_else_comes(host: str) -> None:
    (listener,) = bind(host, 0, 1)
    address = listener.getsockname()
    with listener, socket.create_connection(address[:2]) as before, socket.socket(listener.family) as after:
        if not all(shut(listener) for _ in range(2)):
            pytest.skip("the system takes no filter for a socket")
        after.setblocking(False)
        assert after.connect_ex(address) == errno.EINPROGRESS
        before.sendall(b"asked")
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(True)
            assert accepted.recv(5) == b"asked"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_sockets_that_are_of_no_network_stay_open() -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        assert not shut(listener)
        client.connect(listener.getsockname())
