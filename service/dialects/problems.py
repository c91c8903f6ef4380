"""What errors have in common, however a protocol writes them: statuses, headers, and a text that leaves nothing out."""

from collections.abc import Mapping
from typing import Final

import orjson

from service.api.answer import Answer
from service.api.errors import KINDS, headers_of
from service.api.media import JSON
from service.errors import OutOfVocabulary, ServiceError

_LISTED: Final = 20
"""Ids outside the table that a text names: protocols with structured errors have all that are reported."""


def status_of(error: ServiceError, other: Mapping[int, int]) -> int:
    """The status of the contract, or what a protocol has in its place."""
    status = KINDS[error.code].status
    return other.get(status, status)


def described(error: ServiceError) -> str:
    """The text of an error; one of ids outside the table names each with its place, up to a number."""
    if not isinstance(error, OutOfVocabulary) or error.total == 1:
        return printable(str(error))
    listed = [f"{_what(found)} at {found['index']}" for found in error.errors[:_LISTED]]
    more = f" and {error.total - len(listed)} more" if error.total > len(listed) else ""
    return printable(
        f"{error.total} are not in table {error.table}, which has the ids 0 to {error.num_embeddings - 1}: "
        f"{', '.join(listed)}{more}"
    )


def _what(found: Mapping[str, object]) -> str:
    return f"token {found['token']!r}" if "token" in found else f"id {found['id']}"


def printable(text: str) -> str:
    """With what UTF-8 cannot write, half a surrogate pair, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_answer(content: object, status: int = 200, error: ServiceError | None = None) -> Answer:
    """An object of a protocol, with the headers that go with an error."""
    headers = ((b"content-type", JSON.encode()), *(() if error is None else headers_of(error)))
    try:
        return Answer(status, headers, (orjson.dumps(content),))
    except TypeError:  # names that a client has sent may hold what JSON cannot
        return Answer(status, headers, (orjson.dumps(_printable(content)),))


def _printable(content: object) -> object:
    if isinstance(content, dict):
        return {printable(str(name)): _printable(value) for name, value in content.items()}
    return printable(content) if isinstance(content, str) else content
