"""Small JSON bodies and queries read through a model: unknown, missing and wrong fields are named."""

from typing import Final, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.api.body import read_body
from service.api.digests import check_digests, digests_of
from service.api.media import JSON, body_type, header_fields
from service.errors import InvalidJson, InvalidRequest, RequestTooLarge, UnsupportedMediaType
from service.manifest import describe

_MOST_BYTES: Final = 1 << 20
_LONGEST_QUERY: Final = 16 << 10  # bytes
_Model = TypeVar("_Model", bound=BaseModel)


async def read_form(request: Request, model: type[_Model], *, empty: bool = False) -> _Model:
    """The JSON body as `model`, nothing standing for {} if it may be `empty`; raises InvalidJson, InvalidRequest."""
    if body_type(header_fields(request.scope["headers"])) != JSON:
        raise UnsupportedMediaType(f"the body must be {JSON}")
    body = await _read(request)
    check_digests(body, digests_of(request.scope))
    try:
        return model.model_validate_json(b"{}" if empty and not body else body)
    except ValidationError as error:
        raise _of(error) from None


async def expect_no_body(request: Request) -> None:
    """Raises InvalidRequest where there is a body, other than {}."""
    body = await _read(request)
    if body.strip() not in (b"", b"{}"):
        raise InvalidRequest("no body is taken here")


async def _read(request: Request) -> bytes:
    try:
        return await read_body(request.scope, request.receive, _MOST_BYTES)
    except RequestTooLarge:
        raise RequestTooLarge("the request body in bytes", "the admin API", _MOST_BYTES) from None


def read_query_as(query_string: bytes, model: type[_Model]) -> _Model:
    """The query parameters as `model`; raises InvalidRequest that names an unknown, repeated or wrong one."""
    if len(query_string) > _LONGEST_QUERY:
        raise InvalidRequest(f"the query has more than {_LONGEST_QUERY} bytes")
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise InvalidRequest("the query is not percent-encoded UTF-8") from None
    for name, value in pairs:
        if name not in model.model_fields:
            known = ", ".join(model.model_fields)
            raise InvalidRequest(f"query parameter {name!r} is not known here; there are {known}", field=name)
        if name in given:
            raise InvalidRequest(f"query parameter {name!r} is given twice", field=name)
        given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _of(error) from None


def _of(error: ValidationError) -> InvalidJson | InvalidRequest:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidJson(first["msg"])
    return InvalidRequest(describe(error), field=".".join(map(str, first["loc"])) or None)
