"""The Open Inference Protocol over HTTP: its paths, and what it says of the server, its models and their repository."""

from typing import Any, Final

from service.api.answer import Answer
from service.api.dialect import Call, Dialect, Route
from service.api.json_body import JsonBody
from service.api.served import Served
from service.dialects.problems import json_answer
from service.dialects.v2 import models, repository
from service.dialects.v2.body import flag
from service.dialects.v2.infer import Inferences
from service.dialects.v2.problems import problem
from service.errors import InvalidRequest

_PREFIXES: Final = (
    *("/v2/models", "/v2/repository", "/v2/health"),
    *("/v2/logging", "/v2/trace", "/v2/systemsharedmemory", "/v2/cudasharedmemory"),  # extensions that are not there
)


def dialect(served: Served) -> Dialect:
    """The protocol over what is served."""
    inferences = Inferences(served)
    return Dialect(
        "v2",
        "Open Inference Protocol",
        [*_health(served), *_described(served), *inferences.routes(), *_index(served), *repository.routes()],
        problem,
        prefixes=_PREFIXES,
        short=inferences.asked,
    )


# What is said of the server and its models


def _health(served: Served) -> list[Route]:
    async def live(_: Call) -> Answer:
        return json_answer({"live": True})

    async def ready(_: Call) -> Answer:
        found = models.is_ready(served)
        return json_answer({"ready": found}, 200 if found else _NOT_READY)

    async def model_ready(call: Call) -> Answer:
        found = await models.is_model_ready(served, call.table, call.names.get("version"))
        return json_answer({"name": call.table, "ready": found}, 200 if found else _NOT_READY)

    return [
        Route("GET", "/v2/health/live", live, "Is the process alive?", "live"),
        Route("GET", "/v2/health/ready", ready, "Is every table with an active version served?", "ready"),
        Route("GET", "/v2/models/{table}/ready", model_ready, "Is a table served?", "model_ready"),
        Route(
            "GET",
            "/v2/models/{table}/versions/{version}/ready",
            model_ready,
            "Can a version be looked up in?",
            "version_ready",
        ),
    ]


_NOT_READY: Final = 400
"""The specification: 200 means true, a 4xx status false."""


def _described(served: Served) -> list[Route]:
    async def server(_: Call) -> Answer:
        return json_answer(models.server())

    async def metadata(call: Call) -> Answer:
        return json_answer(await models.metadata(served, call.table, call.names.get("version")))

    async def config(call: Call) -> Answer:
        return json_answer(await models.config(served, call.table, call.names.get("version")))

    async def statistics(call: Call) -> Answer:
        return json_answer(await models.statistics(served, call.table or None, call.names.get("version")))

    base, version = "/v2/models/{table}", "/v2/models/{table}/versions/{version}"
    return [
        Route("GET", "/v2", server, "What the server is", "server"),
        Route("GET", "/v2/models/stats", statistics, "Inferences counted, of all tables", "all_statistics"),
        Route("GET", base, metadata, "Inputs and outputs of a table", "metadata"),
        Route("GET", version, metadata, "Inputs and outputs of a version", "version_metadata"),
        Route("GET", f"{base}/config", config, "Configuration of a table", "config"),
        Route("GET", f"{version}/config", config, "Configuration of a version", "version_config"),
        Route("GET", f"{base}/stats", statistics, "Inferences counted", "statistics"),
        Route("GET", f"{version}/stats", statistics, "Inferences counted", "version_statistics"),
    ]


def _index(served: Served) -> list[Route]:
    async def index(call: Call) -> Answer:
        body = await call.body(_LONGEST_FORM)
        asked: Any = JsonBody(body).value if body.strip() else {}
        if not isinstance(asked, dict):
            raise InvalidRequest("the request must be an object")
        return json_answer(await models.index(served, ready_only=flag(asked, "ready") or False))

    return [Route("POST", "/v2/repository/index", index, "Every version of every table, and its state", "index")]


_LONGEST_FORM: Final = 1 << 20  # bytes
