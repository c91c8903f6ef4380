"""The short form of `make swap-latency`: it runs and measures. Whether swaps are felt is for a quiet machine to say."""

import pytest

from load_tests.swap_latency import report, run


def test_lookups_and_swaps_are_timed_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    windows = run(megabytes=16, workers=2, windows=4, seconds=0.5, connections=4)
    report(windows)
    assert [window.kind for window in windows] == ["quiet", "swaps"] * 2
    assert all(window.lookups and window.stall >= 0 for window in windows)
    assert [bool(window.swaps) for window in windows] == [False, True] * 2
    assert "longest stall of a worker's event loop" in capsys.readouterr().out
