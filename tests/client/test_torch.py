"""`RemoteEmbedding` in PyTorch, which is not among what the tests install: skipped by name where it is missing."""

import copy
import pickle
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

import numpy as np
import pytest

from service.client import Client, OutOfVocabulary, WrongType
from service.client.remote import NotEager, NotTrainable
from service.store import TableStore
from tests.world import publish, serving

HAS_TORCH: Final = find_spec("torch") is not None
pytestmark = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
torch: Any = import_module("torch") if HAS_TORCH else None
RemoteEmbedding: Any = import_module("service.client.torch").RemoteEmbedding if HAS_TORCH else None
Module: TypeAlias = Any

COUNT, DIM = 11, 4
ROWS: Final = np.random.default_rng(4).normal(size=(COUNT, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("torch")
    publish(TableStore(root), "words", ROWS, padding_id=0)
    publish(TableStore(root), "words", ROWS * 2, padding_id=0, activate=False)
    with serving(root, admin_token="secret") as http, Client(str(http.base_url), token="secret") as opened:
        yield opened


@pytest.fixture
def layer(client: Client) -> Module:
    return RemoteEmbedding(client, "words")


def test_a_layer_gives_what_nn_embedding_gives(layer: Module) -> None:
    own = torch.nn.Embedding.from_pretrained(torch.tensor(ROWS), padding_idx=0)
    for ids in (
        torch.tensor([[5, 0], [1, 2]]),
        torch.tensor([3], dtype=torch.int32),
        torch.zeros((0, 2), dtype=torch.int64),
    ):
        found = layer(ids)
        assert torch.equal(found, own(ids))
        assert (found.dtype, found.requires_grad, found.device) == (torch.float32, False, ids.device)
    assert (layer.num_embeddings, layer.embedding_dim, layer.padding_idx) == (COUNT, DIM, 0)
    assert "words, 11, 4, padding_idx=0" in repr(layer)
    found = layer(torch.tensor([1]))
    found += 1  # its memory is its own
    assert torch.equal(layer(torch.tensor([1])), own(torch.tensor([1])))


def test_a_model_predicts_the_same_with_its_embedding_replaced(layer: Module) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(COUNT, DIM), torch.nn.Flatten(), torch.nn.Linear(3 * DIM, 2)).eval()
    model[0].weight.data = torch.tensor(ROWS)
    ids = torch.tensor([[5, 0, 1], [1, 2, 10]])
    with torch.inference_mode():
        before = model(ids)
        model[0] = layer
        assert torch.equal(model.eval()(ids), before)
    assert sum(p.numel() for p in model.parameters()) == 3 * DIM * 2 + 2
    assert list(model.state_dict()) == ["2.weight", "2.bias"]


def test_versions_and_dtypes(client: Client) -> None:
    found = RemoteEmbedding(client, "words", version=2, dtype=torch.float16)(torch.tensor([1]))
    assert torch.equal(found, torch.tensor(ROWS[[1]] * 2).half())


def test_the_padding_id_is_that_of_the_version_that_answered(client: Client) -> None:
    client.publish("swapped", ROWS, activate=True, padding_id=0)
    layer = RemoteEmbedding(client, "swapped")
    client.publish("swapped", ROWS[:7], activate=True, padding_id=3)
    layer(torch.tensor([1]))
    assert (layer.padding_idx, layer.num_embeddings) == (3, 7)


def test_ids_outside_and_no_ids_are_errors(layer: Module) -> None:
    with pytest.raises(OutOfVocabulary):
        layer(torch.tensor([COUNT]))
    with pytest.raises(OutOfVocabulary):
        layer(torch.tensor([-1]))
    for wrong in (torch.tensor([1.0]), torch.tensor([True]), torch.tensor([1], dtype=torch.uint8)):
        with pytest.raises(WrongType, match="ids must be int32 or int64"):
            layer(wrong)


def test_it_is_not_trained(layer: Module) -> None:
    model = torch.nn.Sequential(layer, torch.nn.Linear(DIM, 1))
    assert model.eval() is model
    with pytest.raises(NotTrainable, match=r"call eval\(\)"):
        model.train()
    with pytest.raises(NotTrainable, match="no gradient"):
        layer.requires_grad_()
    assert layer.requires_grad_(False) is layer
    assert list(layer.parameters()) == []
    assert layer.training is False


def test_a_traced_graph_gets_a_clear_word(layer: Module) -> None:
    with pytest.raises(NotEager, match="traced graph"), pytest.warns(DeprecationWarning, match="is deprecated"):
        torch.jit.trace(layer, torch.tensor([1, 2]))
    with pytest.raises(NotEager, match="traced graph"):
        torch.export.export(layer, (torch.tensor([1, 2]),))


def test_a_compiled_model_asks_outside_of_its_graph(layer: Module) -> None:
    model = torch.nn.Sequential(layer, torch.nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    for ids in (torch.tensor([5, 1]), torch.tensor([3, 2])):
        assert torch.equal(compiled(ids), torch.relu(torch.tensor(ROWS[ids.numpy()])))


def test_a_copy_asks_by_itself(layer: Module) -> None:
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(torch.tensor([4])), torch.tensor(ROWS[[4]]))
        twin.close()
