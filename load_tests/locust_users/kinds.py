"""The kinds of requests that users send: how they are written, and what they ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from load_tests.locust_users.question import Form

Layout = Literal["flat", "batch", "ragged"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sequence, a rectangular batch or a ragged one; with a mask of its own and zeros in the place of what it
    masks; or pooled by the mean."""

    form: Form
    layout: Layout
    masked: bool = False
    pooled: bool = False
    base64: bool = False


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "json flat": Kind("json", "flat"),
        "json ragged": Kind("json", "ragged"),
        "json masked": Kind("json", "ragged", masked=True),
        "json pooled": Kind("json", "ragged", pooled=True),
        "json base64": Kind("json", "flat", base64=True),
        "raw flat": Kind("raw", "flat"),
        "raw batch": Kind("raw", "batch"),
        "raw pooled": Kind("raw", "batch", pooled=True),
        "v2 json": Kind("v2 json", "flat"),
        "v2 json pooled": Kind("v2 json", "ragged", pooled=True),
        "v2 binary": Kind("v2 binary", "flat"),
        "v2 binary ragged": Kind("v2 binary", "ragged"),
        "v2 binary masked": Kind("v2 binary", "batch", masked=True),
        "v2 binary pooled": Kind("v2 binary", "ragged", pooled=True),
    }
)
"""By the names that they have in the statistics."""
