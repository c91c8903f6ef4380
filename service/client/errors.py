"""Everything that a client raises, as one tree. Which class it is follows the problem's `code`, never its text.

EmbeddingServiceError
├── Problem                         the service has refused
│   ├── InvalidJson                 the body is not JSON                                       ValueError
│   ├── InvalidRequest              the request is readable and wrong; `field` names the place ValueError
│   │   └── WrongType               the same, seen before anything was sent                    TypeError
│   ├── OutOfVocabulary             ids or tokens that the table does not have                 LookupError
│   ├── NoVocabulary                tokens for a table that knows only ids                     LookupError
│   ├── NoUnknownRow                `on_oov="unk"` on a table without an unknown row           LookupError
│   ├── NotRepresentable            a value that the asked-for dtype cannot hold               ArithmeticError
│   ├── TableNotFound               no such table                                              LookupError
│   ├── VersionNotFound             no such version of the table                               LookupError
│   ├── LabelNotFound               no such label of the table                                 LookupError
│   ├── RouteNotFound               no such address                                            LookupError
│   ├── MethodNotAllowed            the address does not take this method
│   ├── NotAcceptable               none of the media types asked for can be given
│   ├── UnsupportedMediaType        a body in a form that is not understood
│   ├── RequestTooLarge             a limit of the service is exceeded                         ValueError
│   ├── Conflict                    the store's state forbids it
│   ├── Unauthorized                a token is needed, or another one                          PermissionError
│   ├── Forbidden                   not allowed, whoever asks                                  PermissionError
│   ├── Overloaded                  too many lookups in flight, for longer than was waited
│   ├── NotReady                    the table has no active, loaded version
│   ├── WorkersSilent               workers did not answer in time; nothing has changed        TimeoutError
│   ├── InsufficientStorage         the server's disk is full                                  OSError
│   ├── InternalError               a fault of the service; its log has the `request_id`
│   └── UnknownProblem              a code that this client does not know
├── UnexpectedAnswer                no answer of the service: a proxy's page, say
└── ConnectionFault                 no answer: no connection, or one that broke                ConnectionError
    └── ConnectionTimeout           no answer in time                                          TimeoutError
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import httpx


class EmbeddingServiceError(Exception):
    """Base of all. `status` is that of HTTP, None where there was no answer; `detail` is a sentence for people."""

    code: ClassVar[str | None] = None

    def __init__(self, detail: str, status: int | None = None, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.members: Mapping[str, Any] = {} if members is None else members
        """What the problem carries beside its text."""
        self.request_id: str | None = self.members.get("request_id")
        self.retry_after: float | None = None
        """Seconds after which the server wants to be asked again, if it says so."""

    def __str__(self) -> str:
        return self.detail


class Problem(EmbeddingServiceError):
    """The service has refused (RFC 9457); `code` is stable."""

    code: ClassVar[str]


class InvalidJson(Problem, ValueError):
    """The body is not JSON that the service reads."""

    code = "invalid_json"


class InvalidRequest(Problem, ValueError):
    """The request is readable and wrong."""

    code = "invalid_request"

    @property
    def field(self) -> str | None:
        """The place: `ids[3][0]`, `weights`, `length`."""
        return self.members.get("field")


class WrongType(InvalidRequest, TypeError):
    """Ids, tokens, a mask or weights of a wrong type. Nothing was sent."""


class OutOfVocabulary(Problem, LookupError):
    """Ids or tokens outside the table."""

    code = "out_of_vocabulary"

    @property
    def table(self) -> str:
        return str(self.members["table"])

    @property
    def version(self) -> int:
        return int(self.members["version"])

    @property
    def num_embeddings(self) -> int:
        return int(self.members["num_embeddings"])

    @property
    def total(self) -> int:
        """How many positions hold one."""
        return int(self.members["total"])

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """The first hundred: `{"index": [1, 0], "id": 100000}` or with `token`. The index is that of the caller."""
        errors: Sequence[Mapping[str, Any]] = self.members["errors"]
        return errors


class NoVocabulary(Problem, LookupError):
    """The table knows only ids."""

    code = "no_vocabulary"


class NoUnknownRow(Problem, LookupError):
    """The rule `unk` needs an unknown row, and the table has none."""

    code = "no_unknown_row"


class NotRepresentable(Problem, ArithmeticError):
    """A result lies beyond what the dtype can hold; `members["index"]` is its place."""

    code = "not_representable"


class TableNotFound(Problem, LookupError):
    """There is no such table."""

    code = "table_not_found"


class VersionNotFound(Problem, LookupError):
    """The table has no such version."""

    code = "version_not_found"


class LabelNotFound(Problem, LookupError):
    """The table has no such label."""

    code = "label_not_found"


class RouteNotFound(Problem, LookupError):
    """The service has nothing at this address."""

    code = "not_found"


class MethodNotAllowed(Problem):
    """The address does not take this method."""

    code = "method_not_allowed"


class NotAcceptable(Problem):
    """None of the media types asked for can be given."""

    code = "not_acceptable"


class UnsupportedMediaType(Problem):
    """A body in a form that the service does not understand."""

    code = "unsupported_media_type"


class RequestTooLarge(Problem, ValueError):
    """A limit of the service is exceeded, and the request cannot be divided further."""

    code = "request_too_large"

    @property
    def limit(self) -> str | None:
        """The name of the setting."""
        return self.members.get("limit")

    @property
    def allowed(self) -> int | None:
        return self.members.get("allowed")


class Conflict(Problem):
    """The state of the store forbids it; `members` may have the `reason`."""

    code = "conflict"


class Unauthorized(Problem, PermissionError):
    """A token is needed, or another one."""

    code = "unauthorized"


class Forbidden(Problem, PermissionError):
    """Not allowed, whoever asks: the admin API is off."""

    code = "forbidden"


class Overloaded(Problem):
    """Too many lookups are in flight, and that did not end in the time that was waited."""

    code = "overloaded"


class NotReady(Problem):
    """The table has no active, loaded version; `members["reason"]` says why."""

    code = "not_ready"


class WorkersSilent(Problem, TimeoutError):
    """Workers of the service did not answer in time; nothing has changed."""

    code = "timeout"


class InsufficientStorage(Problem, OSError):
    """The disk of the server is full."""

    code = "insufficient_storage"


class InternalError(Problem):
    """A fault of the service; its log has the cause under `request_id`."""

    code = "internal"


class UnknownProblem(Problem):
    """The service is newer than this client: a code that is not known here."""

    def __init__(self, detail: str, status: int | None = None, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail, status, members)
        self.code = str(self.members.get("code"))  # type: ignore[misc]  # elsewhere that of a class


class UnexpectedAnswer(EmbeddingServiceError):
    """What answered is not the service: a proxy's page, a redirection, another program."""


