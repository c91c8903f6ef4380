"""Nested JSON arrays as one flat list and its layout, checked level by level without a loop per element."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from service.api.limits import Limits
from service.errors import InvalidRequest
from service.layout import Layout

MAX_AXES: Final = 32


def flatten(value: object, name: str, limits: Limits) -> tuple[list[Any], Layout, set[type]]:
    """The elements of `value` in order, how they are arranged, and the types of elements there are.

    One sequence, a batch of sequences (which may be ragged), or deeper rectangular nesting of up to
    `MAX_AXES` axes; raises InvalidRequest that names the place otherwise. Elements are not checked.
    """
    if not isinstance(value, list):
        raise InvalidRequest(f"{name} must be an array, not {json_type(value)}", field=name)
    level: list[Any] = value
    shape: tuple[int, ...] = (len(level),)
    lengths: Sequence[int] = ()
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1:
            raise _mixed(level, shape, lengths, name)
        if len(shape) > 1:
            _check_equal(lengths, shape, name)
        if len(shape) == MAX_AXES:
            raise InvalidRequest(f"{name} is nested more than {MAX_AXES} deep", field=name)
        lengths = list(map(len, level))
        limits.check_count("sequences", len(level))
        limits.check_count(name, sum(lengths))
        level = list(chain.from_iterable(level))
        shape = (*shape, max(lengths))
    if len(shape) == 2:
        return level, Layout.ragged(lengths), kinds
    if len(shape) > 2:
        _check_equal(lengths, shape, name)
    return level, Layout(shape), kinds


def _check_equal(lengths: Sequence[int], shape: tuple[int, ...], name: str) -> None:
    if min(lengths) == max(lengths):
        return
    position = next(i for i, length in enumerate(lengths) if length != lengths[0])
    where = place(name, Layout(shape[:-1]).place(position))
    raise InvalidRequest(
        f"{where} has {lengths[position]} elements where its neighbours have {lengths[0]}; "
        "only the last axis of a two-dimensional batch may be ragged",
        field=where,
    )


def _mixed(level: list[Any], shape: tuple[int, ...], lengths: Sequence[int], name: str) -> InvalidRequest:
    position = next(i for i, element in enumerate(level) if not isinstance(element, list))
    layout = Layout.ragged(lengths) if len(shape) == 2 else Layout(shape)
    where = place(name, layout.place(position))
    return InvalidRequest(f"{where} is {json_type(level[position])} among arrays", field=where)


def place(name: str, index: Sequence[int]) -> str:
    """`ids` and [3, 2] as `ids[3][2]`."""
    return name + "".join(f"[{axis}]" for axis in index)


def json_type(value: object) -> str:
    """What JSON calls the value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {int: "an integer", float: "a fraction", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a long integer")
