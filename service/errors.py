"""Everything that can go wrong, as one tree. Errors carry their numbers; what status they get is the API's business.

ServiceError
├── InvalidJson                 the body is not JSON
├── InvalidRequest              the request is readable and wrong
├── OutOfVocabulary             ids or tokens that the table does not have
├── NoVocabulary                tokens for a table that knows only ids
├── NoUnknownRow                `on_oov: unk` on a table without an unknown row
├── NotRepresentable            a value that the asked-for dtype cannot hold
├── TableNotFound               no such table in the store
├── VersionNotFound             no such version of the table
├── LabelNotFound               no such label of the table
├── RouteNotFound               no such address
├── MethodNotAllowed            the address does not take this method
├── NotAcceptable               none of the media types asked for can be given
├── UnsupportedMediaType        a body in a form that is not understood
├── RequestTooLarge             a limit of the service is exceeded
├── NotReady                    the table has no active, loaded version
├── Overloaded                  a worker has as many lookups in flight as it may
├── Conflict                    the store's state forbids it
│   ├── DamagedVersion          a version on disk is not what its manifest says
│   ├── CannotPrepare           a worker cannot load what should be activated
│   └── DeviceFull              a device has not enough memory for a version
├── WorkersSilent               workers did not answer in time
├── Unauthorized                a token is needed, or another one
├── Forbidden                   not allowed, whoever asks
├── InvalidTable                rows or vocabulary that cannot be published
├── ImportFormatError           a file that cannot be read as the format it should be in
├── InsufficientStorage         the disk is full
│   └── InForce                 the disk failed after a switch had come into force
├── NoSuchProvider              an execution provider that is named cannot be used here
└── Unreachable                 a process of the service has ended before it answered
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from service.types import TableVersion


class ServiceError(Exception):
    """Base of all: `code` is stable, `members` are the numbers that go with it."""

    code: ClassVar[str] = "internal"

    def members(self) -> Mapping[str, object]:
        """What an answer carries beside the text."""
        return {}


class InvalidJson(ServiceError, ValueError):
    """The body cannot be parsed: broken syntax, bad UTF-8, nested too deep."""

    code = "invalid_json"


class InvalidRequest(ServiceError, ValueError):
    """The request is readable and wrong; `field` names the place."""

    code = "invalid_request"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field

    def members(self) -> Mapping[str, object]:
        return {} if self.field is None else {"field": self.field}


class OutOfVocabulary(ServiceError, LookupError):
    """Ids or tokens outside the table; `errors` holds the first of `total`, each with its index as sent."""

    code = "out_of_vocabulary"
    reported: ClassVar[int] = 100

    def __init__(
        self, table: TableVersion, num_embeddings: int, total: int, errors: Sequence[Mapping[str, object]]
    ) -> None:
        first = errors[0]
        what = f"token {first['token']!r}" if "token" in first else f"id {first['id']}"
        more = "" if total == 1 else f" (and {total - 1} more)"
        super().__init__(
            f"{what} at {first['index']} is not in table {table}, which has the ids 0 to {num_embeddings - 1}{more}"
        )
        self.table = table
        self.num_embeddings = num_embeddings
        self.total = total
        self.errors = errors

    def members(self) -> Mapping[str, object]:
        return {
            "table": self.table.name,
            "version": self.table.version,
            "num_embeddings": self.num_embeddings,
            "total": self.total,
            "errors": list(self.errors),
        }


class _OfTable(ServiceError):
    """An error about one version of one table."""

    def __init__(self, detail: str, table: TableVersion) -> None:
        super().__init__(detail)
        self.table = table

    def members(self) -> Mapping[str, object]:
        return {"table": self.table.name, "version": self.table.version}


class NoVocabulary(_OfTable, LookupError):
    """Tokens were sent to a table that has no vocabulary."""

    code = "no_vocabulary"


class NoUnknownRow(_OfTable, LookupError):
    """The rule `unk` needs an unknown row, and the table has none."""

    code = "no_unknown_row"


class NotRepresentable(ServiceError, ArithmeticError):
    """A result lies beyond what the dtype of the answer can hold; never answered as infinity."""

    code = "not_representable"

    def __init__(self, dtype: str, index: Sequence[int]) -> None:
        super().__init__(f"the value at {list(index)} of the result is beyond {dtype}")
        self.dtype = dtype
        self.index = index

    def members(self) -> Mapping[str, object]:
        return {"dtype": self.dtype, "index": list(self.index)}


class TableNotFound(ServiceError, LookupError):
    """The store has no table of this name."""

    code = "table_not_found"

    def __init__(self, table: str) -> None:
        super().__init__(f"there is no table {table!r}")
        self.table = table

    def members(self) -> Mapping[str, object]:
        return {"table": self.table}


class VersionNotFound(ServiceError, LookupError):
    """The table has no such version; versions are positive integers."""

    code = "version_not_found"

    def __init__(self, table: str, version: int | str) -> None:
        super().__init__(f"table {table!r} has no version {version}")
        self.table = table
        self.version = version

    def members(self) -> Mapping[str, object]:
        return {"table": self.table, "version": self.version}


class LabelNotFound(ServiceError, LookupError):
    """The table has no such label."""

    code = "label_not_found"

    def __init__(self, table: str, label: str) -> None:
        super().__init__(f"table {table!r} has no label {label!r}")
        self.table = table
        self.label = label

    def members(self) -> Mapping[str, object]:
        return {"table": self.table, "label": self.label}


class RouteNotFound(ServiceError, LookupError):
    """Nothing is served at this address."""

    code = "not_found"


class MethodNotAllowed(ServiceError):
    """The address exists and takes other methods."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not allowed here; use {' or '.join(allowed)}")
        self.allowed = allowed


