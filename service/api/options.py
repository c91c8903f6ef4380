"""The scalar fields of a lookup: one dict for JSON bodies and query parameters alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias, get_args

from service.errors import InvalidRequest
from service.types import (
    DEFAULT_OPTIONS,
    LookupOptions,
    Masked,
    OovRule,
    Pooling,
    Side,
    Truncation,
    VectorDtype,
)

Encoding: TypeAlias = Literal["float", "base64"]


@dataclass(frozen=True, slots=True)
class Scalars:
    """All scalar fields of one lookup: how vectors are made, and how JSON carries them."""

    options: LookupOptions = DEFAULT_OPTIONS
    encoding: Encoding = "float"


DEFAULT_SCALARS: Final = Scalars()

_Reader: TypeAlias = Callable[[object], object]


def _one_of(choices: tuple[str, ...]) -> _Reader:
    def read(value: object) -> object:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def _length(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("must be a positive integer")
    return value


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004  (one kind of error for all fields)
    return value


_READERS: Final[dict[str, _Reader]] = {
    "length": _length,
    "padding": _one_of(get_args(Side)),
    "truncation": _one_of(get_args(Truncation)),
    "on_oov": _one_of(get_args(OovRule)),
    "masked": _one_of(get_args(Masked)),
    "pooling": _one_of(get_args(Pooling)),
    "normalize": _flag,
    "flatten": _flag,
    "dtype": _one_of(get_args(VectorDtype)),
    "encoding": _one_of(get_args(Encoding)),
}

SCALAR_FIELDS: Final = frozenset(_READERS)
assert frozenset(field.name for field in fields(LookupOptions)) | {"encoding"} == SCALAR_FIELDS  # noqa: S101


def read_scalars(given: Mapping[str, object], weighted: bool) -> Scalars:
    """The scalar fields among `given`; raises InvalidRequest that names the first wrong one."""
    values: dict[str, Any] = {name: _read(name, given[name]) for name in given if name in _READERS}
    if not values and not weighted:
        return DEFAULT_SCALARS
    encoding = values.pop("encoding", "float")
    if not values and not weighted:
        return Scalars(encoding=encoding)
    options = LookupOptions(**values)
    _check_together(options, weighted)
    return Scalars(DEFAULT_OPTIONS if options == DEFAULT_OPTIONS else options, encoding)


def _read(name: str, value: object) -> object:
    try:
        return _READERS[name](value)
    except ValueError as error:
        raise InvalidRequest(f"{name} {error}", field=name) from None


def _check_together(options: LookupOptions, weighted: bool) -> None:
    if options.flatten and options.pooling != "none":
        raise InvalidRequest("flatten cannot be combined with pooling: a pooled axis is gone", field="flatten")
    if weighted and options.pooling in ("none", "max"):
        raise InvalidRequest(f"weights have no meaning with pooling {options.pooling!r}", field="weights")


def from_query_text(name: str, text: str) -> object:
    """The value that a query parameter writes, as JSON would have it."""
    if name == "length":
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else text
    if name in ("normalize", "flatten"):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return text
