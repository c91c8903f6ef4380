from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.history import Activation, Deletion, Event, before, committed, dump, highest, parse

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def activation(version: int, previous: int | None) -> Activation:
    return Activation(version=version, previous=previous, time=NOW, by="test")


def deletion(version: int) -> Deletion:
    return Deletion(deleted=version, time=NOW, by="test")


FIRST, SECOND, BACK = activation(1, None), activation(2, 1), activation(1, 2)


def test_the_lines_are_compact_json_with_the_fields_in_order() -> None:
    assert dump([FIRST, deletion(3)]) == (
        '{"version":1,"previous":null,"time":"2026-11-21T12:00:00.123456Z","by":"test"}\n'
        '{"deleted":3,"time":"2026-11-21T12:00:00.123456Z","by":"test"}\n'
    )


@pytest.mark.parametrize("events", [[], [FIRST], [deletion(1)], [FIRST, SECOND, deletion(3), BACK]], ids=len)
def test_what_is_dumped_is_parsed(events: list[Event]) -> None:
    assert parse(dump(events)) == events


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None, derandomize=True)
def test_any_author_is_parsed_as_dumped(by: str) -> None:
    events: list[Event] = [Activation(version=1, previous=None, time=NOW, by=by), Deletion(deleted=2, time=NOW, by=by)]
    assert parse(dump(events)) == events


@given(st.integers(1, 2**63), st.none() | st.integers(1, 2**63), st.timedeltas(timedelta(0), timedelta(days=30_000)))
@settings(deadline=None, derandomize=True)
def test_any_activation_is_parsed_as_dumped(version: int, previous: int | None, later: timedelta) -> None:
    event = Activation(version=version, previous=previous, time=NOW + later, by="test")
    assert parse(dump([event])) == [event]


WRONG_LINES = {
    "blank": "",
    "not json": "version 1",
    "cut off": '{"version":1,"previous":nu',
    "neither": '{"time":"2026-01-01T00:00:00Z","by":""}',
    "both": '{"version":1,"previous":null,"deleted":1,"time":"2026-01-01T00:00:00Z","by":""}',
    "no previous": '{"version":1,"time":"2026-01-01T00:00:00Z","by":""}',
    "version zero": '{"version":0,"previous":null,"time":"2026-01-01T00:00:00Z","by":""}',
    "version a text": '{"version":"1","previous":null,"time":"2026-01-01T00:00:00Z","by":""}',
    "version true": '{"version":true,"previous":null,"time":"2026-01-01T00:00:00Z","by":""}',
    "deleted negative": '{"deleted":-1,"time":"2026-01-01T00:00:00Z","by":""}',
    "no author": '{"deleted":1,"time":"2026-01-01T00:00:00Z"}',
    "time a number": '{"deleted":1,"time":0,"by":""}',
    "time without a zone": '{"deleted":1,"time":"2026-01-01T00:00:00","by":""}',
}


@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES.keys())
def test_a_line_that_is_no_event_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2:"):
        parse(dump([FIRST]) + line + "\n" + dump([SECOND]))


@pytest.mark.parametrize(
    ("events", "active", "shown"),
    [
        ([], None, []),
        ([FIRST], 1, [FIRST]),
        ([FIRST], None, []),
        ([FIRST, SECOND], 2, [FIRST, SECOND]),
        ([FIRST, SECOND], 1, [FIRST]),
        ([FIRST, SECOND, BACK], 2, [FIRST, SECOND]),
        ([FIRST, SECOND, BACK], 1, [FIRST, SECOND, BACK]),
        ([FIRST, deletion(2)], 1, [FIRST, deletion(2)]),
        ([FIRST, deletion(3), SECOND], 1, [FIRST, deletion(3)]),
        ([deletion(1)], None, [deletion(1)]),
    ],
    ids=[
        "empty",
        "committed",
        "first not committed",
        "both committed",
        "last not committed",
        "way back not committed",
        "way back committed",
        "a deletion after it",
        "a deletion before it",
        "deletions only",
    ],
)
def test_only_an_activation_that_came_into_force_is_shown(
    events: list[Event], active: int | None, shown: list[Event]
) -> None:
    assert committed(events, active) == shown


@pytest.mark.parametrize(
    ("events", "version"),
    [([], None), ([FIRST], None), ([FIRST, SECOND], 1), ([FIRST, SECOND, BACK], 2), ([FIRST, SECOND, deletion(1)], 1)],
    ids=["empty", "one", "two", "back", "deleted since"],
)
def test_the_version_before_is_that_of_the_last_activation(events: list[Event], version: int | None) -> None:
    assert before(events) == version


@pytest.mark.parametrize(
    ("events", "version"),
    [([], 0), ([FIRST], 1), ([FIRST, deletion(9)], 9), ([SECOND, BACK], 2)],
    ids=["empty", "activated", "deleted", "back"],
)
def test_the_highest_number_counts_deleted_versions(events: list[Event], version: int) -> None:
    assert highest(events) == version
