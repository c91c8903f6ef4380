"""`RemoteEmbedding` for PyTorch: takes the place of an `nn.Embedding` when a model predicts."""

from typing import Self

import torch

from service.client.clients import Client
from service.client.errors import WrongType
from service.client.remote import NotEager, NotTrainable, RemoteTable


class RemoteEmbedding(torch.nn.Module):  # type: ignore[misc]  # PyTorch is not where types are checked
    """Looks ids up in a served table: an int32 or int64 tensor of any shape in, vectors with one more axis out.

    `client` is a `Client`, or the address of the service. Without `version` or `label` each call gets the version in
    force. The vectors are float32, or of `dtype`, and on the device of the ids. Ids outside the table raise
    OutOfVocabulary. `num_embeddings` and `padding_idx` are those of the version that answered last.

    There are no parameters and no gradients: `train()` and `requires_grad_()` raise NotTrainable, so that a model
    with it is put into `eval()`. `torch.compile` leaves it out of its graph; `torch.jit` and `torch.export` cannot,
    and get NotEager.
    """

    def __init__(
        self,
        client: Client | str,
        table: str,
        *,
        version: int | None = None,
        label: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self._remote = RemoteTable(client, table, version, label)
        self._dtype = dtype
        self.embedding_dim = self._remote.embedding_dim
        self.training = False

    @property
    def num_embeddings(self) -> int:
        return self._remote.num_embeddings

    @property
    def padding_idx(self) -> int | None:
        return self._remote.padding_id

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (the name of nn.Embedding's)
        if torch.jit.is_tracing() or type(input).__name__ == "FakeTensor":
            raise NotEager("a remote table is asked in each call, which a traced graph cannot do")
        if input.dtype not in (torch.int32, torch.int64):
            raise WrongType(f"ids must be int32 or int64, not {input.dtype}", None, {"field": "ids"})
        vectors = self._remote.lookup(input.detach().cpu().numpy()).vectors
        return torch.from_numpy(vectors.copy()).to(device=input.device, dtype=self._dtype)

    def train(self, mode: bool = True) -> Self:
        """`train(False)` is what `eval()` calls; raises NotTrainable for the other."""
        if mode:
            raise NotTrainable(f"table {self._remote.table!r} is served, not trained; call eval() on the model")
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Raises NotTrainable if a gradient is wanted."""
        if requires_grad:
            raise NotTrainable(f"table {self._remote.table!r} is served: there is no gradient for its rows")
        return self

    def close(self) -> None:
        """Closes the connections of the module's client."""
        self._remote.client.close()

    def extra_repr(self) -> str:
        return f"{self._remote.table}, {self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}"
