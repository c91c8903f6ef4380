"""The client is not slower than it may be beside a call written by hand; `make client-speed` measures in full."""

from load_tests.client_speed import AT_MOST, measured


def test_a_lookup_costs_little_beside_a_call_by_hand() -> None:
    rows = measured(rounds=15, lookups=30)
    assert [row.name for row in rows] == ["blocking", "asyncio"]
    assert all(row.ratio <= AT_MOST for row in rows), [str(row) for row in rows]