class NotAcceptable(ServiceError):
    """The Accept header leaves nothing that can be given."""

    code = "not_acceptable"


class UnsupportedMediaType(ServiceError):
    """The body has a media type, charset or content coding that is not understood."""

    code = "unsupported_media_type"


class RequestTooLarge(ServiceError, ValueError):
    """One of the service's limits is exceeded; `limit` is the name of its setting."""

    code = "request_too_large"

    def __init__(self, what: str, limit: str, allowed: int, found: int | None = None) -> None:
        found_text = "more" if found is None else f"{found:,}"
        super().__init__(f"{what}: {found_text}, where {limit} allows {allowed:,}")
        self.limit = limit
        self.allowed = allowed

    def members(self) -> Mapping[str, object]:
        return {"limit": self.limit, "allowed": self.allowed}


class NotReady(ServiceError):
    """The table is known and has no active, loaded version."""

    code = "not_ready"

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"table {table!r} is not ready: {reason}")
        self.table = table
        self.reason = reason

    def members(self) -> Mapping[str, object]:
        return {"table": self.table, "reason": self.reason}


class Overloaded(ServiceError):
    """A worker has as many lookups in flight as it may have."""

    code = "overloaded"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} lookups are in flight, which is EMBEDDING_MAX_IN_FLIGHT; ask again later")
        self.limit = limit

    def members(self) -> Mapping[str, object]:
        return {"limit": self.limit}


class Conflict(ServiceError):
    """The state of the store forbids what was asked."""

    code = "conflict"


class DamagedVersion(Conflict, ValueError):
    """A version on disk is not what its manifest says; `reason` names the file and the difference."""

    def __init__(self, table: TableVersion, reason: str) -> None:
        super().__init__(f"{table} is damaged: {reason}")
        self.table = table
        self.reason = reason

    def members(self) -> Mapping[str, object]:
        return {"table": self.table.name, "version": self.table.version, "reason": self.reason}


class CannotPrepare(Conflict):
    """A worker cannot load a version that should be activated; nothing has changed in any of them."""

    def __init__(self, worker: int, reason: str) -> None:
        super().__init__(f"worker {worker} cannot load it: {reason}; nothing has changed")
        self.worker = worker
        self.reason = reason

    def members(self) -> Mapping[str, object]:
        return {"worker": self.worker, "reason": self.reason}


class DeviceFull(Conflict, MemoryError):
    """The memory of a device, such as a GPU, has no room for a version beside what is there; sizes are in bytes."""

    def __init__(self, device: str, needed: int, available: int, who: str) -> None:
        super().__init__(f"{device} has no room for it: {needed:,} bytes are needed, {who} {available:,}")
        self.device = device
        self.needed = needed
        self.available = available

    def members(self) -> Mapping[str, object]:
        return {"device": self.device, "needed": self.needed, "available": self.available}


class NoSuchProvider(ServiceError, LookupError):
    """An execution provider of ONNX Runtime that cannot be used here; `available` are those that can."""

    code = "invalid_request"

    def __init__(self, provider: str, reason: str, available: Sequence[str]) -> None:
        there = f"; there are: {', '.join(available)}" if available else ""
        super().__init__(f"{provider}: {reason}{there}")
        self.provider = provider
        self.available = available


class WorkersSilent(ServiceError, TimeoutError):
    """Workers did not answer in time; nothing has changed in any of them."""

    code = "timeout"

    def __init__(self, workers: Sequence[int], seconds: float) -> None:
        named = ", ".join(map(str, workers))
        super().__init__(f"no answer within {seconds:g} s from worker {named}; nothing has changed")
        self.workers = workers

    def members(self) -> Mapping[str, object]:
        return {"workers": list(self.workers)}


class Unauthorized(ServiceError, PermissionError):
    """A token is needed, or another one."""

    code = "unauthorized"


class Forbidden(ServiceError, PermissionError):
    """Not allowed, whoever asks."""

    code = "forbidden"


class InvalidTable(ServiceError, ValueError):
    """Rows, a vocabulary or a name that cannot be published."""

    code = "invalid_request"


class ImportFormatError(ServiceError, ValueError):
    """A file is not what its format promises; `place` is a line, row or byte of it."""

    code = "invalid_request"

    def __init__(self, file: str, reason: str, place: str | None = None) -> None:
        where = file if place is None else f"{file}, {place}"
        super().__init__(f"{where}: {reason}")
        self.file = file
        self.place = place
        self.reason = reason

    def members(self) -> Mapping[str, object]:
        return {"file": self.file, "place": self.place, "reason": self.reason}


class InsufficientStorage(ServiceError, OSError):
    """The disk of the store is full; the text says what that leaves."""

    code = "insufficient_storage"


class InForce(InsufficientStorage):
    """The disk failed after a switch had come into force: it is served, and may be lost with the power."""


class Unreachable(ServiceError):
    """A process of the service has ended before it answered; what it did is not known here."""
