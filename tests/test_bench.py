"""The comparison with peers: its parts, and one short run of the whole."""

import io
import math
import os
import re
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import orjson
import pytest

from load_tests.bench import __main__ as command
from load_tests.bench import backends, ratios, redis_benchmark, report, rounds, wire, wrk
from load_tests.bench.burst import Burst, Said
from load_tests.bench.cases import CASES, Case, chosen
from load_tests.bench.data import Data, drawn, made
from load_tests.bench.first import First
from load_tests.bench.more import More
from load_tests.bench.peers.floor import FLOOR
from load_tests.bench.peers.known import PEERS
from load_tests.bench.peers.ours import OURS
from load_tests.bench.processes import Cores, Server, free_port, started
from load_tests.bench.questions import Questions
from load_tests.bench.ratios import PROMISES
from load_tests.bench.rounds import Run
from load_tests.bench.row import Row
from service.types import RowArray

_ROWS = 500
_FLOOR = Case("floor", "rows", 64)
_RAW = Case("ours", "raw", 64)

loaded = pytest.mark.skipif(wrk.missing() is not None, reason=f"{wrk.missing()}")
two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the server and the generator need a core each")


def _burst(rate: float = 100.0, **changes: object) -> Burst:
    burst = Burst(seconds=1.0, requests=int(rate), p50=0.001, p99=0.002, failures={}, server_cpu=1.0, generator_cpu=0.2)
    return replace(burst, **changes)  # type: ignore[arg-type]  # as the test says


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return made(tmp_path_factory.mktemp("bench"), _ROWS)


# What is asked


def test_every_case_is_one_that_a_peer_has() -> None:
    assert [case for case in CASES if case.variant not in PEERS[case.peer].variants] == []
    assert len(set(CASES)) == len({case.name for case in CASES}) == len(CASES)


def test_every_promise_is_about_cases_that_are_measured() -> None:
    assert {case for promise in PROMISES for case in (promise.ours, promise.theirs)} <= set(CASES)


@pytest.mark.parametrize(
    ("pattern", "peers", "names"),
    [
        pytest.param("one row|pooled", True, {"floor", "ours"}, id="a pattern"),
        pytest.param("64 ids", False, {"floor", "ours", "ours without cache"}, id="no peers"),
        pytest.param("", True, set(PEERS), id="all"),
    ],
)
def test_cases_are_chosen_by_their_names(pattern: str, peers: bool, names: set[str]) -> None:
    assert {case.peer for case in chosen(pattern, peers=peers)} == names


@pytest.mark.parametrize("count", [64, 2048])
def test_ids_are_the_same_in_every_run_and_of_the_table(count: int) -> None:
    first, again = drawn("zipf", count, 1000), drawn("zipf", count, 1000)
    assert np.array_equal(first, again)
    assert {len(ids) for ids in first} == {count}
    assert 0 <= np.min(first) <= np.max(first) < 1000


def test_frequent_ids_are_frequent_as_the_law_says_and_not_the_lowest() -> None:
    counts = np.bincount(np.concatenate(drawn("zipf", 2048, 100_000)), minlength=100_000)
    shares = np.sort(counts)[::-1] / counts.sum()
    assert shares[:3] == pytest.approx([0.0827, 0.0414, 0.0276], rel=0.05)
    assert np.argsort(counts)[-10:].mean() > 1000


def test_uniform_ids_are_all_as_frequent() -> None:
    counts = np.bincount(np.concatenate(drawn("uniform", 2048, 100)), minlength=100)
    assert counts == pytest.approx(np.full(100, counts.mean()), rel=0.15)


@pytest.mark.parametrize("variant", OURS.variants)
def test_a_wrong_row_is_seen_in_every_variant(data: Data, variant: str) -> None:
    ids = np.array([3, 1, 4], dtype=np.int64)
    rows = data.vectors[ids]
    body = {
        "raw": rows.tobytes(),
        "npy": _npy(rows),
        "JSON warm": orjson.dumps({"vectors": rows.tolist()}),
        "V2 binary": rows.tobytes(),
        "V2 JSON": orjson.dumps({"outputs": [{"shape": rows.shape, "data": rows.ravel().tolist()}]}),
        "JSON base64": orjson.dumps({"vectors": _base64(rows)}),
        "raw mean-pooled": rows.mean(axis=0).astype("<f4").tobytes(),
    }[variant]
    right = OURS.variants[variant].right
    assert right(body, rows)
    assert not right(body, data.vectors[[3, 1, 5]])


