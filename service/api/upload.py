"""`POST /v1/admin/tables/{table}/versions`: a file, a tar, or the name of a file on the server, into a new version."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.api.admin import RESPONSES, TOKEN
from service.api.admin_schemas import Published, SourceBody, UploadQuery
from service.api.answer import Scope
from service.api.body import ClientDisconnected
from service.api.digests import digests_of
from service.api.documentation import problems
from service.api.forms import read_form, read_query_as
from service.api.guard import Caller, caller_of
from service.api.media import JSON, header
from service.errors import ImportFormatError, InvalidRequest, InvalidTable, UnsupportedMediaType
from service.imported import ImportedTable
from service.importers import IMPORTERS
from service.importers.options import ImportOptions
from service.importing import Import, TextOptions
from service.settings import Settings
from service.store import TableStore
from service.systemerrors import disk_full
from service.tablefolder import TABLE_NAME
from service.uploads import Files, Received, allowed_path, too_large

_PATH: Final = re.compile(r"/v1/admin/tables/[^/]+/versions")
_PIECE: Final = 1 << 20  # bytes that are written at once
_CREATED: Final = 201
_DEFAULT_NAME: Final = "upload"


def upload_router(settings: Settings) -> APIRouter:
    """The route of new versions."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"], responses=RESPONSES, dependencies=[TOKEN])

    @router.post(
        "/tables/{table}/versions",
        summary="Publish a new version from a file",
        status_code=_CREATED,
        openapi_extra=_DOCUMENTED,
        responses=problems("conflict", "timeout", "insufficient_storage", "request_too_large"),
    )
    async def publish(request: Request, response: Response, table: str) -> Published:
        caller = caller_of(request.scope)
        query = check_head(request.scope, settings.max_upload_bytes)
        if _is_json(request.scope):
            body = await read_form(request, SourceBody)
            published = await _from_source(caller, table, query, body.source, settings.import_folder)
        else:
            published = await _from_body(caller, table, query, request, settings.max_upload_bytes)
        response.headers["location"] = f"/v1/tables/{table}/versions/{published.version}"
        return published

    return router


def _documented() -> dict[str, Any]:
    schema = UploadQuery.model_json_schema()
    parameters = [
        {"name": name, "in": "query", "required": False, "description": field.get("description", ""),
         "schema": {key: value for key, value in field.items() if key not in ("description", "title")}}
        for name, field in schema["properties"].items()
    ]  # fmt: skip
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {
        "application/octet-stream": binary,
        "application/x-tar": binary,
        JSON: {"schema": SourceBody.model_json_schema()},
    }
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


_DOCUMENTED: Final = _documented()


def is_upload(scope: Scope) -> bool:
    """Whether a request is one to this route, by its path and method: the one behind the lookups that takes a query."""
    return scope["method"] == "POST" and _PATH.fullmatch(scope["path"]) is not None


def check_head(scope: Scope, limit: int) -> UploadQuery:
    """All that can be refused before the body is read; raises InvalidRequest, RequestTooLarge, UnsupportedMediaType."""
    table = scope["path"].split("/")[4]
    if not TABLE_NAME.fullmatch(table):
        raise InvalidTable(f"{table!r} is not a table name: it must match {TABLE_NAME.pattern}")
    query = read_query_as(scope["query_string"], UploadQuery)
    if query.format is not None and query.format not in IMPORTERS:
        raise InvalidRequest(f"format {query.format!r} is not one of {', '.join(IMPORTERS)}", field="format")
    if (header(scope, b"content-encoding") or b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("an upload is taken as it is, without a Content-Encoding")
    digests_of(scope)
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced[:18]) > limit:
        raise too_large(limit, int(announced[:18]))
    return query


def _is_json(scope: Scope) -> bool:
    content_type = header(scope, b"content-type") or b""
    return content_type.partition(b";")[0].strip().lower() == JSON.encode()


# From a file on this machine


