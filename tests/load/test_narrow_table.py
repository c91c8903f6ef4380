"""The short table of a load test, from statistics as locust writes them."""

from load_tests.locust_users.narrow_table import lines


def entry(name: str, times: dict[str, int], failures: int = 0, method: str = "POST") -> dict[str, object]:
    return {
        "method": method,
        "name": name,
        "num_requests": sum(times.values()),
        "num_failures": failures,
        "response_times": times,
        "start_time": 100.0,
        "last_request_timestamp": 110.0,
    }


def test_percentiles_are_of_all_requests_of_a_kind_and_of_all_kinds_together() -> None:
    entries = [entry("raw flat", {"1": 95, "20": 5}), entry("json flat", {"2": 900}, 3), entry("none", {})]
    head, *rest = (line.split() for line in lines(entries))
    assert head == ["type", "name", "requests", "failed", "req/s", "|", "50%", "90%", "95%", "99%", "99.9%", "max"]
    assert rest == [
        ["POST", "json", "flat", "900", "3", "90.0", "|", "2", "2", "2", "2", "2", "2"],
        ["POST", "raw", "flat", "100", "0", "10.0", "|", "1", "1", "1", "20", "20", "20"],
        ["all", "1,000", "3", "100.0", "|", "2", "2", "2", "2", "20", "20"],
    ]


def test_without_requests_there_is_no_table() -> None:
    assert list(lines([entry("none", {})])) == []