def _npy(rows: RowArray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def _base64(rows: RowArray) -> str:
    return b64encode(rows.tobytes()).decode()


# What the generators say


_LINE = (
    '{{"requests": 1500, "microseconds": 3000000, "p50": 1200.0, "p99": 9000.0, '
    '"connect": 0, "read": {read}, "write": 0, "status": {status}, "timeout": 0}}'
)


@pytest.mark.parametrize(
    ("line", "failures"),
    [
        pytest.param(_LINE.format(read=0, status=0), {}, id="good"),
        pytest.param(_LINE.format(read=2, status=7), {"read": 2, "status": 7}, id="errors"),
    ],
)
def test_the_figures_of_wrk_are_read_with_its_errors(line: str, failures: Mapping[str, int]) -> None:
    burst = wrk.parsed(Said(f"Running 3s test\n  Latency 1.2ms\n{line}\n", server_cpu=2.7, generator_cpu=1.5))
    assert burst == Burst(3.0, 1500, 0.0012, 0.009, failures, 2.7, 1.5)
    figures = [burst.rate, burst.cpu, burst.server_share, burst.generator_share]
    assert figures == pytest.approx([500, 0.0018, 0.9, 0.5])


def test_the_figures_of_redis_benchmark_are_read() -> None:
    text = (
        '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max"\n'
        '"MGET key:__rand_int__ key:__rand_int__","8000.00","0.350","0.136","0.311","0.687","0.791","0.831"\n'
    )
    burst = redis_benchmark.parsed(Said(text, 1.0, 0.5), requests=4000)
    assert burst == Burst(0.5, 4000, 0.000311, 0.000791, {}, 1.0, 0.5)


def test_output_without_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="wrk printed no figures"):
        wrk.parsed(Said("unable to connect\n", 0, 0))
    with pytest.raises(ValueError, match="redis-benchmark printed no figures"):
        redis_benchmark.parsed(Said('"test","rps"\n', 0, 0), 1)


# Servers


