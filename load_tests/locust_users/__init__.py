"""Users for locust that look up and check every answer; `load_tests/locustfile.py` is what locust runs.

Nothing here imports `service`: numpy, orjson, httpx and locust are all that a load generator needs.
"""
