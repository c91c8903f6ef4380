"""What is around every call over gRPC: its id, and where they are wanted a line in the log and a trace."""

import logging
import time
from typing import Final

from service.dialects.v2.messages import SERVICE
from service.dialects.v2.rpc_calls import REQUEST_ID_KEY, Context, Outcome, Procedure, Refusal, client_of, status_of
from service.logs import ACCESS
from service.requestid import REQUEST_ID, given_or_new, new
from service.settings import Settings

_NEVER_ANSWERED: Final = "CANCELLED"
_log = logging.getLogger(ACCESS)


def observed(name: str, work: Procedure, settings: Settings, *, is_nameless: bool) -> Procedure:
    """The procedure of the method `name`, for calls that have ids.

    Answers to calls that came without one have none if the method `is_nameless`; refusals always have one.
    """
    is_watched = settings.access_log or settings.traces_endpoint is not None
    if settings.access_log:
        work = _logged(name, work)
    if settings.traces_endpoint is not None:
        from service.dialects.v2.rpc_tracing import traced  # noqa: PLC0415  (an extra, imported by who wants it)

        work = traced(name, work)
    return _identified(work, is_nameless=is_nameless, is_watched=is_watched)


def _identified(work: Procedure, *, is_nameless: bool, is_watched: bool) -> Procedure:
    """Takes a call's id from its client, or gives it one; the log has it, and the trailers of the answer."""

    async def call(sent: bytes, context: Context) -> Outcome:
        given = _given(context)
        if given is None and is_nameless and not is_watched:
            found = await work(sent, context)
            return found.named(new()) if isinstance(found, Refusal) else found
        request_id = given_or_new(given)
        REQUEST_ID.set(request_id)  # in the task of this call alone
        found = await work(sent, context)
        if isinstance(found, Refusal):
            return found.named(request_id)
        if given is not None or not is_nameless:
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return found

    return call


def _given(context: Context) -> bytes | None:
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID_KEY:
            return str(value).encode()
    return None


def _logged(name: str, work: Procedure) -> Procedure:
    """One line for each call, when what has come of it is known."""
    path = f"/{SERVICE}/{name}"

    async def call(sent: bytes, context: Context) -> Outcome:
        begun, status, size = time.perf_counter(), _NEVER_ANSWERED, 0
        try:
            found = await work(sent, context)
            status, size = status_of(found).name, len(found) if isinstance(found, bytes) else 0
        finally:
            client, seconds = client_of(context)[0], time.perf_counter() - begun
            said = {"method": "gRPC", "path": path, "grpc_status": status, "bytes": size, "client": client}
            _log.info(
                '%s "gRPC %s" %s %d bytes %.6f s',
                *(client, path, status, size, seconds),
                extra={**said, "seconds": round(seconds, 6)},
            )
        return found

    return call
