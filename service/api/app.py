"""The application: FastAPI with every route and the documentation, and the lookups in front of its router."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp

from service import __version__
from service.api.admin import admin_router
from service.api.admission import Admission
from service.api.answer import AnswerResponse, Receive, Scope, Send, send_answer
from service.api.binary_body import reject_query
from service.api.body import ClientDisconnected
from service.api.dialect import Dialect
from service.api.dialects import Dialects, Found
from service.api.documentation import DESCRIPTION, LOOKUP, MULTI_LOOKUP
from service.api.errors import internal, problem
from service.api.front import MULTI, Front, Lookups, route_of
from service.api.gauges import ProcessGauges
from service.api.guard import closed
from service.api.health import health_router
from service.api.limits import Limits
from service.api.lookup import Address, LookupEndpoint
from service.api.meter import Meter
from service.api.multi_lookup import PATH as MULTI_PATH
from service.api.multi_lookup import MultiLookupEndpoint
from service.api.routes import Routes
from service.api.served import Served
from service.api.tables import tables_router
from service.api.upload import is_upload, upload_router
from service.errors import InvalidRequest, MethodNotAllowed, RouteNotFound, ServiceError
from service.metrics import Counters, SharedCounters, exposition
from service.opened import Sinks
from service.registry import TableRegistry
from service.settings import Settings
from service.watcher import StoreWatcher

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Service:
    """The application in its two forms: `front` is what a server runs, `behind` is FastAPI alone.

    `served` is what other servers, of other transports, answer from; `gauges` are to be put now and then,
    `routes` tells the route of a request, like `/v1/tables/{table}/lookup`.
    """

    front: Front
    behind: FastAPI
    served: Served
    gauges: ProcessGauges
    routes: Routes


def create_service(
    settings: Settings,
    registry: TableRegistry,
    watcher: StoreWatcher,
    counters: Counters,
    admin: Callable[[ASGIApp], ASGIApp] = lambda _: closed,
    dialects: Callable[[Served], Sequence[Dialect]] = lambda _: (),
) -> Service:
    """Joins the endpoints over one registry; `admin` makes what answers the admin API out of all that is `behind`.

    `dialects` makes the other protocols.
    """
    limits = Limits(settings.max_body_bytes, settings.max_ids, settings.max_response_bytes)
    meter = Meter(registry, counters)
    watcher.opened.sinks = Sinks(meter.outside, meter.texts, meter.loads, counters.introduce)
    single = LookupEndpoint(registry, watcher.opened, limits, meter)
    multi = MultiLookupEndpoint(registry, watcher.opened, limits, meter)
    admission = Admission(settings.max_in_flight)
    lookups = Lookups(single, multi, meter, admission)
    served = Served(settings, limits, registry, watcher.opened, watcher.store, meter, admission)
    others = Dialects(dialects(served), served)
    gauges = ProcessGauges(registry, watcher.opened, admission, counters)
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs-assets",
        title="Embedding table service",
        version=__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
        swagger_ui_parameters={"defaultModelsExpandDepth": 0, "tryItOutEnabled": True},
    )
    app.add_middleware(_CheckedAddress)
    _add_error_handlers(app)
    _add_lookup_routes(app, lookups)
    app.include_router(tables_router(registry, watcher, settings.backend))
    app.include_router(admin_router())
    app.include_router(upload_router(settings))
    app.include_router(health_router(registry, partial(_expose, settings, gauges, counters.shared)))
    _add_dialects(app, others)
    routes = Routes(app.openapi()["paths"] if settings.traces_endpoint is not None else {})
    return Service(Front(lookups, others, app, admin(app), settings, routes), app, served, gauges, routes)


async def _expose(settings: Settings, gauges: ProcessGauges, shared: SharedCounters) -> bytes:
    """The metrics of all processes; in a thread, as thousands of series take milliseconds."""
    gauges.put()
    return await asyncio.to_thread(exposition, shared, backend=settings.backend, places=settings.max_in_flight)


def _add_lookup_routes(app: FastAPI, lookups: Lookups) -> None:
    async def lookup(request: Request) -> Response:
        address = route_of(request.scope["path"])
        if address is None:
            raise RouteNotFound(f"nothing is served at {request.scope['path']!r}")
        return _Lookup(lookups, address)

    base = "/v1/tables/{table}"
    paths = {
        f"{base}/lookup": ("Look up rows of the active version", "lookup"),
        f"{base}/versions/{{version}}/lookup": ("Look up rows of one version", "lookup_version"),
        f"{base}/labels/{{label}}/lookup": ("Look up rows of the version that a label names", "lookup_label"),
    }
    for path, (summary, name) in paths.items():
        app.add_api_route(
            path,
            lookup,
            methods=["POST"],
            summary=summary,
            operation_id=name,
            tags=["lookup"],
            openapi_extra=LOOKUP.operation(path),
            responses=LOOKUP.responses,
        )

    async def multi() -> Response:
        return _Lookup(lookups, MULTI)

    app.add_api_route(
        MULTI_PATH,
        multi,
        methods=["POST"],
        summary="Several lookups at once, from one snapshot",
        operation_id="multi_lookup",
        tags=["lookup"],
        openapi_extra=MULTI_LOOKUP.operation(MULTI_PATH),
        responses=MULTI_LOOKUP.responses,
    )


def _add_dialects(app: FastAPI, dialects: Dialects) -> None:
    async def answer(request: Request) -> Response:
        found = dialects.find(request.scope["path"], request.method)
        if found is None:
            raise RouteNotFound(f"nothing is served at {request.scope['path']!r}")
        return _OfDialect(dialects, found)

    for dialect in dialects.all:
        for route in dialect.routes:
            if route.alias:
                continue
            app.add_api_route(
                route.path,
                answer,
                methods=[route.method],
                summary=route.summary,
                operation_id=f"{dialect.name}_{route.name}",
                tags=[dialect.title],
                openapi_extra=route.operation(),
            )


class _OfDialect(Response):
    """A request in another protocol behind the router: as it is answered in front of it."""

    def __init__(self, dialects: Dialects, found: Found) -> None:
        super().__init__()
        self._dialects = dialects
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._dialects.serve(self._found, scope, receive, send)


class _Lookup(Response):
    """A lookup behind the router: as it is answered in front of it."""

    def __init__(self, lookups: Lookups, address: Address) -> None:
        super().__init__()
        self._lookups = lookups
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._lookups.serve(self._address, scope, receive, send)


class _CheckedAddress:
    """Refuses what the router would let through: query parameters, which few routes take, and stray line ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                _check_address(scope)
            except ServiceError as error:
                await send_answer(send, problem(error))
                return
        await self._app(scope, receive, send)


