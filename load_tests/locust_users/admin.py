"""The admin API as swaps use it, and what is read to make a copy of a table."""

import io
from typing import Any, Final, Self

import httpx
import numpy as np

from load_tests.locust_users.told import RowArray

_PATIENCE: Final = httpx.Timeout(330.0, connect=10.0)  # longer than workers get to load a version
_BLOCK: Final = 8192  # ids of a lookup


class AdminFailed(Exception):
    """A change that was refused, or whose answer is not what it should be."""


class Admin:
    """One connection to one server, with a token; every method raises AdminFailed."""

    def __init__(self, host: str, token: str) -> None:
        self._client = httpx.Client(base_url=host, headers={"Authorization": f"Bearer {token}"}, timeout=_PATIENCE)

    def close(self) -> None:
        """Ends its connection."""
        self._client.close()

    def exists(self, table: str) -> bool:
        """Whether a table of that name has a version."""
        return self._ask("GET", f"/v1/admin/tables/{table}", {200, 404}).status_code == 200

    def versions(self, table: str) -> list[dict[str, Any]]:
        """What is told of each version."""
        return list(self._ask("GET", f"/v1/admin/tables/{table}", {200}).json()["versions"])

    def rows(self, table: str, count: int, dim: int) -> RowArray:
        """The first rows of a table."""
        blocks = [self._rows(table, np.arange(first, min(first + _BLOCK, count))) for first in range(0, count, _BLOCK)]
        return np.frombuffer(b"".join(blocks), "<f4").reshape(count, dim)

    def _rows(self, table: str, ids: Any) -> bytes:  # noqa: ANN401  (an array)
        octets = "application/octet-stream"
        headers = {"Content-Type": octets, "Accept": octets}
        path = f"/v1/tables/{table}/lookup"
        return self._ask("POST", path, {200}, content=ids.astype("<i8").tobytes(), headers=headers).content

    def publish(self, table: str, rows: RowArray, name: str, special: dict[str, int], *, activate: bool) -> int:
        """A new version from rows, and `padding_id` and `unk_id` where there are any; `name` is its source's."""
        body = io.BytesIO()
        np.save(body, rows)
        query: dict[str, str | int] = {**special, "file": name, "activate": str(activate).lower()}
        headers = {"Content-Type": "application/octet-stream"}
        path = f"/v1/admin/tables/{table}/versions"
        answer = self._ask("POST", path, {201}, content=body.getvalue(), params=query, headers=headers)
        return int(answer.json()["version"])

    def activate(self, table: str, version: int) -> tuple[int | None, int]:
        """The version that was active, and the one that is."""
        return _switch(self._ask("POST", f"/v1/admin/tables/{table}/activate", {200}, json={"version": version}))

    def rollback(self, table: str) -> tuple[int | None, int]:
        """The same."""
        return _switch(self._ask("POST", f"/v1/admin/tables/{table}/rollback", {200}))

    def remove(self, table: str, versions: list[int]) -> None:
        """Takes a table out of service and deletes these versions; needs the dialect V2."""
        self._ask("POST", f"/v2/repository/models/{table}/unload", {200})
        for version in versions:
            self._ask("DELETE", f"/v1/admin/tables/{table}/versions/{version}", {204})

    def _ask(self, method: str, path: str, expected: set[int], **named: Any) -> httpx.Response:  # noqa: ANN401
        try:
            answer = self._client.request(method, path, **named)
        except httpx.HTTPError as error:
            raise AdminFailed(f"{method} {path}: {error!r}") from error
        if answer.status_code not in expected:
            raise AdminFailed(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _switch(answer: httpx.Response) -> tuple[int | None, int]:
    said = answer.json()
    return said["previous_version"], said["active_version"]
