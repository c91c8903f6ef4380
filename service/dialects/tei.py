"""Text Embeddings Inference: `POST /embed`, `/embed_all` and `GET /info`, for the clients of Hugging Face's server.

Source: the OpenAPI description of huggingface/text-embeddings-inference. Its server has one model, and so its
requests name none: they are answered from the table that a setting names, or below `/tei/{table}` from any.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service import __version__
from service.api.answer import Answer
from service.api.dialect import Call, Dialect, Endpoint, Route
from service.api.json_body import JsonBody, as_object
from service.api.json_text import JsonText, array_text
from service.api.media import JSON
from service.api.nested import json_type
from service.api.served import Served
from service.dialects.embedding import Embedded, checked_dimensions, embed, embed_each, read_input
from service.dialects.problems import described, json_answer, status_of
from service.errors import InvalidRequest, ServiceError
from service.registry import LoadedTable
from service.table import EmbeddingTable
from service.texts import leading, normalized

COUNTED: Final = "tei_embed"
COUNTED_ALL: Final = "tei_embed_all"
_FIELDS: Final = frozenset({"inputs", "truncate", "truncation_direction", "prompt_name"})
_EMBED_FIELDS: Final = _FIELDS | {"normalize", "dimensions"}
_STATUS: Final = {503: 429, 406: 422, 400: 422}
_TYPES: Final = {413: "Validation", 422: "Validation", 429: "Overloaded", 500: "Backend"}
_NOT_READY: Final = 503
_HEADERS: Final = ((b"content-type", JSON.encode()),)
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "inputs": {"description": "A text, texts, ids or sequences of ids."},
        "normalize": {"type": "boolean", "default": True},
        "dimensions": {"type": "integer", "minimum": 1},
        "truncate": {"type": "boolean"},
    },
    "required": ["inputs"],
    "examples": [{"inputs": ["the river", "a bank"]}],
}


def dialect(served: Served) -> Dialect:
    """The protocol over what is served."""
    endpoints = {
        "embed": (_embed_with(served), "POST", "Vectors of texts or of ids", COUNTED),
        "embed_all": (_embed_all_with(served), "POST", "A vector for each token", COUNTED_ALL),
        "info": (_info_with(served), "GET", "What is served", None),
    }
    routes = [
        Route(method, f"{base}/{name}", endpoint, summary, f"{name}{suffix}", counted, _SCHEMA if counted else None)
        for base, suffix in (("", ""), ("/tei/{table}", "_of_table"))
        for name, (endpoint, method, summary, counted) in endpoints.items()
    ]
    embed_, *_ = endpoints["embed"]
    summary = "The same as /embed, for clients that take a server's address for a model"
    aliases = [
        Route("POST", path, embed_, summary, name, COUNTED, alias=True)
        for path, name in (("/", "root"), ("/tei/{table}", "table"), ("/tei/{table}/", "slash"))
    ]
    return Dialect("tei", "Text Embeddings Inference", [*routes, *aliases], problem, prefixes=("/tei/",))


def problem(error: ServiceError) -> Answer:
    """The answer to an error; 429 is what the clients of TEI take for "later"."""
    status = status_of(error, {} if error.code == "not_ready" else _STATUS)
    kind = "Unhealthy" if status == _NOT_READY else _TYPES.get(status, "Validation")
    return json_answer({"error": described(error), "error_type": kind}, status, error)


def _table(served: Served, call: Call) -> EmbeddingTable:
    """The table of the path, or of the setting, or the only one that can read texts."""
    name = call.names.get("table") or served.settings.tei_table
    if name is None:
        able = [entry for entry in served.registry.entries.values() if _reads_texts(entry.loaded)]
        if len(able) != 1:
            names = ", ".join(entry.name for entry in able) or "none"
            raise InvalidRequest(
                f"the request names no table, and these read texts: {names}; set EMBEDDING_TEI_TABLE, or ask below "
                "/tei/TABLE",
                field="inputs",
            )
        name = able[0].name
    call.table = name
    return served.registry.get(name)


def _reads_texts(loaded: LoadedTable | None) -> bool:
    return loaded is not None and loaded.table.reads_texts


def _embed_with(served: Served) -> Endpoint:
    async def embed_(call: Call) -> Answer:
        table = _table(served, call)
        body = JsonBody(await call.body(served.limits.max_body_bytes))
        fields = _read(body, _EMBED_FIELDS)
        normalize = _flag(fields, "normalize", default=True)
        given = fields.get("dimensions")
        dimensions = None if given is None else checked_dimensions(given, table)
        asked = read_input(body, "inputs", served.limits)

        def make(found: Embedded) -> Answer:
            vectors = found.vectors
            if dimensions is not None:
                vectors = leading(vectors, dimensions) if normalize else vectors[:, :dimensions]
            elif normalize:
                vectors = normalized(vectors)
            return _arrays(served, [vectors], each=False)

        return await embed(served, call, table, asked, make)

    return embed_


def _embed_all_with(served: Served) -> Endpoint:
    async def embed_all(call: Call) -> Answer:
        table = _table(served, call)
        body = JsonBody(await call.body(served.limits.max_body_bytes))
        _read(body, _FIELDS)
        asked = read_input(body, "inputs", served.limits)
        return await embed_each(served, call, table, asked, lambda vectors: _arrays(served, vectors, each=True))

    return embed_all


def _arrays(served: Served, arrays: list[NDArray[np.float32]], *, each: bool) -> Answer:
    text = JsonText(served.limits)
    text.write([b"["] if each else [])
    for place, array in enumerate(arrays):
        text.write([b","] if place else [])
        text.write(array_text(array))
    text.write([b"]"] if each else [])
    return Answer(200, _HEADERS, tuple(text.pieces))


def _info_with(served: Served) -> Endpoint:
    async def info(call: Call) -> Answer:
        table = _table(served, call)
        settings, limits = table.reader.settings, served.limits
        return json_answer(
            {
                "model_id": table.identity.name,
                "model_sha": str(table.identity.version),
                "model_dtype": table.dtype,
                "model_type": {"embedding": {"pooling": settings.pooling}},
                "max_concurrent_requests": served.settings.max_in_flight,
                "max_input_length": settings.max_tokens or limits.max_ids,
                "max_batch_tokens": limits.max_ids,
                "max_batch_requests": None,
                "max_client_batch_size": limits.max_ids,
                "auto_truncate": settings.max_tokens is not None,
                "tokenization_workers": served.settings.workers,
                "version": __version__,
                "sha": None,
                "docker_label": None,
            }
        )

    return info


def _read(body: JsonBody, allowed: frozenset[str]) -> dict[str, Any]:
    fields = as_object(body.value, allowed, "the body")
    _flag(fields, "truncate", default=False)  # texts are cut where the table says so, ids never
    direction = fields.get("truncation_direction")
    if fields.get("truncate") and direction not in (None, "right", "Right"):
        raise InvalidRequest("texts are cut at their end only", field="truncation_direction")
    if fields.get("prompt_name") is not None:
        raise InvalidRequest("there are no prompts to choose from", field="prompt_name")
    return fields


def _flag(fields: dict[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false, not {json_type(value)}", field=name)
    return value
