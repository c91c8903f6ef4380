"""A real Prometheus on a free loopback port that reads a server, for tests that ask it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from load_tests.bench.processes import free_port
from load_tests.running import Running, until

PROMETHEUS: Final = shutil.which("prometheus")
RULES: Final = Path(__file__).parent.parent / "deploy" / "prometheus" / "rules.yml"
SECONDS: Final = 30.0

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")


class Scraping:
    """A Prometheus that runs, asked over its HTTP API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def is_ready(self) -> bool:
        """Whether it answers yet."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def data(self, path: str, **parameters: str) -> dict[str, Any]:
        """What the API answers."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def value(self, expression: str) -> float | None:
        """The value of an expression that gives one number; None while it gives none."""
        found = self.data("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def becomes(self, expression: str, value: float) -> None:
        """Waits until an expression has a value; raises TimeoutError with what it has instead."""
        try:
            until(lambda: self.value(expression) == value, SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{expression} is {self.value(expression)} and not {value}") from error


@contextmanager
def scraping(server: Running, folder: Path) -> Iterator[Scraping]:
    """A Prometheus that reads a server, and computes the committed rules, every second; its files are in `folder`."""
    assert PROMETHEUS is not None
    configuration = folder / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(_configured(server)))
    (folder / RULES.name).write_text(RULES.read_text().replace("interval: 1m", "interval: 1s"))
    address = f"127.0.0.1:{free_port()}"
    command = [PROMETHEUS, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
            found = Scraping(client)
            until(found.is_ready, SECONDS)
            yield found
    finally:
        process.kill()
        process.wait()


def _configured(server: Running) -> dict[str, object]:
    targets = [{"targets": [urlsplit(server.url).netloc]}]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [RULES.name],
        "scrape_configs": [{"job_name": "embedding-service", "static_configs": targets}],
    }
