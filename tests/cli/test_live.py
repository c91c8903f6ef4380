"""Commands beside a live server: they go through its socket and have its barrier."""

import os
import re
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from load_tests.running import Running, running, until
from service.history import Activation
from service.store import TableStore
from tests.cli.command import command, damage, default_store, done
from tests.world import KERAS_ROWS, publish

ROWS = {version: KERAS_ROWS + version for version in (1, 2, 3)}


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` and `more` with the versions 1 to 3, of which 1 is active."""
    opened = default_store(tmp_path)
    for table in ("words", "more"):
        for version, rows in ROWS.items():
            publish(opened, table, rows, activate=version == 1)
    return opened


@pytest.fixture
def server(store: TableStore) -> Iterator[Running]:
    """Two workers, which look at the store by themselves only once an hour: what they serve, they were told."""
    with running(store.root, "--workers", "2", "--poll-seconds", "3600") as started:
        yield started


def served(server: Running, table: str = "words", path: str = "") -> set[str]:
    """The versions that both workers answer with, over fresh connections; every answer has that version's rows."""
    versions = set()
    for _ in range(12):
        answer = httpx.post(f"{server.url}/v1/tables/{table}{path}/lookup", json={"ids": [6, 0]})
        assert answer.status_code == httpx.codes.OK, answer.text
        body = answer.json()
        if table != "new" and body["version"] in ROWS:
            assert np.array_equal(np.float32(body["vectors"]), ROWS[body["version"]][[6, 0]])
        versions.add(answer.headers["embedding-version"])
    return versions


def test_activate_ends_when_every_worker_serves_the_version(server: Running, store: TableStore, tmp_path: Path) -> None:
    said = done(tmp_path, "activate", "words", 2).out
    assert served(server) == {"2"}
    assert said == "words: version 2 is active (before: 1), served by 2 workers\n"
    assert store.history("words")[-1].by == "activate by tester"


def test_its_json_tells_workers_and_seconds(server: Running, tmp_path: Path) -> None:
    said = done(tmp_path, "activate", "words", 2, "--json").json()
    assert 0 < said.pop("seconds") < 30
    assert said == {"table": "words", "previous_version": 1, "active_version": 2, "workers": 2}


def test_rollback_does_too(server: Running, store: TableStore, tmp_path: Path) -> None:
    done(tmp_path, "activate", "words", 3)
    assert done(tmp_path, "rollback", "words").out == "words: version 1 is active (before: 3), served by 2 workers\n"
    assert served(server) == {"1"}
    assert store.history("words")[-1].by == "rollback by tester"


def test_several_tables_are_activated_together(server: Running, tmp_path: Path) -> None:
    said = done(tmp_path, "activate", "words", 2, "more", 3, "--json").json()
    assert [(table["table"], table["active_version"]) for table in said["tables"]] == [("words", 2), ("more", 3)]
    assert (served(server), served(server, "more")) == ({"2"}, {"3"})


def test_or_none_of_them(server: Running, store: TableStore, tmp_path: Path) -> None:
    damage(store, "more", 3)
    ended = command(tmp_path, "activate", "words", 2, "more", 3)
    assert (ended.code, ended.out) == (6, "")
    assert ended.err.startswith("error: more version 3 is damaged: vectors.npy does not have the SHA-256")
    assert (served(server), served(server, "more")) == ({"1"}, {"1"})
    assert (store.active_version("words"), store.active_version("more")) == (1, 1)


def test_an_import_is_served_when_it_ends(server: Running, store: TableStore, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", KERAS_ROWS * 2)
    assert "active; " in done(tmp_path, "import", "rows.npy", "--table", "words").out
    assert served(server) == {"4"}
    assert "version 1" in done(tmp_path, "import", "rows.npy", "--table", "new").out
    assert served(server, "new") == {"1"}
    assert isinstance(store.history("new")[-1], Activation)


def test_an_import_that_a_worker_cannot_prepare_leaves_nothing(store: TableStore, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", KERAS_ROWS * 2)
    with running(store.root, "--workers", "2", "--prepare-seconds", "0.2") as server:
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            ended = command(tmp_path, "import", "rows.npy", "--table", "words")
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert (ended.code, ended.out) == (1, "")
        assert re.search(r"no answer within 0.2 s from worker \d; nothing has changed", ended.err)
        assert store.versions("words") == [1, 2, 3]
        assert served(server) == {"1"}


def test_labels_are_given_and_forgotten(server: Running, store: TableStore, tmp_path: Path) -> None:
    assert done(tmp_path, "label", "words", "stable", 2).out == "words: stable names version 2\n"
    assert served(server, path="/labels/stable") == {"2"}
    done(tmp_path, "label", "words", "stable", "--delete")
    assert httpx.post(f"{server.url}/v1/tables/words/labels/stable/lookup", json={"ids": [0]}).status_code == 404
    assert store.labels("words") == {}


def test_prune_removes_what_it_says(server: Running, store: TableStore, tmp_path: Path) -> None:
    assert done(tmp_path, "prune", "words", "--keep", 1).out == "words: versions removed: 2\n"
    assert store.versions("words") == [1, 3]
    assert done(tmp_path, "prune", "--keep", 1).out == "more: versions removed: 2\nwords: versions removed: none\n"


REFUSALS: list[tuple[tuple[object, ...], int, str]] = [
    (("activate", "nothing", 1), 3, "there is no table 'nothing'"),
    (("activate", "words", 9), 3, "table 'words' has no version 9"),
    (("rollback", "words"), 4, "table 'words' has no earlier activation to go back to"),
    (("label", "words", "stable", "--delete"), 3, "table 'words' has no label 'stable'"),
    (("label", "words", "Stable", 1), 5, "'Stable' is not a label name"),
    (("label", "words", "stable", 9), 3, "table 'words' has no version 9"),
    (("prune", "nothing"), 3, "there is no table 'nothing'"),
    (("activate", "a/../b", 1), 3, "there is no table 'a/../b'"),
]


def test_refusals_have_the_exit_codes_that_they_have_without_a_server(store: TableStore, tmp_path: Path) -> None:
    alone = [command(tmp_path, *arguments) for arguments, _, _ in REFUSALS]
    with running(store.root, "--poll-seconds", "3600"):
        beside = [command(tmp_path, *arguments) for arguments, _, _ in REFUSALS]
    for without, ended, (arguments, code, complaint) in zip(alone, beside, REFUSALS, strict=True):
        assert (ended.code, ended.out) == (without.code, without.out) == (code, ""), arguments
        assert complaint in ended.err, arguments
        assert complaint in without.err, arguments


def test_list_and_show_tell_what_the_workers_serve(server: Running, tmp_path: Path) -> None:
    lines = done(tmp_path, "list").out.splitlines()
    assert all(line.rstrip().endswith("2 of 2") for line in lines[2:])
    (more, words) = done(tmp_path, "list", "--json").json()["tables"]
    assert [worker["version"] for worker in (*more["workers"], *words["workers"])] == [1, 1, 1, 1]
    assert done(tmp_path, "show", "words").out.count("READY") == 2
    shown = done(tmp_path, "show", "words", "--json").json()["workers"]
    assert {worker["process"] for worker in shown} == set(server.workers())


# The socket


def sockets(store: TableStore) -> list[Path]:
    return sorted(store.root.glob(".control-*"))


def test_only_its_owner_may_open_the_socket(server: Running, store: TableStore) -> None:
    (path,) = sockets(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_gone_after_the_server(store: TableStore) -> None:
    with running(store.root) as server:
        assert len(sockets(store)) == 1
        assert server.stop() == 0
    assert sockets(store) == []


def test_what_a_killed_server_left_is_passed_over_and_used_again(store: TableStore, tmp_path: Path) -> None:
    with running(store.root):
        (left,) = sockets(store)
    assert sockets(store) == [left]
    assert done(tmp_path, "activate", "words", 2).out == "words: version 2 is active (before: 1)\n"
    with running(store.root):
        assert sockets(store) == [left]
        assert "served by 1 worker\n" in done(tmp_path, "activate", "words", 3).out


def test_two_servers_on_one_store_both_follow(server: Running, store: TableStore, tmp_path: Path) -> None:
    with running(store.root, "--poll-seconds", "0.1") as other:
        assert len(sockets(store)) == 2
        done(tmp_path, "activate", "words", 2)
        assert served(server) == {"2"}
        assert until(lambda: served(other) == {"2"})


def test_a_path_that_is_longer_than_an_address_may_be(tmp_path: Path) -> None:
    store = TableStore(tmp_path / ("long" * 30) / ("longer" * 20) / "store")
    publish(store, "words", ROWS[1])
    publish(store, "words", ROWS[2], activate=False)
    with running(store.root, "--poll-seconds", "3600") as server:
        assert "served by 1 worker" in done(tmp_path, "activate", "words", 2, "--store", store.root).out
        assert served(server) == {"2"}


def test_a_socket_that_is_no_servers_is_left_alone(store: TableStore, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(store.root / ".control-elsewhere-0"))
        assert done(tmp_path, "activate", "words", 2).out == "words: version 2 is active (before: 1)\n"
        with running(store.root):
            assert store.root / ".control-elsewhere-0" in sockets(store)
