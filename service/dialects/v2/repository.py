"""The model repository extension's verbs: `load` activates a version in every worker, `unload` has none active.

Both are answered by the steward, to whom workers pass them on, and are for owners of an admin token.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson
from starlette.types import ASGIApp

from service.api.answer import Answer, Message, Scope
from service.api.dialect import Call, Route
from service.api.guard import caller_of
from service.api.json_body import JsonBody
from service.api.lookup import version_of
from service.api.nested import json_type
from service.dialects.problems import json_answer
from service.errors import InvalidRequest
from service.requestid import CARRIED, REQUEST_ID
from service.store import TableStore

_LONGEST: Final = 1 << 20  # bytes of a body
_LOADED_WITH: Final = frozenset({"version", "config"})
_UNLOADED_WITH: Final = frozenset({"unload_dependents"})
_SCHEMA: Final = {
    "type": "object",
    "properties": {"parameters": {"type": "object", "properties": {"version": {"type": "string"}}}},
}


def routes() -> list[Route]:
    """Of both verbs."""
    base = "/v2/repository/models/{table}"
    return [
        Route("POST", f"{base}/load", _load, "Serve the newest version, or another one", "load", schema=_SCHEMA),
        Route("POST", f"{base}/unload", _unload, "Serve no version", "unload", schema={"type": "object"}),
    ]


class Refused(Exception):
    """The admin API has refused a verb, with this HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


async def pass_on(
    admin: ASGIApp, verb: str, table: str, parameters: Mapping[str, object], authorization: str | None
) -> None:
    """Has the admin API carry out a verb that did not come by HTTP; raises Refused."""
    path = f"/v2/repository/models/{table}/{verb}"
    body = orjson.dumps({"parameters": parameters})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *CARRIED.get()]
    headers.append((b"x-request-id", REQUEST_ID.get().encode()))
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope: Scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": quote(path).encode(), "query_string": b"",
        "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "", "client": None, "server": None,
    }  # fmt: skip
    status, said = 0, bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        said.extend(message.get("body", b""))

    await admin(scope, receive, send)
    if status != _OK:
        raise Refused(status, str(orjson.loads(said)["error"]))


_OK: Final = 200


async def _load(call: Call) -> Answer:
    caller = caller_of(call.scope)
    parameters = await _parameters(call, _LOADED_WITH)
    version = _named(call.table, parameters)
    if version is None:
        version = await asyncio.to_thread(_newest, caller.steward.store, call.table)
    await caller.steward.activate({call.table: version}, caller.name)
    return json_answer({})


async def _unload(call: Call) -> Answer:
    caller = caller_of(call.scope)
    await _parameters(call, _UNLOADED_WITH)
    await caller.steward.unload(call.table, caller.name)
    return json_answer({})


def _newest(store: TableStore, table: str) -> int:
    return store.versions(table)[-1]


async def _parameters(call: Call, known: frozenset[str]) -> Mapping[str, Any]:
    body = await call.body(_LONGEST)
    if not body.strip():
        return {}
    fields = JsonBody(body).value
    parameters = fields.get("parameters", {}) if isinstance(fields, dict) else None
    if not isinstance(parameters, dict):
        raise InvalidRequest("the request must be an object with an object of parameters", field="parameters")
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise InvalidRequest(
            f"unknown parameter {unknown[0]!r}; there are {', '.join(sorted(known))} (tables are uploaded to the admin "
            "API)",
            field=unknown[0],
        )
    return parameters


def _named(table: str, parameters: Mapping[str, Any]) -> int | None:
    """The version that is to be loaded: by the parameter `version`, or by a configuration's version policy."""
    if "version" in parameters:
        version = parameters["version"]
        if isinstance(version, bool) or not isinstance(version, int | str):
            raise InvalidRequest(f"version must be an integer or its text, not {json_type(version)}", field="version")
        return version_of(table, str(version))
    if "config" not in parameters:
        return None
    policy = _configuration(parameters["config"]).get("version_policy", {"latest": {}})
    specific = policy.get("specific") if isinstance(policy, dict) else None
    versions = specific.get("versions") if isinstance(specific, dict) else None
    if policy in ({}, {"latest": {}}, {"latest": {"num_versions": 1}}):
        return None
    if not isinstance(versions, list) or len(versions) != 1 or type(versions[0]) is not int:
        raise InvalidRequest("the version policy must name one specific version, or the latest one", field="config")
    return version_of(table, str(versions[0]))


def _configuration(text: object) -> Mapping[str, Any]:
    if not isinstance(text, str):
        raise InvalidRequest(f"config must be the text of a JSON object, not {json_type(text)}", field="config")
    found = JsonBody(text.encode()).value
    if not isinstance(found, dict):
        raise InvalidRequest("config must be the text of a JSON object", field="config")
    return found
