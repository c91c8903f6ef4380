"""`GET /v1/tables…`: what is served and what lies in the store."""

import asyncio

from fastapi import APIRouter

from service.api.documentation import problems
from service.api.schemas import TableInfo, TableList
from service.errors import Conflict, VersionNotFound
from service.manifest import Manifest
from service.registry import Entry, TableRegistry, TableState
from service.store import parse_version
from service.types import TableVersion
from service.watcher import StoreWatcher


def tables_router(registry: TableRegistry, watcher: StoreWatcher, backend: str) -> APIRouter:
    """The routes of table metadata."""
    responses = problems("table_not_found", "version_not_found", "invalid_request")
    router = APIRouter(prefix="/v1/tables", tags=["tables"], responses=responses)

    @router.get("", summary="All tables")
    async def tables() -> TableList:
        return TableList(tables=[_of_entry(entry, backend) for _, entry in sorted(registry.entries.items())])

    @router.get("/{table}", summary="One table, as it is served")
    async def table_info(table: str) -> TableInfo:
        return _of_entry(registry.entry(table), backend)

    @router.get("/{table}/versions/{version}", summary="One version of a table")
    async def version_info(table: str, version: str) -> TableInfo:
        entry = registry.entry(table)
        number = parse_version(version)
        if number is None:
            raise VersionNotFound(table, version)
        chosen = TableVersion(table, number)
        if entry.loaded is not None and entry.loaded.table.identity == chosen:
            return _of_entry(entry, backend)
        return await asyncio.to_thread(_of_version, entry, chosen, watcher, backend)

    return router


def _of_entry(entry: Entry, backend: str) -> TableInfo:
    loaded = entry.loaded
    if loaded is None:
        return _unread(entry, entry.active_version, backend, entry.state, entry.reason)
    has_vocabulary = loaded.table.vocabulary is not None
    version = loaded.table.identity.version
    info = _read(entry, version, loaded.manifest, backend, has_vocabulary=has_vocabulary)
    return info.model_copy(update={"state": entry.state, "reason": entry.reason})


def _of_version(entry: Entry, chosen: TableVersion, watcher: StoreWatcher, backend: str) -> TableInfo:
    folder = watcher.store.version(chosen)
    try:
        manifest = folder.check()
    except Conflict as error:
        return _unread(entry, chosen.version, backend, TableState.UNAVAILABLE, str(error))
    info = _read(entry, chosen.version, manifest, backend, has_vocabulary=folder.has_vocabulary())
    state = TableState.READY if watcher.opened.is_open(chosen) else TableState.AVAILABLE
    return info.model_copy(update={"state": state})


def _unread(entry: Entry, version: int | None, backend: str, state: TableState, reason: str | None) -> TableInfo:
    return TableInfo(
        name=entry.name,
        version=version,
        active_version=entry.active_version,
        backend=backend,
        state=state,
        reason=reason,
    )


def _read(entry: Entry, version: int, manifest: Manifest, backend: str, *, has_vocabulary: bool) -> TableInfo:
    return TableInfo(
        name=entry.name,
        version=version,
        active_version=entry.active_version,
        num_embeddings=manifest.num_embeddings,
        embedding_dim=manifest.embedding_dim,
        dtype=manifest.dtype,
        padding_id=manifest.padding_id,
        unk_id=manifest.unk_id,
        on_oov=manifest.on_oov,
        has_vocabulary=has_vocabulary,
        backend=backend,
        state=TableState.READY,
        source=manifest.source,
    )
