"""The table that is looked up, as the service describes it."""

from dataclasses import dataclass
from typing import Final, Self

import httpx

_PATIENCE: Final = 30.0  # seconds


class TableUnusable(Exception):
    """A table that is not there, is not served or cannot be taken for a test."""


@dataclass(frozen=True, slots=True)
class Table:
    """Its name, size and padding id; `unk_id` and `active_version` as the service tells them."""

    name: str
    num_embeddings: int
    embedding_dim: int
    padding_id: int | None
    unk_id: int | None
    active_version: int
    source: str | None

    @classmethod
    def read(cls, host: str, name: str) -> Self:
        """Asks the service; raises TableUnusable."""
        try:
            answer = httpx.get(f"{host}/v1/tables/{name}", timeout=_PATIENCE)
        except httpx.HTTPError as error:
            raise TableUnusable(f"{host} does not tell of table {name}: {error!r}") from None
        if answer.status_code != 200:
            raise TableUnusable(f"table {name}: {answer.status_code} {answer.text}")
        return cls._of(answer.json())

    @classmethod
    def _of(cls, said: dict[str, object]) -> Self:
        if said["state"] != "READY" or said["active_version"] is None:
            raise TableUnusable(f"table {said['name']} is {said['state']}: {said['reason']}")
        source = said["source"]
        file = source.get("file") if isinstance(source, dict) else None
        names = ("name", "num_embeddings", "embedding_dim", "padding_id", "unk_id", "active_version")
        return cls(**{name: said[name] for name in names}, source=file)  # type: ignore[arg-type]
