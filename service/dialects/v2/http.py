"""The Open Inference Protocol over HTTP: its paths, and inferences on the way of ASGI and on the short one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.api.answer import Answer
from service.api.batching import VersionWays
from service.api.body import check_body
from service.api.dialect import Call, Dialect, Route, Served
from service.api.json_body import JsonBody
from service.api.prepared import Prepared
from service.api.short import Large
from service.dialects.problems import json_answer
from service.dialects.v2 import models, repository
from service.dialects.v2.answer import HEADER_LENGTH, Work, accepted_coding, compressed
from service.dialects.v2.body import coding_of, flag, inflated, read_infer
from service.dialects.v2.problems import problem
from service.dialects.v2.repeated import prepare, prepare_json
from service.errors import InvalidRequest, Overloaded

_TARGET: Final = re.compile(rb"/v2/models/([A-Za-z0-9._-]{1,128})/infer")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_NOT_SHORT: Final = frozenset({b"content-encoding", b"transfer-encoding"})
_INFERENCE: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": {"type": "object"}},
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["inputs"],
    "examples": [{"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [[5, 1, 0]]}]}],
}


def dialect(served: Served) -> Dialect:
    """The protocol over what is served."""
    inferences = Inferences(served)
    return Dialect(
        "v2",
        "Open Inference Protocol",
        [*_health(served), *_described(served), *inferences.routes(), *_index(served), *repository.routes()],
        problem,
        prefixes=("/v2/models/", "/v2/repository/", "/v2/health/"),
        short=inferences.asked,
    )


class Inferences:
    """Inference requests."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.ways = VersionWays(served.registry, served.counters, models.HTTP_COUNTED, between=b",")

    def routes(self) -> list[Route]:
        """For the active version and for each."""
        base, counted = "/v2/models/{table}", models.HTTP_COUNTED
        return [
            Route("POST", f"{base}/infer", self._infer, "Vectors of ids or tokens", "infer", counted, _INFERENCE),
            Route(
                "POST",
                f"{base}/versions/{{version}}/infer",
                self._infer,
                "Vectors of ids or tokens, from one version",
                "infer_version",
                counted,
                _INFERENCE,
            ),
        ]

    async def _infer(self, call: Call) -> Answer:
        served, table = self.served, call.table
        served.registry.entry(table)  # whoever names no table of ours need not send a body
        fields = {bytes(name): bytes(value) for name, value in call.scope["headers"]}
        coding, length = coding_of(fields.get(b"content-encoding")), _header_length(fields)
        body = await call.body(served.limits.max_body_bytes)
        if coding is not None:
            body = await inflated(body, coding, served.limits)
        # Only now, so that a slow body does not hold on to a version that is being replaced.
        found = await models.table_of(served, table, call.names.get("version"))
        work = Work.of(found, read_infer(body, length, served.limits), served.limits)
        answer = await work.in_turns() if work.large else work.at_once()
        self.count(work)
        wanted = accepted_coding(fields.get(b"accept-encoding"))
        return answer if wanted is None else await compressed(answer, wanted)

    def count(self, work: Work) -> None:
        """Counts the ids of an inference that is answered."""
        labels = (work.table.identity.name,)
        self.served.counters.add("embedding_ids", labels, work.inference.request.batch.layout.total)

    def asked(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> "AskedInference | None":
        """The head of an inference in an active version, where nothing is compressed."""
        match = _TARGET.fullmatch(target)
        if match is None or any(name in _NOT_SHORT for name, _ in headers):
            return None
        fields = dict(headers)
        if accepted_coding(fields.get(b"accept-encoding")) is not None:
            return None
        try:
            return AskedInference(self, match.group(1).decode(), _header_length(fields))
        except InvalidRequest:
            return None


@dataclass(frozen=True, slots=True)
class AskedInference:
    """What the head of an inference says."""

    inferences: Inferences
    table: str
    header_length: int | None

    def answer_now(self, body: bytes) -> tuple[Answer | Large, Prepared | None]:
        try:
            return self._answer_now(body)
        except Exception as error:  # noqa: BLE001  (the last line: a fault of ours must not be a lost connection)
            return self._counted(self._problem(error)), None

    def _answer_now(self, body: bytes) -> tuple[Answer | Large, Prepared | None]:
        served = self.inferences.served
        check_body(body, served.limits.max_body_bytes)
        entry = served.registry.entry(self.table)
        work = Work.of(entry.table(), read_infer(body, self.header_length, served.limits), served.limits)
        found: Answer | Large
        if work.large:
            found = LargeInference(self, work)
        else:
            found = self._counted(work.at_once())
            self.inferences.count(work)
        if entry.loaded is None:
            return found, None
        ways = self.inferences.ways.of(entry.loaded)
        if self.header_length is None:
            return found, prepare_json(work, body, ways)
        sent = body[: self.header_length]
        return found, prepare(work, sent, len(body) - len(sent), ways)

    async def in_turns(self, work: Work) -> Answer:
        """The answer to a large one."""
        try:
            answer = await work.in_turns()
            self.inferences.count(work)
        except Exception as error:  # noqa: BLE001  (as above)
            answer = self._problem(error)
        return self._counted(answer)

    def refuse(self) -> Answer:
        return self._counted(problem(Overloaded(self.inferences.served.admission.limit)))

    def _problem(self, error: Exception) -> Answer:
        return self.inferences.served.problem(problem, error)

    def _counted(self, answer: Answer) -> Answer:
        return self.inferences.served.counted(models.HTTP_COUNTED, self.table, answer)


@dataclass(frozen=True, slots=True)
class LargeInference:
    """An inference whose answer is made in turns."""

    asked: AskedInference
    work: Work

    async def in_turns(self) -> Answer:
        return await self.asked.in_turns(self.work)


def _header_length(fields: Mapping[bytes, bytes]) -> int | None:
    value = fields.get(HEADER_LENGTH)
    if value is None:
        return None
    if not _LENGTH.fullmatch(value.strip()):
        raise InvalidRequest("Inference-Header-Content-Length is not a number of bytes", field=HEADER_LENGTH.decode())
    return int(value)


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
