"""What the command line says beyond locust's own options."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # locust changes the whole process that imports it, and options are read in others, too
    from locust.argument_parser import LocustArgumentParser


@dataclass(frozen=True, slots=True)
class Options:
    """The options by their names, with the lengths as (shortest, longest) and the versions as a pair or None."""

    table: str
    ids_per_request: int
    zipf: float
    oov_share: float
    lengths: tuple[int, int]
    wait_ms: float
    questions: int
    seed: int
    retry_connects: int
    swap_every: float
    swap_table: str | None
    swap_versions: tuple[int, int] | None
    swap_rows: int
    swap_lag: float
    token: str | None
    max_failure_share: float
    max_p99_ms: float | None

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Self:
        """Those that locust has parsed, here or in the master."""
        named = {each.name: getattr(parsed, each.name) for each in fields(cls)}
        versions = parsed.swap_versions
        named["lengths"] = lengths(parsed.lengths)
        named["swap_versions"] = pair(versions) if versions else None
        named["swap_table"] = parsed.swap_table or None
        named["token"] = parsed.token or None
        named["max_p99_ms"] = parsed.max_p99_ms or None
        return cls(**named)


def lengths(text: str) -> tuple[int, int]:
    """`1-16` or `8` as the shortest and the longest length; raises ValueError."""
    shortest, _, longest = text.partition("-")
    found = int(shortest), int(longest or shortest)
    if not 1 <= found[0] <= found[1]:
        raise ValueError(f"lengths {text!r} are not like 8 or 1-16")
    return found


def pair(text: str) -> tuple[int, int]:
    """`1,2` as two versions; raises ValueError."""
    first, _, second = text.partition(",")
    if int(first) == int(second):
        raise ValueError(f"versions {text!r} are one version")
    return int(first), int(second)


def _checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """A reader that only refuses: what it accepts stays text, which the web page can show and workers are sent."""

    def check(text: str) -> str:
        try:
            if text:
                read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def share(text: str) -> float:
    """A number from 0 to 1; raises ArgumentTypeError, whose text argparse tells."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def not_negative(text: str) -> float:
    """A number of at least 0; raises ArgumentTypeError, whose text argparse tells."""
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def count(text: str) -> int:
    """A whole number of at least 1; raises ArgumentTypeError, whose text argparse tells."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def add_options(parser: "LocustArgumentParser") -> None:
    """Adds them to locust's command line and to the form of its web page."""
    _add_lookups(parser)
    _add_swaps(parser)
    _add_thresholds(parser)


def _add_lookups(parser: "LocustArgumentParser") -> None:
    add = parser.add_argument
    add("--table", default="glove-6b-50d", help="table that is looked up")
    add("--ids-per-request", type=count, default=64, help="ids in a request")
    add("--zipf", type=not_negative, default=1.0, help="exponent of the Zipf law of the ids; 0: all are as frequent")
    add("--oov-share", type=share, default=0.02, help="share of requests with ids outside the table, to be refused")
    add("--lengths", type=_checked(lengths), default="1-16", help="lengths of sequences in a batch: 8, or 1-16")
    add(
        "--wait-ms", type=not_negative, default=20.0, help="mean pause of a user between an answer and the next request"
    )
    add("--questions", type=count, default=200, help="different requests of each kind that are drawn ahead")
    add("--seed", type=int, default=0, help="of what is drawn")
    add("--retry-connects", type=int, default=0, help="times that a request is sent again when its connection fails "
        "before a byte of the answer, as a client does while servers restart; counted as RETRY")  # fmt: skip


def _add_swaps(parser: "LocustArgumentParser") -> None:
    add = parser.add_argument
    add("--swap-every", type=not_negative, default=0.0, help="seconds between two swaps of the table that is looked "
        "up; 0: none. Users then look up a table of the scenario's own, a copy that is removed at the end")  # fmt: skip
    add("--swap-table", default="", help="name of that table, by default TABLE-swap; one that exists is refused "
        "without --swap-versions")  # fmt: skip
    add("--swap-versions", type=_checked(pair), default="", help="A,B: swap between these versions of --swap-table, "
        "which exist; nothing is published, and what was active before is in force again at the end")  # fmt: skip
    add("--swap-rows", type=count, default=10_000, help="rows of --table, from the first, that the copy has at most")
    add("--swap-lag", type=not_negative, default=0.0, help="seconds that the version before may still answer after an "
        "activation has returned: the poll interval of other hosts that serve the same store")  # fmt: skip
    add("--token", default="", env_var="EMBEDDING_ADMIN_TOKEN", include_in_web_ui=False,
        help="token of the admin API, for swaps")  # fmt: skip


def _add_thresholds(parser: "LocustArgumentParser") -> None:
    add = parser.add_argument
    add("--max-failure-share", type=share, default=0.0, help="largest share of requests that may fail")
    add("--max-p99-ms", type=not_negative, default=0.0, help="largest 99th percentile of all lookups; 0: any")
    add("--narrow-table", action="store_true", include_in_web_ui=False, help="print the statistics as a narrow table "
        "as well")  # fmt: skip