def test_the_processor_time_of_a_server_is_that_of_all_its_processes(tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass\n"
    program = (
        "import socket, subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {work!r}])\n"  # has ended when it is asked for
        f"child = subprocess.Popen([sys.executable, '-c', {work + 'time.sleep(60)'!r}])\n"
        "listening = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "time.sleep(60)\n"
    )
    port = free_port()
    core = Cores.here().server if len(os.sched_getaffinity(0)) > 1 else 0
    with started([sys.executable, "-c", program, str(port)], port, core, tmp_path / "log") as server:
        server.until(lambda: server.cpu_seconds() >= 0.55)  # both; the system counts in hundredths, and cuts off
        server.quiet()
        assert server.cpu_seconds() < 5
        child = int(Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text())
    with pytest.raises(ProcessLookupError):
        _end_of(child)


def _end_of(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        time.sleep(0.01)


def test_a_server_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "print('no such table', flush=True); raise SystemExit(3)"]
    with (
        pytest.raises(RuntimeError, match=r"exit code 3; its log ends with: no such table"),
        started(program, free_port(), min(os.sched_getaffinity(0)), tmp_path / "log"),
    ):
        pass


@pytest.fixture(scope="module")
def floor(data: Data) -> Iterator[Server]:
    with FLOOR.start(data, min(os.sched_getaffinity(0))) as server:
        yield server


def test_an_answer_that_is_not_200_is_refused(floor: Server) -> None:
    assert wire.ask_http(floor.port, wire.post("/5", "text/plain", b"")) == bytes(5)
    with pytest.raises(ValueError, match="status 500"):
        wire.ask_http(floor.port, wire.post("/five", "text/plain", b""))


@loaded
def test_answers_that_are_not_200_are_counted_as_failures(floor: Server) -> None:
    questions = Questions([np.arange(1)], [wire.post("/5", "text/plain", b""), wire.post("/five", "text/plain", b"")])
    burst = wrk.drive(floor, questions, 1, max(os.sched_getaffinity(0)))
    assert burst.failures["status"] == pytest.approx(burst.requests / 2, abs=wrk.CONNECTIONS)


@pytest.mark.parametrize(
    ("said", "strings"),
    [
        pytest.param(b"*2\r\n$3\r\nabc\r\n$4\r\n\r\n\r\n\r\n", b"abc\r\n\r\n", id="array"),
        pytest.param(b"$2\r\nok\r\n", b"ok", id="string"),
        pytest.param(b":100000\r\n", b"100000", id="number"),
        pytest.param(b"+OK\r\n", b"OK", id="status"),
    ],
)
def test_the_answers_of_redis_are_read(said: bytes, strings: bytes) -> None:
    assert _asked(said) == strings


@pytest.mark.parametrize("said", [b"-ERR wrong number\r\n", b"*1\r\n$-1\r\n"], ids=["error", "missing"])
def test_what_redis_does_not_have_is_an_error(said: bytes) -> None:
    with pytest.raises(ValueError, match=r"ERR|no string"):
        _asked(said)


def _asked(said: bytes) -> bytes:
    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(100)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            return wire.ask_resp(listening.getsockname()[1], wire.command(b"MGET", b"key"))
        finally:
            thread.join()


# Figures


def _run(ours: Sequence[Burst | None], theirs: Sequence[Burst | None]) -> Run:
    return Run(rounds={_RAW: list(ours), _FLOOR: list(theirs)})


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    run = _run([_burst(50), _burst(90), _burst(10)], [_burst(100), _burst(100), _burst(10)])
    (ratio,) = ratios.ratios(run)
    assert ratio.row.measured == pytest.approx(0.9)
    assert ratio.row.kept


def test_a_round_in_which_one_of_both_failed_is_left_out_of_the_ratio() -> None:
    (ratio,) = ratios.ratios(_run([None, _burst(30), _burst(90)], [_burst(10), _burst(100), None]))
    assert ratio.row.measured == pytest.approx(0.3)
    assert not ratio.row.kept


def test_without_a_good_round_no_promise_is_kept() -> None:
    (ratio,) = ratios.ratios(_run([None], [_burst()]))
    assert math.isnan(ratio.row.measured)
    assert not ratio.row.kept


def test_the_ratio_by_processor_time_does_not_know_the_load_generator() -> None:
    slow_generator = _burst(100, server_cpu=0.5)
    (ratio,) = ratios.ratios(_run([_burst(100)], [slow_generator]))
    assert (ratio.row.measured, ratio.by_cpu) == (1.0, 0.5)


def _report(run: Run, more: Sequence[Row] = ()) -> report.Report:
    machine = {"cores": "2", "processor": "P", "memory": "1.0 GiB", "kernel": "Linux 6", "Python": "3.11.0"}
    first = [First(64, from_disk=True, first=0.004, later=0.001)]
    return report.Report("2026-01-01", machine, {"wrk": "4"}, 2, 1, run, list(ratios.ratios(run)), first, More(more))


@pytest.mark.parametrize(
    ("server", "generator", "mark"),
    [
        pytest.param(0.95, 0.5, "50%", id="the server is waited for"),
        pytest.param(0.6, 0.95, "95% *", id="the generator is waited for"),
        pytest.param(0.6, 0.5, "50% †", id="something else is waited for"),
    ],
)
def test_the_report_tells_what_was_waited_for(server: float, generator: float, mark: str) -> None:
    run = Run(rounds={_RAW: [_burst(2000, server_cpu=server, generator_cpu=generator)] * 2})
    line = next(line for line in report.markdown(_report(run)).splitlines() if line.startswith("| ours, raw"))
    assert line.endswith(f" {mark} |")


def test_the_report_has_figures_promises_and_what_is_missing() -> None:
    run = _run([_burst(1000), _burst(1100)], [_burst(2000), None])
    run.left_out["Redis"] = "redis-server is not installed"
    run.failures.append("floor, rows, 64 ids, zipf: {'status': 3}")
    made = _report(run, [Row("p99, ms", 3.0, at_most=4)])
    text = report.markdown(made)
    assert "| ours, raw, 64 ids, zipf | 1,050 | 955 | 1.00 | 2.00 | 10% | 100% | 20% |" in text
    assert "| 64 ids, raw, against the floor | at least 0.65 | 0.75 | 0.5 | **no** | 0.50 |" in text
    assert "| p99, ms | at most 4 |  | 3 | yes |  |" in text
    assert "- Left out: Redis (redis-server is not installed)." in text
    assert "- Failed: floor, rows, 64 ids, zipf: {'status': 3}" in text
    assert "| 64 ids, the table not in the page cache when the server starts | 4.00 | 1.00 |" in text
    assert not made.good


def test_a_report_is_good_if_all_is_kept_and_nothing_failed() -> None:
    run = _run([_burst(90)], [_burst(100)])
    assert _report(run).good
    assert not _report(run, [Row("p99, ms", 5.0, at_most=4)]).good
    run.failures.append("something")
    assert not _report(run).good


def test_the_json_has_every_round() -> None:
    run = _run([_burst(1000), _burst(1100)], [_burst(2000), None])
    told = orjson.loads(orjson.dumps(report.as_json(_report(run))))
    assert [[each and each["requests_per_second"] for each in case["rounds"]] for case in told["cases"]] == [
        [1000, 1100],
        [2000, None],
    ]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command.write(_report(_run([_burst(1000)], [_burst(2000)])), tmp_path)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


# Runs


@loaded
@two_cores
def test_what_is_broken_is_reported_and_what_is_not_is_measured(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"rows": replace(FLOOR.variants["rows"], right=lambda *_: False)}

    def dies(*_: object) -> NoReturn:
        raise RuntimeError("exit code 3")

    peers = {
        "floor": FLOOR,
        "wrong": replace(FLOOR, variants=wrong),
        "dead": replace(FLOOR, start=dies),
        "absent": replace(FLOOR, missing=lambda: "not installed"),
    }
    monkeypatch.setattr(rounds, "PEERS", peers)
    run = rounds.run([Case(name, "rows", 64) for name in peers], data, Cores.here(), 2, 1, lambda _: None)
    assert list(run.rounds) == [_FLOOR]
    assert [burst.requests > 0 for burst in run.good(_FLOOR)] == [True, True]
    assert run.left_out == {"absent": "not installed"}
    assert [failure.partition(":")[0] for failure in run.failures] == [
        "dead does not start",
        "wrong, rows, 64 ids, zipf",
    ]


@loaded
@two_cores
def test_a_burst_with_failures_counts_for_nothing_but_is_told(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    load = replace(FLOOR.load, drive=lambda *_: _burst(failures={"status": 3}))
    monkeypatch.setattr(rounds, "PEERS", {"floor": replace(FLOOR, load=load)})
    run = rounds.run([_FLOOR], data, Cores.here(), 1, 1, lambda _: None)
    assert run.rounds == {_FLOOR: [None]}
    assert run.failures == ["floor, rows, 64 ids, zipf: {'status': 3}"]


@loaded
@two_cores
def test_a_short_run_measures_all_that_is_installed(tmp_path: Path) -> None:
    cases = chosen(
        "^(floor|ours|ours without cache|usual FastAPI|Redis), (rows|raw|JSON|MGET)( cold|)?, 64 ids", peers=True
    )
    made = command.bench(cases, _ROWS, 1, 1)
    assert made.run.failures == []
    here = [case for case in cases if case.peer not in made.run.left_out]
    assert {case.peer for case in here} >= {"floor", "ours", "ours without cache", "usual FastAPI"}
    assert [case.name for case in here if not made.run.good(case)] == []
    assert all(burst.server_cpu > 0 for case in here for burst in made.run.good(case))
    command.write(made, tmp_path)
    assert {case["name"] for case in orjson.loads((tmp_path / "bench.json").read_bytes())["cases"]} == {
        case.name for case in here
    }
    assert "64 ids, raw, against the floor" in (tmp_path / "bench.md").read_text()


@pytest.mark.parametrize(("rate", "code"), [(90, 0), (10, 1)], ids=["kept", "not kept"])
def test_the_command_ends_with_one_if_a_promise_is_not_kept(
    rate: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "bench", lambda *_: _report(_run([_burst(rate)], [_burst(100)])))
    monkeypatch.setattr(sys, "argv", ["bench", "--closed-loop", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == code
    assert capsys.readouterr().out.strip() == (tmp_path / "bench.md").read_text().strip()


def test_numpy_and_onnx_are_measured_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "SIZES", (64, 128))
    monkeypatch.setattr(backends, "_IDS", 256)
    monkeypatch.setattr(backends, "keep_freed_memory", lambda: None)  # it is for good
    output = tmp_path / "results" / "backends.md"
    backends.main(["--large-mb", "6", "--rounds", "2", "--folder", str(tmp_path), "--output", str(output)])
    assert capsys.readouterr().out.strip() == output.read_text().strip()
    lines = [line for line in output.read_text().splitlines() if "thread" in line]
    assert len(lines) == 4 * (3 + 3 + 1 + 1)
    assert all(re.search(r"\|\s+\**[\d.,]+\** \|\s+\**[\d.,]+\** \|$", line) for line in lines)
    assert list(tmp_path.iterdir()) == [output.parent]
