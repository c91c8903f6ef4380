"""What a client can be asked, written once: `Client` answers, `AsyncClient` gives something to await."""

from collections.abc import Callable, Coroutine, Iterable
from functools import update_wrapper, wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, overload

from service.client.answers import Lookup, Readiness, TableInfo, value_of
from service.client.calling import Call, Caller
from service.client.errors import ConnectionFault, error_of, json_of, read_from
from service.client.inputs import read_batch
from service.client.looking import Lookups
from service.client.lookups import Question
from service.client.options import Item, Options, read_options, version_of

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Blocking:
    """The base of clients whose verbs give their result."""

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine over a blocking exchange, which waits for no event loop: one step brings it to its end."""
        try:
            coroutine.send(None)
        except StopIteration as done:
            found: _T = done.value
            return found
        raise RuntimeError("a blocking client has waited for an event loop")


class Awaiting:
    """The base of clients whose verbs are awaited."""


class Verb(Generic[_P, _T]):
    """A method that blocks in a `Blocking` client and is awaited in an `Awaiting` one."""

    def __init__(self, function: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]]) -> None:
        @wraps(function)
        def blocking(client: Blocking, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            return client.run(function(client, *args, **kwargs))

        self._awaited = function
        self._blocking = blocking
        update_wrapper(self, function)  # type: ignore[arg-type]  # what `help` and `inspect` look at

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[_P, _T]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: type) -> Callable[_P, Coroutine[Any, Any, _T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        function = self._blocking if issubclass(owner, Blocking) else self._awaited
        return function if instance is None else MethodType(function, instance)


class Verbs:
    """Lookups, and what is served."""

    _caller: Caller
    _lookups: Lookups

    @Verb
    async def lookup(
        self,
        table: str,
        ids: Any = None,  # noqa: ANN401  (arrays of any library, nested sequences)
        *,
        tokens: Any = None,  # noqa: ANN401
        version: int | None = None,
        label: str | None = None,
        mask: Any = None,  # noqa: ANN401
        weights: Any = None,  # noqa: ANN401
        **options: Unpack[Options],
    ) -> Lookup:
        """The vectors and the mask of `ids`, or of `tokens`, in the version in force, in `version` or that of `label`.

        Ids are an integer array of any shape, nested sequences of integers, or a ragged batch: a list of lists or of
        arrays. `mask` and `weights` have one value for each. The options are those of `Options`: `length`, `padding`,
        `truncation`, `on_oov`, `masked`, `pooling`, `normalize`, `flatten`, `dtype`.

        A batch beyond the limits of the service is asked for in parts along its first axis, all of one version.

        Raises OutOfVocabulary, TableNotFound, VersionNotFound, LabelNotFound, NoVocabulary, NoUnknownRow,
        NotRepresentable, InvalidRequest, WrongType, RequestTooLarge, NotReady, Overloaded, ConnectionFault.
        """
        batch = read_batch(ids, tokens, mask, weights)
        return await self._lookups.one(Question(table, batch, read_options(options), version_of(version), label))

    @Verb
    async def lookup_many(self, lookups: Iterable[Item]) -> list[Lookup]:
        """Several lookups from one snapshot of all tables, all or none; each a dict with the arguments of `lookup`.

        They go in one request as JSON, and are never divided. `members["lookup"]` of an error is the index of the
        lookup that failed.
        """
        return await self._lookups.many(list(lookups))

    @Verb
    async def tables(self) -> list[TableInfo]:
        """Every table of the store, by name."""
        return await self._caller.values(TableInfo, Call("GET", "/v1/tables"), "tables")

    @Verb
    async def table(self, table: str, version: int | None = None) -> TableInfo:
        """A table as it is served, or one of its versions; raises TableNotFound, VersionNotFound."""
        return await self._lookups.table(table, version_of(version))

    @Verb
    async def ready(self) -> Readiness:
        """Whether every table with an active version is served, at this moment; raises ConnectionFault."""
        response = await self._caller.ask(Call("GET", "/health/ready", "probe"))
        content = json_of(response)
        if "missing" not in content:
            raise error_of(response)
        with read_from(response):
            return value_of(Readiness, {**content, "ready": response.is_success})

    @Verb
    async def live(self) -> bool:
        """Whether the service answers, at this moment."""
        try:
            return (await self._caller.ask(Call("GET", "/health/live", "probe"))).is_success
        except ConnectionFault:
            return False
