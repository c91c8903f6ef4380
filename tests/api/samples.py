"""The tables that the tests of the API look up in, and the contract's codes. No servers, no requests."""

from pathlib import Path
from typing import Final

import numpy as np

from service.store import TableStore
from service.types import OovRule, RowArray
from tests.world import publish

DIM: Final = 3
ROWS: Final[RowArray] = np.random.default_rng(7).normal(size=(7, DIM)).astype(np.float32)
"""The rows of every table here but `extreme` and `large`."""

TOKENS: Final = ("<pad>", "<unk>", "river", "\u00fcber", "two words", "\U0001f42d", "zebra")
LARGE: Final[RowArray] = np.array([[1.0, 2.0], [70000.0, 1.0], [3e38, 0.0]], dtype=np.float32)

_SPECIAL: Final = (0.0, -0.0, 1e-45, -1e-45, 1.17549435e-38, 1e-40, 16777216.0, 16777217.0, 0.1, 1 / 3, 3.4028235e38)


def _extreme() -> RowArray:
    bits = np.random.default_rng(11).integers(0, 1 << 32, size=4000, dtype=np.uint32)
    drawn = bits.view(np.float32)
    values = np.concatenate([np.array([*_SPECIAL, -3.4028235e38], dtype=np.float32), drawn[np.isfinite(drawn)]])
    return values[: len(values) // 4 * 4].reshape(-1, 4)


EXTREME: Final[RowArray] = _extreme()
"""Subnormals, both zeros, the largest, and float32 of random bits."""

CONTRACT: Final = {
    "invalid_json": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "table_not_found": 404,
    "version_not_found": 404,
    "label_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "conflict": 409,
    "request_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_request": 422,
    "out_of_vocabulary": 422,
    "no_vocabulary": 422,
    "no_unknown_row": 422,
    "not_representable": 422,
    "internal": 500,
    "not_ready": 503,
    "overloaded": 503,
    "timeout": 504,
    "insufficient_storage": 507,
}
"""Code to status, as the contract's table has them."""

_RULES: Final[tuple[OovRule, ...]] = ("zeros", "unk", "mask")


def fill(root: Path) -> None:
    """Publishes every table into the store at `root`.

    `plain` has ids only; `padded` has a vocabulary, padding row 0 and unknown row 1; `default-<rule>` have
    that rule in their manifest; `versions` has 1 (label stable), 2 (active) and 3 (label canary), version n
    being n times the rows; `idle` has no active version.
    """
    store = TableStore(root)
    publish(store, "plain", ROWS)
    publish(store, "padded", ROWS, TOKENS, padding_id=0, unk_id=1)
    for rule in _RULES:
        publish(store, f"default-{rule}", ROWS, unk_id=1, on_oov=rule)
    for version in (1, 2, 3):
        publish(store, "versions", ROWS * version, activate=version == 2)
    store.set_label("versions", "stable", 1)
    store.set_label("versions", "canary", 3)
    publish(store, "idle", ROWS, activate=False)
    publish(store, "extreme", EXTREME)
    publish(store, "large", LARGE)
