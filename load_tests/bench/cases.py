"""What is measured: which peer is asked for how many ids, in which way, drawn by which law."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from load_tests.bench.data import Ids

SIZES: Final = (64, 2048)


@dataclass(frozen=True, slots=True)
class Case:
    """`peer` and `variant` are names in `PEERS`."""

    peer: str
    variant: str
    count: int
    ids: Ids = "zipf"

    @property
    def name(self) -> str:
        """For people and for `--only`."""
        return f"{self.peer}, {self.variant}, {self.count} ids, {self.ids}"


def _of_size(count: int) -> Iterator[Case]:
    """Those that are compared with one another stand together, so that they are measured together."""
    yield Case("floor", "rows", count)
    yield Case("ours", "raw", count)
    yield Case("ours", "JSON base64", count)
    yield Case("ours", "npy", count)
    yield Case("ours", "raw", count, "uniform")
    yield Case("Redis", "MGET", count, "uniform")
    yield Case("ours", "JSON warm", count, "uniform")
    yield Case("ours", "JSON warm", count)
    yield Case("usual FastAPI", "JSON", count)
    yield Case("ours without cache", "JSON cold", count)
    yield Case("ours", "V2 JSON", count)
    yield Case("MLServer", "V2 JSON", count)
    yield Case("ours", "V2 binary", count)
    yield Case("Triton", "V2 binary", count)


CASES: Final = (
    *_of_size(SIZES[0]),
    Case("floor", "one row", SIZES[0]),
    Case("ours", "raw mean-pooled", SIZES[0]),
    *_of_size(SIZES[1]),
)


def chosen(pattern: str, *, peers: bool) -> list[Case]:
    """The cases whose names the pattern is found in; without peers only ours and the floor."""
    ours = [case for case in CASES if peers or case.peer == "floor" or case.peer.startswith("ours")]
    return [case for case in ours if re.search(pattern, case.name)]
