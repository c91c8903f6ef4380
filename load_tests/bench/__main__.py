"""The service beside its peers, in one run: `python -m load_tests.bench`.

    python -m load_tests.bench --rounds 15 --seconds 1
    python -m load_tests.bench --only 'raw|floor' --rounds 1 --seconds 1

Prints and writes `bench.md`, `bench.json` and, where matplotlib is installed, `bench.png` into `--out`. Ends with 1 if
a promise is not kept or a burst failed.
"""

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import orjson

from load_tests.bench import wrk
from load_tests.bench.cases import Case, chosen
from load_tests.bench.data import ROWS, made
from load_tests.bench.first import first_answers
from load_tests.bench.machine import machine
from load_tests.bench.more import NOTHING, More, measure
from load_tests.bench.peers.known import PEERS
from load_tests.bench.processes import Cores
from load_tests.bench.ratios import ratios
from load_tests.bench.report import Report, as_json, markdown
from load_tests.bench.rounds import Run, run


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1, help="of each burst")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument(
        "--only", default="", help="a regular expression; cases whose names it is found in, and no more"
    )
    parser.add_argument("--no-peers", action="store_true", help="only the service itself and the floor")
    parser.add_argument("--closed-loop", action="store_true", help="nothing else")
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    cases = chosen(given.only, peers=not given.no_peers)
    more = NOTHING if given.only or given.closed_loop else measure(_tell)
    report = bench(cases, given.rows, given.rounds, given.seconds, more)
    write(report, given.out)
    print(markdown(report))
    sys.exit(0 if report.good else 1)


def bench(cases: Sequence[Case], rows: int, rounds: int, seconds: int, more: More = NOTHING) -> Report:
    """Everything that is measured, and where and with what it was."""
    cores = Cores.here()
    with tempfile.TemporaryDirectory() as folder:
        data = made(Path(folder), rows)
        first = list(first_answers(data, cores, _raw_sizes(cases)))
        result = run(cases, data, cores, rounds, seconds, _tell)
    date = dt.datetime.now(dt.UTC).date().isoformat()
    versions = dict(_versions(result))
    return Report(date, machine(), versions, rounds, seconds, result, list(ratios(result)), first, more)


def _raw_sizes(cases: Sequence[Case]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(case.count for case in cases if (case.peer, case.variant) == ("ours", "raw")))


def _versions(result: Run) -> Iterator[tuple[str, str]]:
    if wrk.missing() is None:
        yield "wrk", wrk.version()
    for name in dict.fromkeys(case.peer for case in result.rounds):
        yield from PEERS[name].versions().items()


def write(report: Report, out: Path) -> None:
    """Into a folder, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.md").write_text(markdown(report))
    (out / "bench.json").write_bytes(orjson.dumps(as_json(report), option=orjson.OPT_INDENT_2))
    if find_spec("matplotlib") and report.run.rounds:
        from load_tests.bench.picture import draw  # noqa: PLC0415  (an extra that only pictures need)

        draw(report, out / "bench.png")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
