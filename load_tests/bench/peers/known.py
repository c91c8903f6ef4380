"""All peers by name; another one is a file beside this one and a line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from load_tests.bench.peers.common import Peer
from load_tests.bench.peers.floor import FLOOR
from load_tests.bench.peers.mlserver import MLSERVER
from load_tests.bench.peers.ours import OURS, WITHOUT_CACHE
from load_tests.bench.peers.redis import REDIS
from load_tests.bench.peers.triton import TRITON
from load_tests.bench.peers.usual_fastapi import USUAL_FASTAPI

PEERS: Final[Mapping[str, Peer]] = MappingProxyType(
    {
        "floor": FLOOR,
        "ours": OURS,
        "ours without cache": WITHOUT_CACHE,
        "Redis": REDIS,
        "usual FastAPI": USUAL_FASTAPI,
        "MLServer": MLSERVER,
        "Triton": TRITON,
    }
)
