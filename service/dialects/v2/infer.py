"""Inferences over HTTP: on the way of ASGI, and on the short one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.api.answer import Answer
from service.api.batching import VersionWays
from service.api.body import check_body
from service.api.dialect import Call, Route
from service.api.prepared import Prepared
from service.api.served import Served
from service.api.short import Large
from service.dialects.v2 import models
from service.dialects.v2.answer import HEADER_LENGTH, Work, accepted_coding, compressed
from service.dialects.v2.body import coding_of, inflated, read_infer
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


class Inferences:
    """Inference requests."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.ways = VersionWays(served.registry, served.meter.counters, models.HTTP_COUNTED, between=b",")

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
        call.looked_up = work.table.identity, work.inference.request.batch.layout.total
        wanted = accepted_coding(fields.get(b"accept-encoding"))
        return answer if wanted is None else await compressed(answer, wanted)

    def count(self, work: Work, since: float) -> None:
        """Counts an inference that is answered on the short way."""
        ids = work.inference.request.batch.layout.total
        self.served.meter.answered(models.HTTP_COUNTED, work.table.identity, ids, since)

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

    def answer_now(self, body: bytes, since: float) -> tuple[Answer | Large, Prepared | None]:
        try:
            return self._answer_now(body, since)
        except Exception as error:  # noqa: BLE001  (the last line: a fault of ours must not be a lost connection)
            return self._problem(error), None

    def _answer_now(self, body: bytes, since: float) -> tuple[Answer | Large, Prepared | None]:
        served = self.inferences.served
        check_body(body, served.limits.max_body_bytes)
        entry = served.registry.entry(self.table)
        work = Work.of(entry.table(), read_infer(body, self.header_length, served.limits), served.limits)
        found: Answer | Large
        if work.large:
            found = LargeInference(self, work, since)
        else:
            found = work.at_once()
            self.inferences.count(work, since)
        if entry.loaded is None:
            return found, None
        ways = self.inferences.ways.of(entry.loaded)
        if self.header_length is None:
            return found, prepare_json(work, body, ways)
        sent = body[: self.header_length]
        return found, prepare(work, sent, len(body) - len(sent), ways)

    async def in_turns(self, work: Work, since: float) -> Answer:
        """The answer to a large one."""
        try:
            answer = await work.in_turns()
            self.inferences.count(work, since)
        except Exception as error:  # noqa: BLE001  (as above)
            answer = self._problem(error)
        return answer

    def refuse(self) -> Answer:
        return self._problem(Overloaded(self.inferences.served.admission.limit))

    def _problem(self, error: Exception) -> Answer:
        served = self.inferences.served
        answer = served.problem(problem, error)
        served.meter.refused(models.HTTP_COUNTED, self.table, str(answer.status), error)
        return answer


@dataclass(frozen=True, slots=True)
class LargeInference:
    """An inference whose answer is made in turns."""

    asked: AskedInference
    work: Work
    since: float

    async def in_turns(self) -> Answer:
        return await self.asked.in_turns(self.work, self.since)


def _header_length(fields: Mapping[bytes, bytes]) -> int | None:
    value = fields.get(HEADER_LENGTH)
    if value is None:
        return None
    if not _LENGTH.fullmatch(value.strip()):
        raise InvalidRequest("Inference-Header-Content-Length is not a number of bytes", field=HEADER_LENGTH.decode())
    return int(value)
