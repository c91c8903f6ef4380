"""A call over gRPC: what is done for it gives an answer or a refusal, which grpcio is told of at the very end."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote

import grpc

from service.api.errors import Fault
from service.dialects.problems import described
from service.dialects.v2.repository import Refused
from service.errors import ServiceError

_CODES: Final[dict[str, grpc.StatusCode]] = {
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "table_not_found": grpc.StatusCode.NOT_FOUND,
    "version_not_found": grpc.StatusCode.NOT_FOUND,
    "request_too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "not_representable": grpc.StatusCode.OUT_OF_RANGE,
    "conflict": grpc.StatusCode.FAILED_PRECONDITION,
    "internal": grpc.StatusCode.INTERNAL,
    "not_ready": grpc.StatusCode.UNAVAILABLE,
    "overloaded": grpc.StatusCode.UNAVAILABLE,
    "timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the code of an error; whatever else is wrong is an INVALID_ARGUMENT."""

_OF_STATUS: Final[Mapping[int, grpc.StatusCode]] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What the admin API has answered by HTTP."""

REQUEST_ID_KEY: Final = "x-request-id"
_CODE_KEY: Final = "embedding-code"
"""In the trailers of an error: the contract's code, which tells more than the status."""
_LONGEST: Final = 2000
Context: TypeAlias = Any
"""A `grpc.aio.ServicerContext`, which grpcio leaves without types."""


class Refusal(NamedTuple):
    """What is answered in the place of a message."""

    code: grpc.StatusCode
    text: str
    trailers: Mapping[str, str] = {}

    @classmethod
    def of(cls, error: ServiceError) -> "Refusal":
        """What is told of an error."""
        named = {REQUEST_ID_KEY: error.request_id} if isinstance(error, Fault) else {}
        return cls(code_of(error), _short(described(error)), {_CODE_KEY: error.code, **named})

    @classmethod
    def of_admin(cls, refused: Refused) -> "Refusal":
        """What is told where the admin API has refused a verb."""
        return cls(_OF_STATUS.get(refused.status, grpc.StatusCode.INTERNAL), _short(refused.text))

    def named(self, request_id: str) -> "Refusal":
        """With the id of its request, unless it has that of a fault."""
        return self._replace(trailers={REQUEST_ID_KEY: request_id, **self.trailers})


class Call(NamedTuple):
    """A message as it was sent, and what came with it: metadata that is text, of one name the first."""

    sent: bytes
    context: Context
    metadata: Mapping[str, str]


Outcome: TypeAlias = bytes | Refusal
Procedure: TypeAlias = Callable[[Call], Awaitable[Outcome]]
"""What is done for a call. Raises nothing but CancelledError."""
Method: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]


def method(work: Procedure) -> Method:
    """As grpcio calls it."""

    async def called(sent: bytes, context: Context) -> bytes:
        # Read once: each reading decodes all of it anew. Of names that end with `-bin` the values are bytes.
        metadata: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()
        texts = {name: value for name, value in metadata[::-1] if isinstance(value, str)}
        found = await work(Call(sent, context, texts))
        if isinstance(found, bytes):
            return found
        aborted: bytes = await context.abort(found.code, found.text, tuple(found.trailers.items()))
        return aborted  # it never is: `abort` raises

    return called


def code_of(error: ServiceError) -> grpc.StatusCode:
    """The status of an error."""
    return _CODES.get(error.code, grpc.StatusCode.INVALID_ARGUMENT)


def status_of(found: Outcome) -> grpc.StatusCode:
    """The status of what has come of a call."""
    return found.code if isinstance(found, Refusal) else grpc.StatusCode.OK


def client_of(call: Call) -> tuple[str, int | None]:
    """Address and port of the client, out of what gRPC writes as `ipv4:127.0.0.1:50000` and `ipv6:%5B::1%5D:50000`.

    Others have no address: an empty text, and no port.
    """
    address, _, port = unquote(call.context.peer()).partition(":")[2].rpartition(":")
    return address.strip("[]"), int(port) if port.isdecimal() else None


def _short(text: str) -> str:
    """What fits into the metadata that clients take (8 KB), percent-encoded as it is there."""
    most = _LONGEST if text.isascii() else _LONGEST // 6
    return text if len(text) <= most else f"{text[:most]}…".encode("ascii", "replace").decode()