class ConnectionFault(EmbeddingServiceError, ConnectionError):
    """There was no answer: no connection, or one that broke. Its cause is httpx' error."""


class ConnectionTimeout(ConnectionFault, TimeoutError):
    """There was no answer in time. Its cause is httpx' error."""


BY_CODE: Final[Mapping[str, type[Problem]]] = {
    kind.code: kind for kind in Problem.__subclasses__() if kind is not UnknownProblem
}
_OF_ALL: Final = frozenset({"type", "title", "status", "detail"})


def error_of(response: httpx.Response) -> EmbeddingServiceError:
    """What an answer that is no success stands for."""
    content = _problem(response)
    if content is None:
        return _unexpected(response)
    return _told(problem_of(content, response.status_code), response)


def problem_of(content: Mapping[str, Any], status: int | None) -> Problem:
    """A problem by its `code`."""
    kind = BY_CODE.get(content["code"], UnknownProblem)
    members = {name: value for name, value in content.items() if name not in _OF_ALL}
    if kind is not UnknownProblem:
        del members["code"]
    return kind(str(content.get("detail", content["code"])), status, members)


def unreadable(response: httpx.Response, why: str) -> UnexpectedAnswer:
    """The error for an answer that says success and is not what was asked for."""
    return UnexpectedAnswer(f"the answer is not one of the service: {why}", response.status_code)


@contextmanager
def read_from(response: httpx.Response) -> Iterator[None]:
    """What goes wrong where the content of an answer is read is that answer's fault: raises UnexpectedAnswer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise unreadable(response, f"{type(error).__name__} {error}") from error


def json_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; raises UnexpectedAnswer."""
    try:
        content = loads(response.content)
    except ValueError as error:
        raise unreadable(response, str(error)) from error
    if not isinstance(content, dict):
        raise unreadable(response, "no JSON object")
    return content


def fault_of(error: httpx.HTTPError, address: str, tries: int) -> ConnectionFault:
    """The error for no answer; the cause is `error`."""
    kind = ConnectionTimeout if isinstance(error, httpx.TimeoutException) else ConnectionFault
    said = str(error) or type(error).__name__
    fault = kind(f"no answer from {address}{'' if tries == 1 else f' in {tries} tries'}: {said}")
    fault.__cause__ = error
    return fault


def _problem(response: httpx.Response) -> Mapping[str, Any] | None:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        content = loads(response.content)
    except ValueError:
        return None
    return content if isinstance(content, dict) and isinstance(content.get("code"), str) else None


def _unexpected(response: httpx.Response) -> EmbeddingServiceError:
    said = " ".join(response.text.split())[:200]
    what = f"status {response.status_code}, which is no answer of the service"
    return _told(UnexpectedAnswer(f"{what}: {said}" if said else what, response.status_code), response)


def _told(error: EmbeddingServiceError, response: httpx.Response) -> EmbeddingServiceError:
    error.request_id = error.request_id or response.headers.get("x-request-id")
    return error


# Integers of any size in JSON


def loads(content: bytes) -> Any:  # noqa: ANN401  (JSON)
    """JSON with every integer exact, also those that Python does not convert unasked."""
    try:
        return json.loads(content)
    except json.JSONDecodeError:
        raise
    except ValueError:  # digits beyond `sys.get_int_max_str_digits`
        return json.loads(content, parse_int=integer_of)


def integer_of(digits: str) -> int:
    """The integer that any number of digits write."""
    most = sys.get_int_max_str_digits() or len(digits)
    if len(digits) <= most:
        return int(digits)
    half = len(digits) // 2
    sign = -1 if digits.startswith("-") else 1
    power: int = 10**half
    return integer_of(digits[:-half]) * power + sign * integer_of(digits[-half:])


def digits_of(number: int) -> str:
    """The digits of any integer."""
    try:
        return str(number)
    except ValueError:
        half = int(abs(number).bit_length() * 0.150515)  # half of log10(2), per bit
        upper, lower = divmod(abs(number), 10**half)
        return f"{'-' if number < 0 else ''}{digits_of(upper)}{digits_of(lower).zfill(half)}"
