"""Who may use the admin API: bearer tokens (RFC 6750), or the owner of the socket for commands of this host."""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from service.api.answer import Scope
from service.api.media import header
from service.controlsocket import ACTOR
from service.errors import Forbidden, Unauthorized
from service.settings import PREFIX, Settings

Authorize: TypeAlias = Callable[[Scope], str]
"""The name of who asks, for the history and the audit log; raises Unauthorized, Forbidden."""

_BEARER: Final = re.compile(rb"bearer +([^ ]+) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are accepted, by the names of their owners."""

    by_name: Mapping[str, bytes]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Of `admin_token`, whose owner is called `admin`, and `admin_tokens`."""
        secrets = dict(settings.admin_tokens)
        if settings.admin_token is not None:
            secrets["admin"] = settings.admin_token
        tokens = {name: secret.get_secret_value().strip().encode() for name, secret in secrets.items()}
        return cls({name: token for name, token in tokens.items() if token})  # an empty one is none

    def __call__(self, scope: Scope) -> str:
        if not self.by_name:
            raise Forbidden(f"the admin API is off: no token is configured; set {PREFIX}ADMIN_TOKEN and start again")
        credentials = header(scope, b"authorization")
        if credentials is None:
            raise Unauthorized("a token is needed: Authorization: Bearer TOKEN")
        match = _BEARER.fullmatch(credentials)
        if match is None:
            raise Unauthorized("Authorization must be: Bearer TOKEN")
        return self._owner(match.group(1))

    def _owner(self, given: bytes) -> str:
        # Every token is compared, in constant time: neither time nor order tells how near a guess came.
        found = [name for name, token in self.by_name.items() if hmac.compare_digest(token, given)]
        if not found:
            raise Unauthorized("the token is not one of those that are configured")
        return found[0]


def local_user(scope: Scope) -> str:
    """Who connects through the socket in the store's folder could change the store without us."""
    actor = header(scope, ACTOR)
    return "a command" if actor is None else actor.decode("utf-8", "replace")[:200]