def _check_address(scope: Scope) -> None:
    path = scope["path"]
    if path.endswith("\n"):  # the router's patterns end in `$`, which would match before it
        raise RouteNotFound(f"nothing is served at {path!r}")
    if path.startswith("/v1/") and route_of(path) is None and not is_upload(scope):
        reject_query(scope["query_string"], "is not known here")


def _add_error_handlers(app: FastAPI) -> None:
    # All of them `async`: a sync handler costs a trip through the thread pool.
    async def on_service_error(_: Request, error: Exception) -> Response:
        return AnswerResponse(problem(cast("ServiceError", error)))

    async def on_http_error(request: Request, error: Exception) -> Response:
        return AnswerResponse(problem(_of_http(request, cast("HTTPException", error))))

    async def on_invalid(_: Request, error: Exception) -> Response:
        return AnswerResponse(problem(InvalidRequest(str(error))))

    async def on_disconnect(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    async def on_fault(_: Request, error: Exception) -> Response:
        return AnswerResponse(internal(error))

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ValidationError, on_fault)
    app.add_exception_handler(ClientDisconnected, on_disconnect)
    app.add_exception_handler(Exception, on_fault)


def _of_http(request: Request, error: HTTPException) -> ServiceError:
    if error.status_code == 405:
        return MethodNotAllowed(request.method, _allowed(request))
    if error.status_code == 404:
        return RouteNotFound(f"nothing is served at {request.scope['path']!r}")
    return InvalidRequest(str(error.detail))


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at this address; the error knows only those of the first."""

    def is_taken(method: str) -> bool:
        return any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if is_taken(method)]
