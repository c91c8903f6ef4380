"""The admin API at addresses of other protocols: what it refuses is told in their words."""

import orjson
from starlette.types import ASGIApp

from service.api.answer import PROBLEM, Message, Receive, Scope, Send, send_answer
from service.api.dialects import Dialects
from service.api.errors import Told


class Retelling:
    """The admin API for addresses of other protocols too: problems are told in theirs."""

    def __init__(self, admin: ASGIApp, dialects: Dialects) -> None:
        self._admin = admin
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._dialects.find(scope["path"], scope["method"]) if scope["type"] == "http" else None
        if found is None:
            await self._admin(scope, receive, send)
            return
        start: Message = {}
        problem = bytearray()

        async def retold(message: Message) -> None:
            if message["type"] == "http.response.start" and (b"content-type", PROBLEM) in message["headers"]:
                start.update(message)
            elif not start:
                await send(message)
            else:
                problem.extend(message.get("body", b""))

        await self._admin(scope, receive, retold)
        if start:
            await send_answer(send, found.dialect.problem(Told(orjson.loads(problem))))
