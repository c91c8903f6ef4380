"""JSON bodies into lookup requests. Types are checked before anything is looked up or cached."""

import json
import math
import re
import struct
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
import orjson

from service.api.limits import Limits
from service.api.nested import flatten, json_type, place
from service.api.options import DEFAULT_SCALARS, SCALAR_FIELDS, Scalars, read_scalars
from service.errors import InvalidJson, InvalidRequest
from service.layout import Layout
from service.types import IdArray, IdBatch, LookupRequest, MaskArray, TokenBatch, WeightArray

_LOOKUP_FIELDS: Final = SCALAR_FIELDS | {"ids", "tokens", "mask", "weights"}
_MAYBE_BEYOND_FLOAT: Final = re.compile(rb"(?<![0-9])[0-9]{309}|[eE]\+?[0-9]{3}")
_LONG: Final = re.compile(rb"(?<![0-9])[0-9]{4301}")
_INT_DIGITS: Final = 4300  # what Python converts; longer integers stay text
_INTEGERS: Final = {int}
_BASE64: Final = Scalars(encoding="base64")
_DIGITS: Final = b"0123456789, "
_PLAIN: Final = {
    b'{"ids":[]}': DEFAULT_SCALARS,
    b'{"ids":[]"encoding":"float"}': DEFAULT_SCALARS,
    b'{"ids":[]"encoding":"base"}': _BASE64,
    b'{"encoding":"base""ids":[]}': _BASE64,
}
"""What is left of the bodies of plain lookups without `_DIGITS`, and how they are answered."""
_Object: TypeAlias = dict[str, Any]


class LongInteger(str):
    """The digits of an integer too long to be converted in reasonable time."""

    __slots__ = ()


class JsonBody:
    """A parsed body: `value` by orjson, which is fast, turns integers beyond 64 bits into floats and refuses
    those beyond float64; `exact` by the standard library, which keeps them, parsed only where that matters."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        try:
            self.value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if not _MAYBE_BEYOND_FLOAT.search(raw):
                raise InvalidJson(f"the body is not valid JSON: {error}") from None
            self.value = self.exact

    @cached_property
    def exact(self) -> Any:  # noqa: ANN401  (JSON)
        """The same value with every integer as it was written."""
        try:
            # Without a function of ours for every integer it is several times faster.
            parse_int = _integer if _LONG.search(self._raw) else None
            return json.loads(self._raw, parse_int=parse_int, parse_constant=_no_constant)
        except RecursionError:
            raise InvalidJson("the body is nested too deep") from None
        except ValueError as error:
            raise InvalidJson(f"the body is not valid JSON: {error}") from None


def _integer(digits: str) -> int | LongInteger:
    return int(digits) if len(digits) <= _INT_DIGITS else LongInteger(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def as_object(value: object, allowed: frozenset[str], what: str) -> _Object:
    """`value` as an object with only `allowed` fields; raises InvalidRequest naming those that are unknown."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} must be an object, not {json_type(value)}")
    if not value.keys() <= allowed:
        unknown = [name for name in value if name not in allowed]
        raise InvalidRequest(
            f"unknown field {', '.join(map(repr, unknown[:10]))} in {what}; there are {', '.join(sorted(allowed))}",
            field=unknown[0],
        )
    return value


def read_lookup(raw: bytes, limits: Limits) -> tuple[LookupRequest, Scalars]:
    """The lookup that a body asks for; raises InvalidJson, InvalidRequest, RequestTooLarge."""
    plain = plain_ids(raw, limits.max_ids)
    if plain is not None:
        ids, scalars = plain
        return LookupRequest(IdBatch(ids, Layout((len(ids),)))), scalars
    body = JsonBody(raw)
    fields = as_object(body.value, _LOOKUP_FIELDS, "the body")
    return read_fields(fields, lambda: body.exact, limits)


def plain_ids(raw: bytes, most: int) -> tuple[IdArray, Scalars] | None:
    """The commonest lookup, in a third of the time: one sequence of ids, and how to encode; None for all others.

    What is left of the body without its digits tells that there are integers in the list and nothing else, none of
    them negative: no type has to be looked at.
    """
    scalars = _PLAIN.get(raw.translate(None, _DIGITS))
    if scalars is None:
        return None
    try:
        value = orjson.loads(raw)
        ids = value["ids"]
        if not 0 < len(ids) <= most or (len(value) > 1 and value.get("encoding") != scalars.encoding):
            return None
        return np.frombuffer(_int64s(len(ids)).pack(*ids), dtype=np.int64), scalars
    except (orjson.JSONDecodeError, KeyError, struct.error):  # some digits are no ids; an id is beyond int64
        return None


def plain_integers(digits: bytes, count: int) -> bytes | None:
    """So many integers with commas between them, none negative, as int64; None for anything else."""
    if digits.translate(None, _DIGITS):
        return None
    try:
        ids = orjson.loads(b"[%b]" % digits)
        return _int64s(count).pack(*ids) if len(ids) == count else None
    except (orjson.JSONDecodeError, struct.error):  # some digits are no integers; one is beyond int64
        return None


_int64s: Final = lru_cache(maxsize=1024)(lambda count: struct.Struct(f"={count}q"))


