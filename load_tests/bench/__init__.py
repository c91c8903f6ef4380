"""The service beside its peers: `python -m load_tests.bench` measures all of them in one run and writes `out/bench`.

Here is nothing but these words; the servers under `peers` are imported by processes that need little else.
"""
