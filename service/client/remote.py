"""What the layers for Keras and PyTorch have in common: one table of one service in the place of rows of their own."""

from typing import Any

from service.client.answers import Lookup, TableInfo
from service.client.clients import Client
from service.client.errors import EmbeddingServiceError, VersionNotFound


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
        # Asked through a lookup, as only that resolves a label.
        found = self.client.lookup(table, [], version=version, label=label)
        self.embedding_dim = int(found.vectors.shape[-1])
        self._info = self.client.table(table, found.version)

    @property
    def num_embeddings(self) -> int:
        """How many rows the version has that answered last."""
        assert self._info.num_embeddings is not None  # noqa: S101  (it has answered)
        return self._info.num_embeddings

    @property
    def padding_id(self) -> int | None:
        """That of the version that answered last."""
        return self._info.padding_id

    def __reduce__(self) -> tuple[type["RemoteTable"], tuple[object, ...]]:
        return RemoteTable, (self.client.url, self.table, self.version, self.label)

    def lookup(self, ids: Any) -> Lookup:  # noqa: ANN401  (an array of integers)
        """The vectors of `ids` and their mask; raises what `Client.lookup` raises, and DimensionChanged."""
        found = self.client.lookup(self.table, ids, version=self.version, label=self.label)
        dim = found.vectors.shape[-1]
        if dim != self.embedding_dim:
            raise DimensionChanged(
                f"table {self.table!r} has {dim} numbers a row now, and had {self.embedding_dim} when "
                "the layer was made; name a version or a label, or make the layer anew"
            )
        if found.version != self._info.version:
            self._info = self._info_of(found.version)
        return found

    def _info_of(self, version: int) -> TableInfo:
        try:
            return self.client.table(self.table, version)
        except VersionNotFound:  # deleted since it has answered: the next answer is of another one
            return self._info
