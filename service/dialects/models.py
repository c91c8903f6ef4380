"""`GET /v1/models` and `/v1/models/{table}`: one address for OpenAI's clients and for TensorFlow Serving's.

One object has the keys of those of both that are switched on.
"""

from typing import Any

from service.api.answer import Answer
from service.api.dialect import Call, Route
from service.api.served import Served
from service.dialects.problems import json_answer
from service.registry import Entry, TableState


def model_routes(served: Served) -> list[Route]:
    """The routes, which either protocol brings."""

    async def models(_: Call) -> Answer:
        ready = [entry for _, entry in sorted(served.registry.entries.items()) if entry.loaded is not None]
        return json_answer({"object": "list", "data": [_openai(entry) for entry in ready]})

    async def model(call: Call) -> Answer:
        entry = served.registry.entry(call.table)
        said: dict[str, Any] = {}
        if "openai" in served.settings.spoken():
            said |= _openai(entry)
        if "tensorflow" in served.settings.spoken():
            said |= version_status(entry)
        return json_answer(said)

    one = Route("GET", "/v1/models/{table}", model, "A table as a model", "model")
    if "openai" not in served.settings.spoken():
        return [one]
    return [Route("GET", "/v1/models", models, "Tables as models", "models"), one]


def _openai(entry: Entry) -> dict[str, Any]:
    loaded = entry.loaded
    created = 0 if loaded is None else int(loaded.manifest.created.timestamp())
    return {"id": entry.name, "object": "model", "created": created, "owned_by": "embedding-table-service"}


_STATES = {TableState.READY: "AVAILABLE", TableState.LOADING: "LOADING"}
"""Those of TensorFlow Serving (`get_model_status.proto`); whatever is not served is at its END."""


def version_status(entry: Entry, version: int | None = None) -> dict[str, Any]:
    """GetModelStatusResponse of the version that is served, or should be; of one that is named and on disk."""
    loaded = None if entry.loaded is None else entry.loaded.table.identity.version
    number = version or loaded or entry.active_version
    if number is None:
        return {"model_version_status": []}
    is_active = number in (loaded, entry.active_version)
    state = _STATES.get(entry.state, "END") if is_active else "AVAILABLE"  # others are opened when they are asked for
    failed = is_active and entry.reason is not None
    status = {"error_code": "UNAVAILABLE" if failed else "OK", "error_message": (entry.reason or "") if failed else ""}
    return {"model_version_status": [{"version": str(number), "state": state, "status": status}]}
