"""The options of a lookup, by the names of the HTTP contract, and how a query writes them."""

from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Any, Final, Required, TypedDict
from urllib.parse import quote

import numpy as np
from numpy.typing import DTypeLike

from service.client.errors import WrongType
from service.client.inputs import invalid, whole
from service.types import Masked, OovRule, Pooling, Side, Truncation


class Options(TypedDict, total=False):
    """How vectors are made of rows; what is left out, or None, is the contract's default."""

    length: int
    """Pad or cut each sequence to so many positions."""
    padding: Side
    """Where short sequences are padded: `post` (default) or `pre`."""
    truncation: Truncation
    """Where long ones are cut: `post` or `pre`; `error` (default) refuses them."""
    on_oov: OovRule
    """Ids outside the table: `error`, `zeros`, `unk` or `mask`. Default: the table's rule."""
    masked: Masked
    """`keep` masked rows as stored (default), or make them `zero`."""
    pooling: Pooling
    """`none` (default), `sum`, `mean`, `max`, `sqrtn` over the unmasked positions of each sequence."""
    normalize: bool
    """L2-normalise each vector, after pooling."""
    flatten: bool
    """Merge the last id axis with the vector axis."""
    dtype: DTypeLike
    """Of the vectors: float32 (default) or float16."""


class Item(Options, total=False):
    """One lookup of several: a table, perhaps one of its versions, ids or tokens, and options."""

    table: Required[str]
    version: int
    label: str
    ids: Any
    tokens: Any
    mask: Any
    weights: Any


_NAMES: Final = frozenset(Options.__annotations__)
ITEM_NAMES: Final = frozenset(Item.__annotations__)
_NONE: Final = Options()
_MOST_LENGTH: Final = (1 << 63) - 1


def read_options(given: Mapping[str, Any]) -> Options:
    """The options that are given and not None; raises TypeError for one that does not exist."""
    if not given:
        return _NONE
    found = given_of(given, _NAMES)
    if "dtype" in found and not isinstance(found["dtype"], str):
        found["dtype"] = _dtype_name(found["dtype"])
    if "length" in found:
        found["length"] = _length(found["length"])
    for name in ("normalize", "flatten"):
        if isinstance(found.get(name), np.bool):
            found[name] = bool(found[name])
    return found  # type: ignore[return-value]  # names are checked, the service checks values


def given_of(options: Mapping[str, Any], names: Set[str], of: str = "") -> dict[str, Any]:
    """The options that are not None; raises TypeError for one that is not among `names`, and tells `of` what."""
    if unknown := options.keys() - names:
        raise TypeError(f"{of}unknown option {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    return {name: value for name, value in options.items() if value is not None}


def _length(given: object) -> int:
    length = whole(given, "length")
    if length > _MOST_LENGTH:
        raise invalid("length must be an integer of at most 63 bits", "length")
    return length


def _dtype_name(given: object) -> str:
    try:
        return np.dtype(given).name  # type: ignore[call-overload,no-any-return]  # whatever the caller has given
    except TypeError:
        raise WrongType(f"dtype must be float32 or float16, not {given!r}", None, {"field": "dtype"}) from None


def query_of(options: Options, shape: tuple[int, ...] | None = None) -> str:
    """The query of a binary request, with its question mark; "" for none."""
    if not options and shape is None:
        return ""
    # As text already, since to a cache 1 and True are the same.
    return _query(tuple([(name, text_of(value)) for name, value in options.items()]), shape)


@lru_cache(maxsize=4096)
def _query(options: tuple[tuple[str, str], ...], shape: tuple[int, ...] | None) -> str:
    pairs = [f"{name}={quote(text)}" for name, text in options]
    if shape is not None:
        pairs.append(f"shape={','.join(map(str, shape))}")
    return f"?{'&'.join(pairs)}"


def text_of(value: object) -> str:
    """A value as a query writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Target(TypedDict, total=False):
    """Which version of a table: that number, the one with that label, or without both the one in force."""

    version: int
    label: str


def target_of(table: str, version: int | None, label: str | None) -> str:
    """The path of lookups in a version; raises InvalidRequest for both a version and a label."""
    if version is not None and label is not None:
        raise invalid("either version or label may be given, not both", "version")
    return _target(table, version, label)


@lru_cache(maxsize=4096)
def _target(table: str, version: int | None, label: str | None) -> str:
    chosen = "" if version is None else f"/versions/{version}"
    if label is not None:
        chosen = f"/labels/{name_of(label, 'label')}"
    return f"/v1/tables/{name_of(table, 'table')}{chosen}/lookup"


def name_of(name: str, field: str) -> str:
    """A name as a part of a path; raises InvalidRequest for what can be none."""
    if not isinstance(name, str):
        raise WrongType(f"{field} must be a string, not {type(name).__name__}", None, {"field": field})
    if name.strip(".") == "":  # a path leaves those out
        raise invalid(f"{name!r} is not the name of a {field}", field)
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:  # half a surrogate pair
        raise invalid(f"{name!r} is not the name of a {field}", field) from None


def version_of(version: int | None) -> int | None:
    """The number of a version as an int, None for the one in force; raises WrongType."""
    return None if version is None else whole(version, "version")