async def _from_source(caller: Caller, table: str, query: UploadQuery, source: str, allowed: Path | None) -> Published:
    if query.file is not None:
        raise InvalidRequest("file names a member of an upload; here source names the file", field="file")
    path = await asyncio.to_thread(allowed_path, allowed, source)
    beside = [
        None if name is None else await asyncio.to_thread(allowed_path, allowed, name)
        for name in (query.vocabulary, query.select, query.tokenizer)
    ]
    assert allowed is not None  # noqa: S101  (`allowed_path` has refused)

    wanted = _import_of(query, *beside)
    return await _publish(caller, table, query, lambda: wanted.read(path), await asyncio.to_thread(allowed.resolve))


# From the body


async def _from_body(caller: Caller, table: str, query: UploadQuery, request: Request, limit: int) -> Published:
    digests = digests_of(request.scope)
    async with _staging(caller.steward.store, table) as staging:
        received = await asyncio.to_thread(Received, staging, _name_of(query), limit, digests)
        try:
            await _receive(request, received)
        finally:
            await asyncio.to_thread(received.close)

        def read() -> ImportedTable:
            with disk_full("nothing was published"):
                return _read_files(Files.of(received, limit), query)

        return await _publish(caller, table, query, read, staging / "files")


def _name_of(query: UploadQuery) -> str:
    """What the file is called in errors and in the version's manifest."""
    name = PurePosixPath(query.file or _DEFAULT_NAME).name
    return name if name.isprintable() and 0 < len(name.encode()) <= 200 and name != ".." else _DEFAULT_NAME


async def _receive(request: Request, received: Received) -> None:
    """The whole body onto the disk, a piece in memory at a time; raises ClientDisconnected."""
    with disk_full("the upload is removed"):
        async for piece in _pieces(request):
            await asyncio.to_thread(received.write, piece)
        await asyncio.to_thread(received.finish)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    collected = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        collected += message.get("body", b"")
        more = message.get("more_body", False)
        if len(collected) >= _PIECE or not more:
            yield bytes(collected)
            collected.clear()


@asynccontextmanager
async def _staging(store: TableStore, table: str) -> AsyncIterator[Path]:
    """A folder of the store for this upload, gone at the end; making and removing it is disk work."""
    stack = ExitStack()
    folder = await asyncio.to_thread(stack.enter_context, store.staging(table))
    try:
        yield folder
    finally:
        await asyncio.to_thread(stack.close)


def _read_files(files: Files, query: UploadQuery) -> ImportedTable:
    vocabulary = files.beside(query.vocabulary, "vocabulary")
    select, tokenizer = files.beside(query.select, "select"), files.beside(query.tokenizer, "tokenizer")
    table = files.table(query.file, query.format, [vocabulary, select, tokenizer])
    return _import_of(query, vocabulary or files.companion(table), select, tokenizer).read(table)


# Both


async def _publish(
    caller: Caller, table: str, query: UploadQuery, read: Callable[[], ImportedTable], folder: Path
) -> Published:
    with _shown_without(folder):
        version, _ = await caller.steward.publish(table, read, caller.name, activate=query.activate)
    return Published(table=version.name, version=version.version, active=query.activate)


def _import_of(query: UploadQuery, vocabulary: Path | None, select: Path | None, tokenizer: Path | None) -> Import:
    options = ImportOptions(
        tensor=query.tensor,
        rows=query.rows,
        transpose=query.transpose,
        vocabulary=vocabulary,
        select=select,
        missing=query.missing,
        normalize=query.normalize,
        max_norm=query.max_norm,
        token_column=query.token_column,
    )
    texts = TextOptions(tokenizer, query.pooling, query.normalize_texts)
    return Import(options, query.format, query.padding_id, query.unk_id, query.on_oov, query.dtype, query.note, texts)


@contextmanager
def _shown_without(*folders: Path) -> Iterator[None]:
    """Takes the folders out of what errors say: clients are told the names that they know."""
    try:
        yield
    except ImportFormatError as error:
        raise ImportFormatError(
            _without(error.file, folders), _without(error.reason, folders), error.place
        ) from error.__cause__
    except InvalidTable as error:
        raise InvalidTable(_without(str(error), folders)) from error.__cause__


def _without(text: str, folders: tuple[Path, ...]) -> str:
    for folder in folders:
        text = text.replace(f"{folder}/", "").replace(str(folder), "upload")
    return text
