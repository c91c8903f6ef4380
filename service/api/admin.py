"""`/v1/admin/…`: which versions are served, their labels, and which go. Uploads are in `upload.py`."""

import asyncio
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from service.api.admin_detail import detail, line
from service.api.admin_schemas import (
    ActivateAllBody,
    ActivateBody,
    ActivatedTable,
    Activation,
    Activations,
    Label,
    LabelBody,
    PruneBody,
    PrunedVersions,
    TableDetail,
    TableLines,
)
from service.api.documentation import problems
from service.api.forms import expect_no_body, read_form
from service.api.guard import caller_of
from service.api.lookup import version_of
from service.steward import Activated
from service.types import TableVersion

RESPONSES: Final = problems("unauthorized", "forbidden", "table_not_found", "version_not_found", "invalid_request")
TOKEN: Final = Depends(HTTPBearer(auto_error=False, description="One of the tokens that the operator has set."))
"""For the documentation; `guard.py` has checked it before a route is chosen."""
_NO_CONTENT: Final = 204
_ACTIVATION: Final = problems("conflict", "timeout", "insufficient_storage")


def admin_router() -> APIRouter:
    """The routes that change what is served; they find their steward in the request."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"], responses=RESPONSES, dependencies=[TOKEN])
    _add_reading(router)
    _add_activation(router)
    _add_labels(router)
    _add_removal(router)
    return router


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a JSON body."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _add_reading(router: APIRouter) -> None:
    @router.get("/tables", summary="All tables, and what every worker serves")
    async def admin_tables(request: Request) -> TableLines:
        steward = caller_of(request.scope).steward
        tables = await asyncio.to_thread(steward.store.tables)
        states = await steward.states(tables)
        lines = await asyncio.to_thread(lambda: [line(steward.store, table, states[table]) for table in tables])
        return TableLines(tables=lines)

    @router.get("/tables/{table}", summary="One table: versions, labels, history, and what every worker serves")
    async def admin_table(request: Request, table: str) -> TableDetail:
        steward = caller_of(request.scope).steward
        await asyncio.to_thread(steward.store.history, table)
        states = await steward.states([table])
        return await asyncio.to_thread(detail, steward.store, table, states[table])


def _add_activation(router: APIRouter) -> None:
    @router.post(
        "/tables/{table}/activate",
        summary="Serve another version, in all workers or in none",
        openapi_extra=body_of(ActivateBody),
        responses=_ACTIVATION,
    )
    async def activate(request: Request, table: str) -> Activation:
        caller = caller_of(request.scope)
        body = await read_form(request, ActivateBody)
        return _of_one(await caller.steward.activate({table: body.version}, caller.name))

    @router.post(
        "/activate",
        summary="Serve other versions of several tables, all of them or none",
        openapi_extra=body_of(ActivateAllBody),
        responses=_ACTIVATION,
    )
    async def activate_all(request: Request) -> Activations:
        caller = caller_of(request.scope)
        body = await read_form(request, ActivateAllBody)
        done = await caller.steward.activate(body.tables, caller.name)
        return Activations(tables=_tables(done), workers=done.workers, seconds=round(done.seconds, 4))

    @router.post(
        "/tables/{table}/rollback", summary="Serve the version that was active before; twice swaps back",
        responses=_ACTIVATION,
    )  # fmt: skip
    async def rollback(request: Request, table: str) -> Activation:
        caller = caller_of(request.scope)
        await expect_no_body(request)
        return _of_one(await caller.steward.rollback(table, caller.name))


def _add_labels(router: APIRouter) -> None:
    @router.put(
        "/tables/{table}/labels/{label}",
        summary="Have a label name a version",
        openapi_extra=body_of(LabelBody),
        responses=problems("conflict", "insufficient_storage"),
    )
    async def set_label(request: Request, table: str, label: str) -> Label:
        caller = caller_of(request.scope)
        body = await read_form(request, LabelBody)
        await caller.steward.set_label(table, label, body.version, caller.name)
        return Label(table=table, label=label, version=body.version)

    @router.delete(
        "/tables/{table}/labels/{label}",
        summary="Forget a label",
        status_code=_NO_CONTENT,
        responses=problems("label_not_found"),
    )
    async def delete_label(request: Request, table: str, label: str) -> Response:
        caller = caller_of(request.scope)
        await expect_no_body(request)
        await caller.steward.delete_label(table, label, caller.name)
        return Response(status_code=_NO_CONTENT)


def _add_removal(router: APIRouter) -> None:
    @router.delete(
        "/tables/{table}/versions/{version}",
        summary="Delete a version that is neither active nor labelled",
        status_code=_NO_CONTENT,
        responses=problems("conflict"),
    )
    async def delete_version(request: Request, table: str, version: str) -> Response:
        caller = caller_of(request.scope)
        await expect_no_body(request)
        chosen = TableVersion(table, version_of(table, version))
        await caller.steward.delete_version(chosen.name, chosen.version, caller.name)
        return Response(status_code=_NO_CONTENT)

    @router.post(
        "/tables/{table}/prune",
        summary="Delete versions by count and age",
        openapi_extra=body_of(PruneBody),
        responses=problems("conflict"),
    )
    async def prune(request: Request, table: str) -> PrunedVersions:
        caller = caller_of(request.scope)
        body = await read_form(request, PruneBody, empty=True)
        age = timedelta(days=body.older_than_days)
        pruned = await caller.steward.prune(table, body.keep, age, caller.name)
        removed = [version.version for version in pruned.versions]
        return PrunedVersions(table=table, removed=removed, unfinished=list(pruned.staging))


def _tables(done: Activated) -> list[ActivatedTable]:
    return [
        ActivatedTable(
            table=switch.table, previous_version=switch.previous_version, active_version=switch.active_version
        )
        for switch in done.switches
    ]


def _of_one(done: Activated) -> Activation:
    (table,) = _tables(done)
    return Activation(**table.model_dump(), workers=done.workers, seconds=round(done.seconds, 4))
