"""Load tests with locust: `locust -f load_tests/locustfile.py --headless -u 50 -r 10 -t 60s --host http://…`

All classes run unless some are named: `JsonUser`, `RawUser`, `V2User`, `MixedUser`. See docs/load-testing.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # locust runs this file from wherever it is told to

from locust import events, tag, task

from load_tests.locust_users.narrow_table import tell
from load_tests.locust_users.options import add_options
from load_tests.locust_users.running import begin, end, listen
from load_tests.locust_users.thresholds import judge
from load_tests.locust_users.user import LookupUser

events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(listen)
events.test_start.add_listener(begin)
events.test_stop.add_listener(end)
events.quitting.add_listener(judge)
events.quitting.add_listener(tell)


class JsonUser(LookupUser):
    """The service's own JSON: sequences, ragged batches, masks, pooling, vectors as base64."""

    @tag("json", "flat")
    @task(4)
    def json_flat(self) -> None:
        self.ask("json flat")

    @tag("json", "ragged")
    @task(3)
    def json_ragged(self) -> None:
        self.ask("json ragged")

    @tag("json", "masked")
    @task(1)
    def json_masked(self) -> None:
        self.ask("json masked")

    @tag("json", "pooled")
    @task(2)
    def json_pooled(self) -> None:
        self.ask("json pooled")

    @tag("json", "base64")
    @task(1)
    def json_base64(self) -> None:
        self.ask("json base64")


class RawUser(LookupUser):
    """Ids as bytes in, vectors as bytes out."""

    @tag("raw", "flat")
    @task(4)
    def raw_flat(self) -> None:
        self.ask("raw flat")

    @tag("raw", "batch")
    @task(3)
    def raw_batch(self) -> None:
        self.ask("raw batch")

    @tag("raw", "pooled")
    @task(2)
    def raw_pooled(self) -> None:
        self.ask("raw pooled")


class V2User(LookupUser):
    """The Open Inference Protocol as JSON, and with tensors as bytes."""

    @tag("v2", "v2-json", "flat")
    @task(2)
    def v2_json(self) -> None:
        self.ask("v2 json")

    @tag("v2", "v2-json", "pooled")
    @task(1)
    def v2_json_pooled(self) -> None:
        self.ask("v2 json pooled")

    @tag("v2", "v2-binary", "flat")
    @task(4)
    def v2_binary(self) -> None:
        self.ask("v2 binary")

    @tag("v2", "v2-binary", "ragged")
    @task(2)
    def v2_binary_ragged(self) -> None:
        self.ask("v2 binary ragged")

    @tag("v2", "v2-binary", "masked")
    @task(1)
    def v2_binary_masked(self) -> None:
        self.ask("v2 binary masked")

    @tag("v2", "v2-binary", "pooled")
    @task(1)
    def v2_binary_pooled(self) -> None:
        self.ask("v2 binary pooled")


class MixedUser(JsonUser, RawUser, V2User):
    """All of it, one request after the other over one connection; seven of ten users."""

    weight = 7
