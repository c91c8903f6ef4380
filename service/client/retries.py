"""When a call is tried again, and how long is waited before that."""

import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from service.client.errors import EmbeddingServiceError

_REFUSED: Final = frozenset({"overloaded", "not_ready"})
"""Codes that say that nothing was done, and that it may be tried again."""
_GATEWAYS: Final = frozenset({502, 503, 504})
"""What proxies say when the server behind them does not answer."""
_OUR_OWN: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError)
"""What would go wrong in the same way again."""
_NOTHING_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is; all in seconds.

    `deadline` is that of a request with all its tries: none begins after it, and the last one waits no longer for
    its server. Between two tries are pauses that double from `first_pause` to `longest_pause`, each shortened at
    random by up to a half, or what `Retry-After` says if that is more. A deadline of 0 tries once.
    """

    deadline: float = 10.0
    first_pause: float = 0.05
    longest_pause: float = 1.0

    def __post_init__(self) -> None:
        if min(self.deadline, self.first_pause, self.longest_pause) < 0:
            raise ValueError("deadline and pauses must not be negative")


class Patience:
    """The tries of one request. `repeatable` says whether it may be sent twice, being a question and no change.

    `ends` is when the deadline is by `clock`, in seconds.
    """

    __slots__ = ("_clock", "_repeatable", "_retries", "ends", "tries")

    def __init__(self, retries: Retries, *, repeatable: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._retries = retries
        self._repeatable = repeatable
        self._clock = clock
        self.ends = clock() + retries.deadline
        self.tries = 1

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.ends - self._clock()

    def after_fault(self, fault: httpx.HTTPError, *, elsewhere: bool) -> float | None:
        """Seconds to wait after no answer, None to give up; `elsewhere` says that another address is asked next."""
        if isinstance(fault, _OUR_OWN) or not (self._repeatable or isinstance(fault, _NOTHING_SENT)):
            return None
        if _is_untrusted(fault) and not elsewhere:  # it will not be trusted in a second either
            return None
        # A connection that was kept is often closed by a server that is well; another one is made at once.
        at_once = elsewhere or (self.tries == 1 and not isinstance(fault, (*_NOTHING_SENT, httpx.TimeoutException)))
        return self._next(0.0 if at_once else self._pause())

    def after_answer(self, error: EmbeddingServiceError, *, elsewhere: bool) -> float | None:
        """Seconds to wait after an answer that is no success, None to give up."""
        may_repeat = self._repeatable and error.code is None and error.status in _GATEWAYS
        if error.code not in _REFUSED and not may_repeat:
            return None
        return self._next(0.0 if elsewhere else max(self._pause(), error.retry_after or 0.0))

    def _pause(self) -> float:
        retries = self._retries
        longest = min(retries.longest_pause, retries.first_pause * 2.0 ** min(self.tries - 1, 30))
        return longest * random.uniform(0.5, 1.0)

    def _next(self, pause: float) -> float | None:
        if pause >= self.left():
            return None
        self.tries += 1
        return pause


def _is_untrusted(fault: BaseException | None) -> bool:
    """Whether the server's certificate is what was wrong."""
    if fault is None or isinstance(fault, ssl.SSLCertVerificationError):
        return fault is not None
    return _is_untrusted(fault.__cause__ or fault.__context__)  # httpcore keeps the second only


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `Retry-After` asks for, as a number or as a date (RFC 9110 section 10.2.3)."""
    text = headers.get("retry-after")
    if text is None:
        return None
    if text.isascii() and text.strip().isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
