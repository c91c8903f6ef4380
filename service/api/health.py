"""`/health/live`, `/health/ready`, `/health` and `/metrics`: what machines ask before people do."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.schemas import Liveness, MissingTable, Readiness
from service.registry import TableRegistry


def health_router(registry: TableRegistry, expose: Callable[[], Awaitable[bytes]]) -> APIRouter:
    """The routes of probes and metrics; `expose` gives their text."""
    router = APIRouter(tags=["operations"])
    not_ready: dict[int | str, dict[str, Any]] = {
        503: {"model": Readiness, "description": "Not ready; `missing` says which and why."}
    }

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> Liveness:
        return Liveness()

    @router.get(
        "/health/ready",
        summary="Is every table with an active version served?",
        responses=not_ready,
    )
    @router.get("/health", summary="The same, for tools that ask there", responses=not_ready)
    async def ready(response: Response) -> Readiness:
        missing = [
            MissingTable(table=entry.name, state=entry.state, reason=entry.reason) for entry in registry.missing()
        ]
        if registry.settled and not missing:
            return Readiness(status="ready", missing=[])
        response.status_code = 503
        return Readiness(status="not_ready", missing=missing)

    @router.get(
        "/metrics",
        summary="Metrics in the text format of Prometheus, summed over the workers",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        return Response(await expose(), headers={"content-type": CONTENT_TYPE_LATEST})

    endpoints: dict[str, Callable[..., object]] = {
        "/health/live": live,
        "/health/ready": ready,
        "/health": ready,
        "/metrics": metrics,
    }
    for path, endpoint in endpoints.items():
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return router
