"""What the layers for Keras and PyTorch have in common: one table of one service in the place of rows of their own."""

from typing import Any

from service.client.answers import TableInfo
from service.client.clients import Client
from service.client.errors import EmbeddingServiceError
from service.types import VectorArray


class NotTrainable(EmbeddingServiceError, RuntimeError):
    """Training or a gradient was asked of rows that are served."""


class NotEager(EmbeddingServiceError, RuntimeError):
    """A graph is being traced, in which there are no ids that could be sent."""


class DimensionChanged(EmbeddingServiceError, ValueError):
    """The version in force has another dimension than the one that the layer was made for."""


class RemoteTable:
    """Rows of a table, in the version in force at each lookup, or in a chosen one. Safe to use from several threads.

    `client` is a `Client`, or the address for one that is made here. Raises TableNotFound, and NotReady for a table
    of which nothing can be read. A pickled one makes a client of its own, for the same address.
    """

    def __init__(self, client: Client | str, table: str, version: int | None, label: str | None) -> None:
        self.client = Client(client) if isinstance(client, str) else client
        self.table, self.version, self.label = table, version, label
        self.num_embeddings, self.embedding_dim, self.padding_id = self._facts()

    def _facts(self) -> tuple[int, int, int | None]:
        # Asked through a lookup, as only that resolves a label.
        found = self.client.lookup(self.table, [], version=self.version, label=self.label)
        info: TableInfo = self.client.table(self.table, found.version)
        assert info.num_embeddings is not None  # noqa: S101  (it has just answered)
        return info.num_embeddings, int(found.vectors.shape[-1]), info.padding_id

    def __reduce__(self) -> tuple[type["RemoteTable"], tuple[object, ...]]:
        return RemoteTable, (self.client.url, self.table, self.version, self.label)

    def rows(self, ids: Any) -> VectorArray:  # noqa: ANN401  (an array of integers)
        """The vectors of `ids`; raises what `Client.lookup` raises, and DimensionChanged."""
        vectors = self.client.lookup(self.table, ids, version=self.version, label=self.label).vectors
        if vectors.shape[-1] != self.embedding_dim:
            raise DimensionChanged(
                f"table {self.table!r} has {vectors.shape[-1]} numbers a row now, and had {self.embedding_dim} when "
                "the layer was made; name a version or a label, or make the layer anew"
            )
        return vectors
