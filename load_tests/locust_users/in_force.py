"""Which versions of a table may answer: those that were in force at any time between a request and its answer."""

import math
import time
from dataclasses import dataclass, replace
from typing import Final

_REMEMBERED: Final = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class _Span:
    version: int
    ended: float


class InForce:
    """What one process of the load generator knows; times are those of its own `time.perf_counter`.

    While nothing has been told, any version may answer. `lag` are the seconds that a version may answer beyond its
    end, as on hosts that follow the store.
    """

    def __init__(self, lag: float = 0.0) -> None:
        self._lag = lag
        self._spans: list[_Span] = []

    def begins(self, before: int, version: int) -> None:
        """An activation is about to be asked for: from now on either may answer."""
        if not self._spans:
            self._spans.append(_Span(before, math.inf))
        self._spans.append(_Span(version, math.inf))

    def returned(self, version: int) -> None:
        """It has returned: who asks from now on gets this version and no other."""
        now = time.perf_counter()
        ended = [span if span.ended < math.inf else replace(span, ended=now) for span in self._spans]
        self._spans = [span for span in ended if span.ended > now - _REMEMBERED - self._lag]
        self._spans.append(_Span(version, math.inf))

    def allows(self, version: int, asked: float) -> bool:
        """Whether an answer that has just come, to a request of that time, may be of the version."""
        return not self._spans or any(
            span.version == version and span.ended + self._lag >= asked for span in self._spans
        )
