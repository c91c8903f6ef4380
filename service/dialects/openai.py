"""OpenAI's embeddings: `POST /v1/embeddings`, and a table as a model. Source: OpenAI's API reference, "Embeddings"."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from service.api.answer import Answer
from service.api.dialect import Call, Dialect, Route
from service.api.json_body import JsonBody, as_object
from service.api.json_text import JsonText
from service.api.media import JSON, body_type, header_fields
from service.api.nested import json_type
from service.api.served import Served
from service.dialects.embedding import Embedded, checked_dimensions, embed, read_input
from service.dialects.models import model_routes
from service.dialects.problems import described, json_answer, printable, status_of
from service.errors import InvalidRequest, ServiceError, TableNotFound, UnsupportedMediaType
from service.texts import leading

COUNTED: Final = "openai_embeddings"
_FIELDS: Final = frozenset({"input", "model", "encoding_format", "dimensions", "user"})
_STATUS: Final = {406: 400, 415: 400, 422: 400}
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 500: "server_error", 503: "server_error"}
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "Name of a table."},
        "input": {"description": "A text, texts, ids or sequences of ids."},
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        "dimensions": {"type": "integer", "minimum": 1, "description": "Leading numbers, L2-normalised again."},
        "user": {"type": "string"},
    },
    "required": ["model", "input"],
    "examples": [{"model": "glove-6b-50d", "input": "the river"}],
}


def dialect(served: Served) -> Dialect:
    """The protocol over what is served."""

    async def embeddings(call: Call) -> Answer:
        return await _embeddings(served, call)

    return Dialect(
        "openai",
        "OpenAI embeddings",
        [
            Route("POST", "/v1/embeddings", embeddings, "Vectors of texts or of ids", "embeddings", COUNTED, _SCHEMA),
            *model_routes(served),
        ],
        problem,
        prefixes=("/v1/embeddings/", "/v1/models/"),
    )


async def _embeddings(served: Served, call: Call) -> Answer:
    if (media := body_type(header_fields(call.scope["headers"]))) != JSON:
        raise UnsupportedMediaType(f"embeddings are asked for as {JSON}, not as {media}")
    body = JsonBody(await call.body(served.limits.max_body_bytes))
    fields = as_object(body.value, _FIELDS, "the body")
    call.table = name = _model(fields)
    table = served.registry.get(name)
    encode = _encoder(fields)
    given = fields.get("dimensions")
    dimensions = None if given is None else checked_dimensions(given, table)
    asked = read_input(body, "input", served.limits)

    def make(found: Embedded) -> Answer:
        vectors = found.vectors if dimensions is None else leading(found.vectors, dimensions)
        text = JsonText(served.limits)
        text.write([b'{"object":"list","data":['])
        text.write(
            b'%b{"object":"embedding","index":%d,"embedding":%b}' % (b"," if index else b"", index, encode(vector))
            for index, vector in enumerate(np.ascontiguousarray(vectors))
        )
        usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
        text.write([b"],", orjson.dumps({"model": name, "usage": usage})[1:]])
        return Answer(200, ((b"content-type", JSON.encode()),), tuple(text.pieces))

    return await embed(served, call, table, asked, make)


def _model(fields: dict[str, Any]) -> str:
    name = fields.get("model")
    if not isinstance(name, str):
        raise InvalidRequest(f"model must be a string, the name of a table, not {json_type(name)}", field="model")
    return name


def _as_numbers(vector: NDArray[np.float32]) -> bytes:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def _as_base64(vector: NDArray[np.float32]) -> bytes:
    return b'"%b"' % pybase64.b64encode(vector.data)


_ENCODERS: Final[dict[str, Callable[[NDArray[np.float32]], bytes]]] = {"float": _as_numbers, "base64": _as_base64}


def _encoder(fields: dict[str, Any]) -> Callable[[NDArray[np.float32]], bytes]:
    name = fields.get("encoding_format") or "float"
    if not isinstance(name, str) or name not in _ENCODERS:
        raise InvalidRequest(f"encoding_format must be one of {', '.join(_ENCODERS)}", field="encoding_format")
    return _ENCODERS[name]


def problem(error: ServiceError) -> Answer:
    """The answer to an error, as OpenAI writes it."""
    status = status_of(error, _STATUS)
    field = error.members().get("field")
    said: dict[str, object] = {
        "message": described(error),
        "type": _TYPES.get(status, "invalid_request_error"),
        "param": None if field is None else printable(str(field)),
        "code": error.code,
    }
    if isinstance(error, TableNotFound):
        said |= {"param": "model", "code": "model_not_found"}
    return json_answer({"error": said}, status, error)
