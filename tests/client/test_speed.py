"""The measurement of the client beside calls written by hand, in a short form; `make client-speed` does it in full."""

from load_tests.client_speed import measured


def test_both_clients_are_measured_beside_calls_by_hand() -> None:
    rows = measured(rounds=2, lookups=5)
    assert [row.name for row in rows] == ["blocking", "asyncio"]
    assert all(row.ratio > 0 for row in rows)
