"""What answers each method of the protocol over gRPC."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp

from service.api.served import Served
from service.dialects.v2 import models, repository
from service.dialects.v2.answer import Work
from service.dialects.v2.contents import answered, inference_of
from service.dialects.v2.messages import Message, message, methods
from service.dialects.v2.rpc_calls import Call, Method, Outcome, Procedure, Refusal, code_of, method
from service.dialects.v2.rpc_observed import observed
from service.dialects.v2.rpc_repeated import Remembered
from service.errors import InvalidRequest, Overloaded, ServiceError

_OK: Final = grpc.StatusCode.OK.name
_INFER: Final = "ModelInfer"
_InferRequest: Final = message("ModelInferRequest")


def _serialized(message: Message) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


class _TooLate(ServiceError):
    """The client's deadline has passed before anything was done."""

    code = "timeout"


def _parsed(kind: type[Message], sent: bytes) -> Message:
    try:
        return kind.FromString(sent)
    except DecodeError as error:
        raise InvalidRequest(f"the message cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What answers each method: a coroutine of the same name in lower case, which gives JSON."""

    served: Served
    admin: ASGIApp
    remembered: Remembered = field(default_factory=Remembered)

    def methods(self) -> dict[str, Method]:
        """Every method by its name, which takes and gives messages as they are sent."""
        found = {name: self._procedure(name, asked, answer) for name, (asked, answer) in methods().items()}
        found[_INFER] = self._procedure(_INFER, None, None)
        settings = self.served.settings
        return {
            name: method(observed(name, work, settings, is_nameless=name == _INFER)) for name, work in found.items()
        }

    def _procedure(self, name: str, asked: type[Message] | None, answer: type[Message] | None) -> Procedure:
        """What is done for a method: whatever goes wrong becomes a refusal."""
        endpoint: Callable[[Any, Call], Awaitable[Any]] = getattr(self, name.lower())

        async def work(call: Call) -> Outcome:
            try:
                found = await endpoint(call.sent if asked is None else _parsed(asked, call.sent), call)
                return found if answer is None else _serialized(ParseDict(found, answer()))
            except repository.Refused as refused:
                return Refusal.of_admin(refused)
            except ServiceError as error:
                return Refusal.of(error)
            except Exception as error:  # noqa: BLE001  (a fault of ours is told as one, and not by grpcio with its text)
                return Refusal.of(self.served.told(error))

        return work

    async def serverlive(self, _request: Message, _call: Call) -> dict[str, Any]:
        return {"live": True}

    async def serverready(self, _request: Message, _call: Call) -> dict[str, Any]:
        return {"ready": models.is_ready(self.served)}

    async def modelready(self, request: Message, _call: Call) -> dict[str, Any]:
        return {"ready": await models.is_model_ready(self.served, request.name, request.version)}

    async def servermetadata(self, _request: Message, _call: Call) -> dict[str, Any]:
        return models.server()

    async def modelmetadata(self, request: Message, _call: Call) -> dict[str, Any]:
        return await models.metadata(self.served, request.name, request.version)

    async def modelconfig(self, request: Message, _call: Call) -> dict[str, Any]:
        return {"config": await models.config(self.served, request.name, request.version)}

    async def modelstatistics(self, request: Message, _call: Call) -> dict[str, Any]:
        return await models.statistics(self.served, request.name or None, request.version)

    async def repositoryindex(self, request: Message, _call: Call) -> dict[str, Any]:
        return {"models": await models.index(self.served, ready_only=request.ready)}

    async def repositorymodelload(self, request: Message, call: Call) -> dict[str, Any]:
        return await self._change("load", request, call)

    async def repositorymodelunload(self, request: Message, call: Call) -> dict[str, Any]:
        return await self._change("unload", request, call)

    async def _change(self, verb: str, request: Message, call: Call) -> dict[str, Any]:
        token = call.metadata.get("authorization")
        parameters = {name: _parameter(value) for name, value in request.parameters.items()}
        await repository.pass_on(self.admin, verb, request.model_name, parameters, token)
        return {}

    async def modelinfer(self, sent: bytes, call: Call) -> bytes:
        """Admitted and counted like the lookups of every other protocol. Takes and gives messages as they are sent."""
        served, since = self.served, perf_counter()
        try:
            await served.admission.enter()
        except Overloaded as error:
            self._refused("", error)
            raise
        try:
            found = self.remembered.answer(sent, served.registry)
            if found is None:
                return await self._infer(sent, call, since)
        finally:
            served.admission.leave()
        table, answer, count = found
        served.meter.answered(models.GRPC_COUNTED, table, count, since, _OK)
        return answer

    async def _infer(self, sent: bytes, call: Call, since: float) -> bytes:
        """An inference whose message is like none before, or that takes more than that."""
        name = ""
        try:
            request = _parsed(_InferRequest, sent)
            name = request.model_name
            work = await self._looked_up(request, call)
            answer = await answered(work)
        except Exception as error:  # a fault of ours is told as one, and not by grpcio with its text
            told = self.served.told(error)
            self._refused(name, told)
            raise told from error
        table, name = work.table.identity, work.table.identity.name
        self.served.meter.answered(models.GRPC_COUNTED, table, work.inference.request.batch.layout.total, since, _OK)
        loaded = self.served.registry.entries[name].loaded if name in self.served.registry.entries else None
        if loaded is not None and loaded.table is work.table and not request.model_version:
            self.remembered.remember(sent, request, work, loaded)
        return answer

    async def _looked_up(self, request: Message, call: Call) -> Work:
        remaining = call.context.time_remaining()
        if remaining is not None and remaining <= 0:  # its client does not wait any more
            raise _TooLate("the deadline has passed")
        served = self.served
        table = await models.table_of(served, request.model_name, request.model_version)
        return Work.of(table, inference_of(request, served.limits), served.limits)

    def _refused(self, name: str, error: ServiceError) -> None:
        self.served.meter.refused(models.GRPC_COUNTED, name, code_of(error).name, error)


def _parameter(value: Message) -> object:
    kind = value.WhichOneof("parameter_choice")
    return getattr(value, kind) if kind in ("bool_param", "int64_param", "string_param") else None
