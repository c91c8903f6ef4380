"""`RemoteEmbedding` for Keras 3: takes the place of an `Embedding` layer when a model predicts."""

import threading
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from service.client.answers import Lookup
from service.client.clients import Client
from service.client.errors import EmbeddingServiceError, WrongType
from service.client.remote import NotEager, NotTrainable, RemoteTable


class Answered(threading.local):
    """What was asked last in a thread, and the mask of its answer."""

    inputs: Any = None
    mask: Any = None

    def __reduce__(self) -> tuple[type["Answered"], tuple[()]]:
        return Answered, ()


@keras.saving.register_keras_serializable(package="embedding_table_service")
class RemoteEmbedding(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Looks ids up in a served table: integers of any shape in, vectors with one more axis out, of the layer's dtype.

    `client` is a `Client`, or the address of the service. Without `version` or `label` each call gets the version in
    force. The mask is that of the same answer: ids equal to the version's `padding_id` are masked, as with
    `mask_zero=True`, unless `use_mask` is false. Ids outside the table raise OutOfVocabulary.

    Nothing is learnt: a call with `training=True` raises NotTrainable. A request is made in each call, so that it has
    to be run eagerly, as the backends numpy and torch do; with TensorFlow and JAX `model.compile(run_eagerly=True)`.
    Where a graph is traced, NotEager is raised.
    """

    def __init__(
        self,
        client: Client | str,
        table: str,
        *,
        version: int | None = None,
        label: str | None = None,
        use_mask: bool = True,
        **kwargs: Any,  # noqa: ANN401  (name, dtype)
    ) -> None:
        if kwargs.pop("trainable", False):
            raise NotTrainable(f"table {table!r} is served, not trained")
        super().__init__(trainable=False, **kwargs)
        self._remote = RemoteTable(client, table, version, label)
        self._url = client if isinstance(client, str) else client.url
        self.use_mask = use_mask
        self._answered = Answered()
        self.output_dim = self._remote.embedding_dim
        self.supports_masking = use_mask
        self.built = True

    @property
    def input_dim(self) -> int:
        return self._remote.num_embeddings

    @property
    def padding_id(self) -> int | None:
        """That of the version that answered last."""
        return self._remote.padding_id

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ANN401  (tensors)
        if training:
            raise NotTrainable(f"table {self._remote.table!r} is served, not trained; predict with it")
        found = self._found(inputs)
        self._answered.inputs, self._answered.mask = inputs, self._mask(found)
        return ops.convert_to_tensor(found.vectors, dtype=self.compute_dtype)

    def _found(self, inputs: Any) -> Lookup:  # noqa: ANN401
        try:
            return self._remote.lookup(_ids(inputs))
        except EmbeddingServiceError as error:
            # Keras else makes another one of its class with more text, which has neither status nor members.
            error._keras_call_info_injected = True  # type: ignore[attr-defined]  # noqa: SLF001
            raise

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """True where an id counts, of the answer to these very `inputs`; None for a table without a padding id.

        Keras asks after each call. There is none of an `Input`, which no version has answered.
        """
        if not self.use_mask or isinstance(inputs, KerasTensor):
            return None
        if self._answered.inputs is inputs:
            self._answered.inputs = None  # what they hold may change
            return self._answered.mask
        return self._mask(self._remote.lookup(_ids(inputs)))

    def _mask(self, found: Lookup) -> Any:  # noqa: ANN401  (a tensor, or None)
        assert found.mask is not None  # noqa: S101  (nothing is pooled)
        if self._remote.padding_id is None and found.mask.all():
            return None
        return ops.convert_to_tensor(found.mask)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ANN401
        if training:
            raise NotTrainable(f"table {self._remote.table!r} is served, not trained; predict with it")
        return KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    @property
    def trainable(self) -> bool:
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if value:
            raise NotTrainable(f"table {self._remote.table!r} is served, not trained")

    def close(self) -> None:
        """Closes the connections of the layer's client."""
        self._remote.client.close()

    def get_config(self) -> dict[str, Any]:
        """Where the rows are; a token is not kept."""
        remote = self._remote
        place = {"client": self._url, "table": remote.table, "version": remote.version, "label": remote.label}
        return {**super().get_config(), **place, "use_mask": self.use_mask}


def _ids(inputs: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401
    """The ids as integers: Keras hands whole numbers on as floats where an `Input` has no dtype."""
    try:
        ids: np.ndarray[Any, Any] = np.asarray(ops.convert_to_numpy(inputs))
    except (NotImplementedError, TypeError, RuntimeError) as error:
        raise NotEager(
            "a remote table is asked in each call, which a traced graph cannot do: compile the model with "
            "run_eagerly=True, or call it without compiling"
        ) from error
    if ids.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = ids.astype(np.int64)
        if not np.array_equal(whole, ids):
            raise WrongType(f"ids must be integers, not {ids[ids != whole][0]}", None, {"field": "ids"})
        return whole
    return ids
