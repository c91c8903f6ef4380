"""`RemoteEmbedding` in models of the real Keras: they predict what they did with their own `Embedding`."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import jax
import numpy as np
import pytest

from service.client import Client, OutOfVocabulary, WrongType
from service.client.administering import PublishOptions
from service.client.remote import DimensionChanged, NotEager, NotTrainable
from service.store import TableStore
from tests.keras_numpy import keras
from tests.world import publish, serving

from service.client.keras import RemoteEmbedding  # isort: skip  # after Keras has its backend

# Keras' variables have an `__array__` without `copy`; numpy 2 complains wherever it copies one.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
layers = keras.layers
COUNT, DIM = 11, 4
ROWS: Final = np.random.default_rng(4).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("keras")
    publish(TableStore(root), "words", ROWS, padding_id=0)
    publish(TableStore(root), "plain", ROWS)
    publish(TableStore(root), "plain", ROWS * 2, activate=False)
    TableStore(root).set_label("plain", "canary", 2)
    with serving(root, admin_token="secret") as http, Client(str(http.base_url), token="secret") as opened:
        yield opened


def embedding(*, masked: bool) -> Any:  # noqa: ANN401
    return layers.Embedding(COUNT, DIM, mask_zero=masked, name="words")


def masked_lstm() -> Any:  # noqa: ANN401
    return keras.Sequential([keras.Input((None,), dtype="int32"), embedding(masked=True), layers.LSTM(5)])


def averaged() -> Any:  # noqa: ANN401
    tail = [layers.GlobalAveragePooling1D(), layers.Dense(3)]
    return keras.Sequential([keras.Input((6,)), embedding(masked=True), *tail])


def flattened() -> Any:  # noqa: ANN401
    tail = [layers.Flatten(), layers.Dense(3)]
    return keras.Sequential([keras.Input((6,), dtype="int64"), embedding(masked=False), *tail])


def two_ways() -> Any:  # noqa: ANN401
    ids = keras.Input((6,), dtype="int32")
    vectors = embedding(masked=True)(ids)
    joined = layers.Concatenate()([layers.GlobalAveragePooling1D()(vectors), layers.GRU(3)(vectors)])
    return keras.Model(ids, layers.Dense(2)(joined))


@pytest.mark.parametrize("build", [masked_lstm, averaged, flattened, two_ways])
def test_a_model_predicts_the_same_with_its_embedding_replaced(client: Client, build: Callable[[], Any]) -> None:
    model = build()
    model.get_layer("words").set_weights([ROWS])
    table = "plain" if build is flattened else "words"

    def replaced(layer: Any) -> Any:  # noqa: ANN401
        if isinstance(layer, layers.Embedding):
            return RemoteEmbedding(client, table, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    remote = keras.models.clone_model(model, clone_function=replaced)
    for own, twin in zip(model.layers, remote.layers, strict=True):
        if own.name != "words":
            twin.set_weights(own.get_weights())
    ids = np.array([[5, 1, 2, 0, 0, 0], [3, 10, 6, 1, 1, 0], [0, 0, 0, 7, 0, 0]])
    np.testing.assert_array_equal(remote.predict(ids, verbose=0), model.predict(ids, verbose=0))
    np.testing.assert_array_equal(remote(ids), model(ids))
    assert remote.count_params() == model.count_params() - ROWS.size


def test_a_layer_gives_the_rows_and_the_mask(client: Client) -> None:
    layer = RemoteEmbedding(client, "words")
    ids = np.array([[5, 0], [1, 2]])
    assert np.asarray(layer(ids)).tobytes() == ROWS[ids].tobytes()
    assert np.asarray(layer.compute_mask(ids)).tolist() == [[True, False], [True, True]]
    assert layer.compute_output_shape((None, 3)) == (None, 3, DIM)
    assert (layer.input_dim, layer.output_dim, layer.weights) == (COUNT, DIM, [])
    assert RemoteEmbedding(client, "plain").compute_mask(ids) is None
    assert RemoteEmbedding(client, "words", use_mask=False).compute_mask(ids) is None
    half = RemoteEmbedding(client, "words", dtype="float16")(ids)
    assert str(half.dtype) == "float16"


def test_versions_and_labels_are_kept(client: Client) -> None:
    assert np.asarray(RemoteEmbedding(client, "plain", version=2)(np.array([1]))).tobytes() == (ROWS[[1]] * 2).tobytes()
    assert (
        np.asarray(RemoteEmbedding(client, "plain", label="canary")(np.array([1]))).tobytes()
        == (ROWS[[1]] * 2).tobytes()
    )
    assert np.asarray(RemoteEmbedding(client, "plain")(np.array([1]))).tobytes() == ROWS[[1]].tobytes()


def test_ids_outside_are_an_error(client: Client) -> None:
    with pytest.raises(OutOfVocabulary) as refused:
        RemoteEmbedding(client, "words")(np.array([COUNT]))
    assert (refused.value.status, refused.value.total, refused.value.num_embeddings) == (422, 1, COUNT)
    assert refused.value.errors == [{"index": [0], "id": COUNT}]
    model = keras.Sequential([RemoteEmbedding(client, "words"), layers.GlobalAveragePooling1D()])
    with pytest.raises(OutOfVocabulary) as refused:
        model.predict(np.array([[COUNT]]), verbose=0)
    assert refused.value.total == 1
    with pytest.raises(OutOfVocabulary):
        RemoteEmbedding(client, "words")(np.array([-1]))


def test_fractions_are_no_ids_and_whole_floats_are(client: Client) -> None:
    layer = RemoteEmbedding(client, "words")
    assert np.asarray(layer(np.array([[2.0, 1.0]]))).tobytes() == ROWS[[2, 1]].tobytes()
    for wrong in (2.5, float("nan"), float("inf")):
        with pytest.raises(WrongType, match="ids must be integers"):
            layer(np.array([wrong]))


def test_it_is_not_trained(client: Client) -> None:
    layer = RemoteEmbedding(client, "words")
    with pytest.raises(NotTrainable, match="served, not trained"):
        layer(np.array([1]), training=True)
    with pytest.raises(NotTrainable):
        layer(keras.Input((3,)), training=True)
    with pytest.raises(NotTrainable):
        RemoteEmbedding(client, "words", trainable=True)
    with pytest.raises(NotTrainable):
        layer.trainable = True
    assert layer.trainable is False


def test_a_traced_graph_gets_a_clear_word(client: Client) -> None:
    layer = RemoteEmbedding(client, "words")
    with pytest.raises(NotEager, match="run_eagerly=True"):
        jax.jit(layer.call)(np.array([1]))


def test_a_layer_is_made_again_from_its_config(client: Client) -> None:
    layer = RemoteEmbedding(client.url, "plain", label="canary", name="rows")
    twin = RemoteEmbedding.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert np.asarray(twin(np.array([3]))).tobytes() == (ROWS[[3]] * 2).tobytes()
    for each in (layer, twin):
        each.close()


def test_the_mask_is_that_of_the_version_that_gives_the_rows(client: Client) -> None:
    ids = np.array([[0, 1, 2, 3]])
    for padding in (0, 3, None, 1):
        given: PublishOptions = {} if padding is None else {"padding_id": padding}
        # A table with another padding id is another model's: the layer is used before and after the swap.
        client.publish("swapped", ROWS, activate=True, **given)
        if padding == 0:
            layer = RemoteEmbedding(client, "swapped")
            averaged = keras.Sequential([layer, layers.GlobalAveragePooling1D()])
        counting = [number for number in range(4) if number != padding]
        np.testing.assert_allclose(averaged.predict(ids, verbose=0)[0], ROWS[counting].mean(axis=0), rtol=1e-5)
        assert layer.padding_id == padding
        mask = layer.compute_mask(ids)
        assert (mask if mask is None else np.asarray(mask).tolist()) == (
            None if padding is None else [[number in counting for number in range(4)]]
        )


def test_ids_that_a_table_masks_do_not_count(client: Client) -> None:
    client.publish("masking", ROWS, activate=True, on_oov="mask")
    averaged = keras.Sequential([RemoteEmbedding(client, "masking"), layers.GlobalAveragePooling1D()])
    np.testing.assert_allclose(averaged.predict(np.array([[2, 99]]), verbose=0)[0], ROWS[2], rtol=1e-6)


def test_another_dimension_is_an_error(client: Client) -> None:
    client.publish("changing", ROWS, activate=True)
    layer = RemoteEmbedding(client, "changing")
    client.publish("changing", ROWS[:, :2], activate=True)
    with pytest.raises(DimensionChanged, match="has 2 numbers a row now, and had 4"):
        layer(np.array([1]))