def read_fields(fields: _Object, exact: Callable[[], Any], limits: Limits) -> tuple[LookupRequest, Scalars]:
    """The lookup that an object's fields ask for; `exact` gives the same object with its integers as written."""
    if ("ids" in fields) == ("tokens" in fields):
        raise InvalidRequest("either ids or tokens must be given, and not both", field="ids")
    if isinstance(fields.get("length"), float):
        fields = {**fields, "length": exact()["length"]}
    scalars = read_scalars(fields, "weights" in fields)
    batch = (
        read_ids(fields["ids"], lambda: exact()["ids"], limits)
        if "ids" in fields
        else read_tokens(fields["tokens"], limits)
    )
    mask = _mask(fields["mask"], batch.layout, limits) if "mask" in fields else None
    weights = _weights(fields["weights"], batch.layout, limits) if "weights" in fields else None
    return LookupRequest(batch, mask, weights, scalars.options), scalars


def read_ids(value: object, exact: Callable[[], Any], limits: Limits, name: str = "ids") -> IdBatch:
    """Nested lists of integers; `exact` gives them as they are written, and errors have them by their `name`.

    Raises InvalidRequest, RequestTooLarge.
    """
    flat, layout, kinds = flatten(value, name, limits)
    limits.check_ids(layout)
    if kinds and kinds != _INTEGERS:
        if kinds - {int, float, LongInteger}:
            raise _not_all(flat, layout, name, "an integer", (int, float, LongInteger))
        flat, _, kinds = flatten(exact(), name, limits)
        if kinds - {int, LongInteger}:
            raise _not_all(flat, layout, name, "an integer", (int, LongInteger))
        return _wide_ids(flat, layout)
    try:
        return IdBatch(np.array(flat, dtype=np.int64), layout)
    except OverflowError:
        return _wide_ids(flat, layout)


def _wide_ids(flat: list[int | LongInteger], layout: Layout) -> IdBatch:
    low, high = -(1 << 63), (1 << 63) - 1
    exact = {i: n for i, n in enumerate(flat) if isinstance(n, str) or not low <= n <= high}
    return IdBatch(np.array([-1 if i in exact else n for i, n in enumerate(flat)], np.int64), layout, exact)


def read_tokens(value: object, limits: Limits, name: str = "tokens") -> TokenBatch:
    """Nested lists of strings, by their `name` in errors; raises InvalidRequest, RequestTooLarge."""
    flat, layout, kinds = flatten(value, name, limits)
    limits.check_ids(layout)
    if kinds - {str}:
        raise _not_all(flat, layout, name, "a string", (str,))
    return TokenBatch(flat, layout)


def _mask(value: object, layout: Layout, limits: Limits) -> MaskArray:
    return mask_of(_like_ids(value, layout, "mask", limits), layout)


def mask_of(flat: list[Any], layout: Layout) -> MaskArray:
    """Booleans, or 0 and 1; raises InvalidRequest that names the place of anything else."""
    if set(map(type, flat)) - {bool, int} or set(flat) - {0, 1}:
        wrong = next(i for i, m in enumerate(flat) if type(m) not in (bool, int) or m not in (0, 1))
        where = place("mask", layout.place(wrong))
        raise InvalidRequest(f"{where} must be true, false, 1 or 0", field=where)
    return np.array(flat, dtype=np.bool_)


def _weights(value: object, layout: Layout, limits: Limits) -> WeightArray:
    return weights_of(_like_ids(value, layout, "weights", limits), layout)


def weights_of(flat: list[Any], layout: Layout) -> WeightArray:
    """Numbers that are finite and not negative; raises InvalidRequest that names the place of anything else."""
    if set(map(type, flat)) - {int, float, LongInteger}:
        raise _not_all(flat, layout, "weights", "a number", (int, float, LongInteger))
    try:
        weights = np.array(flat, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        weights = np.array([_float(weight) for weight in flat])
    check_weights(weights, layout)
    return weights


def _float(number: float | LongInteger) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def check_weights(weights: WeightArray, layout: Layout) -> None:
    """Raises InvalidRequest that names the first weight which is negative or not finite."""
    right = np.isfinite(weights) & (weights >= 0)
    if not right.all():
        where = place("weights", layout.place(int(np.argmin(right))))
        raise InvalidRequest(f"{where} must be finite and not negative", field=where)


def _like_ids(value: object, layout: Layout, name: str, limits: Limits) -> list[Any]:
    flat, own, _ = flatten(value, name, limits)
    if own.shape != layout.shape or not np.array_equal(own.lengths(), layout.lengths()):
        raise InvalidRequest(
            f"{name} must have the shape of the ids, {_describe(layout)}, and has {_describe(own)}", field=name
        )
    return flat


def _describe(layout: Layout) -> str:
    if layout.ragged_lengths is None:
        return str(list(layout.shape))
    return f"rows of the lengths {layout.ragged_lengths[:20].tolist()}"


def _not_all(flat: list[Any], layout: Layout, name: str, wanted: str, kinds: tuple[type, ...]) -> InvalidRequest:
    position = next(i for i, element in enumerate(flat) if type(element) not in kinds)
    where = place(name, layout.place(position))
    return InvalidRequest(f"{where} must be {wanted}, not {json_type(flat[position])}", field=where)
