import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from load_tests.kill_loop import (
    FRESH,
    SWAPPED,
    Cut,
    Death,
    Mortal,
    PromiseBroken,
    ServerDeaths,
    Truth,
    constant_table,
    make_store,
    rows_of,
)
from service.errors import DamagedVersion
from service.store import TableStore

REPOSITORY = Path(__file__).parents[2]
LATE = 10.0  # seconds by the clock of the loop


def loop(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "load_tests.kill_loop", *arguments, str(root)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=120)


def figures_of(root: Path, *arguments: str) -> dict[str, str]:
    """What a loop prints that breaks no promise."""
    done = loop(root, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines())


def test_killed_workers_and_stewards_cost_no_more_than_their_requests_in_flight(tmp_path: Path) -> None:
    # Two seconds are for a machine that does nothing else.
    figures = figures_of(tmp_path, "--workers-killed", "5", "--servers-killed", "0", "--back-within", "10")
    assert (figures["workers killed"], figures["stewards killed"]) == ("5", "1")
    assert figures["other lookups failed"] == "0"
    assert int(figures["lookups answered, each right"]) > 100
    assert int(figures["activations answered 200, each true"]) > 5


def test_killed_servers_and_publishers_leave_what_was_answered(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, "--workers-killed", "0", "--servers-killed", "3")
    assert figures["servers and publishers killed"] == "3"
    assert int(figures["activations answered"]) + int(figures["publishes answered"]) > 3
    store = TableStore(tmp_path / "servers" / "store")
    assert set(store.tables()) == {*SWAPPED, FRESH}
    assert not [*store.root.glob("**/.staging-*"), *store.root.glob(".switch.json")]


# The checks of the loop


def test_a_request_may_see_every_version_that_was_in_force_while_it_ran() -> None:
    truth = Truth({"item": 1, "user": 1})
    before = truth.step()
    assert truth.allowed("user", before) == {1}
    truth.begin({"user": 2})
    under_way = truth.step()
    assert (truth.allowed("user", under_way), truth.allowed("item", under_way)) == ({1, 2}, {1})
    truth.end(truth.after())
    assert truth.allowed("user", before) == {1, 2}
    assert truth.allowed("user", truth.step()) == {2}


def test_a_death_explains_only_its_own_requests_in_flight() -> None:
    death = Death(LATE, frozenset({4000}))
    assert death.explains(Cut(4000, LATE - 1, LATE + 0.1))
    assert not death.explains(Cut(4001, LATE - 1, LATE + 0.1))  # of another worker
    assert not death.explains(Cut(4000, LATE + 0.1, LATE + 0.2))  # opened later, on the same port
    assert not death.explains(Cut(4000, LATE - 1, LATE - 0.1))  # failed before
    assert not death.explains(Cut(4000, LATE - 1, LATE + 9))  # hung


def lose_a_version(store: TableStore) -> None:
    vectors = store.root / "user" / "2" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])


def forget_an_activation(store: TableStore) -> None:
    store.activate("user", 2)
    store.activate("user", 1)
    path = store.root / "user" / "history.jsonl"
    first, _, third = path.read_text().splitlines(keepends=True)
    path.write_text(first + third)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lose_a_version, "vectors.npy has"),
        (forget_an_activation, "is no chain"),
        (lambda store: store.activate("user", 2), "are in force"),  # one half of a pair
        (lambda store: (store.root / FRESH / "CURRENT").write_text("1\n"), "was answered"),
    ],
    ids=["damaged", "history", "half a pair", "an answer that was not true"],
)
def test_a_store_that_breaks_a_promise_ends_the_loop(
    tmp_path: Path, harm: Callable[[TableStore], object], named: str
) -> None:
    store = make_store(tmp_path / "store")
    answered = store.publish(FRESH, constant_table(rows_of("user", 1)), activate=True).version
    truth = Truth(dict.fromkeys(SWAPPED, 1))
    truth.begin(dict.fromkeys(SWAPPED, 2))
    swapper = Mortal("http://127.0.0.1", truth, 0)
    deaths = ServerDeaths(store, 1, random.Random(0), {**truth.certain, FRESH: 1})
    deaths.check_store(swapper, [answered])
    harm(store)
    with pytest.raises((PromiseBroken, DamagedVersion), match=named):
        deaths.check_store(swapper, [answered])


def test_the_loop_ends_with_one_where_a_promise_is_broken(tmp_path: Path) -> None:
    (tmp_path / "servers" / "store" / "item" / "1").mkdir(parents=True)
    done = loop(tmp_path, "--workers-killed", "0", "--servers-killed", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "manifest.json is missing" in done.stderr
    assert str(tmp_path) in done.stderr
