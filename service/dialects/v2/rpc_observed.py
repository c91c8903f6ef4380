"""What is around every call over gRPC: its id, and where they are wanted a line in the log and a trace."""

import logging
import time
from collections.abc import Callable
from typing import Final

import grpc

from service.dialects.v2.messages import SERVICE
from service.dialects.v2.rpc_calls import REQUEST_ID_KEY, Call, Outcome, Procedure, Refusal, client_of, status_of
from service.logs import ACCESS
from service.requestid import REQUEST_ID, given_or_new, new
from service.settings import Settings

_PROBES: Final = frozenset({"ServerLive", "ServerReady"})
"""Methods that are not traced, as those of HTTP are not."""
_log = logging.getLogger(ACCESS)


def observed(name: str, work: Procedure, settings: Settings, *, is_nameless: bool) -> Procedure:
    """The procedure of the method `name`, for calls that have ids.

    Answers to calls that came without one have none if the method `is_nameless`; refusals always have one.
    """
    traces = settings.traces_endpoint is not None and name not in _PROBES
    traces_all = traces and settings.traces_ratio > 0
    if settings.access_log:
        work = _logged(name, work)
    if traces:
        from service.dialects.v2.rpc_tracing import traced  # noqa: PLC0415  (an extra, imported by who wants it)

        work = traced(name, work, by_itself=traces_all)
    observes_all = settings.access_log or traces_all or not is_nameless

    def needs_no_id(call: Call) -> bool:
        return not observes_all and not (traces and "traceparent" in call.metadata)

    return _identified(work, needs_no_id, is_nameless=is_nameless)


def _identified(work: Procedure, needs_no_id: Callable[[Call], bool], *, is_nameless: bool) -> Procedure:
    """Takes a call's id from its client, or gives it one; the log has it, and the trailers of the answer."""

    async def identified(call: Call) -> Outcome:
        given = call.metadata.get(REQUEST_ID_KEY)
        if given is None and needs_no_id(call):
            found = await work(call)
            return found.named(new()) if isinstance(found, Refusal) else found
        request_id = given_or_new(None if given is None else given.encode())
        REQUEST_ID.set(request_id)  # in the task of this call alone
        found = await work(call)
        if isinstance(found, Refusal):
            return found.named(request_id)
        if given is not None or not is_nameless:
            call.context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return found

    return identified


def _logged(name: str, work: Procedure) -> Procedure:
    """One line for each call, when what has come of it is known."""
    path = f"/{SERVICE}/{name}"

    async def logged(call: Call) -> Outcome:
        begun, status, size = time.perf_counter(), grpc.StatusCode.CANCELLED.name, 0
        try:
            found = await work(call)
            status, size = status_of(found).name, len(found) if isinstance(found, bytes) else 0
        finally:
            client, seconds = client_of(call)[0] or "-", time.perf_counter() - begun
            said = {"method": "gRPC", "path": path, "grpc_status": status, "bytes": size, "client": client}
            _log.info(
                '%s "gRPC %s" %s %d bytes %.6f s',
                *(client, path, status, size, seconds),
                extra={**said, "seconds": round(seconds, 6)},
            )
        return found

    return logged
