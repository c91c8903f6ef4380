"""Servers that the tests of other protocols share: over the sample tables and static text models of real libraries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import httpx
import pytest

from service.importers.options import ImportOptions
from service.importing import Import
from service.store import TableStore
from tests.api import samples
from tests.world import KERAS_ROWS, Path_, publish, serving

STATIC: Final = Path(__file__).parent.parent / "data" / "static_text"
MODELS: Final = sorted(path.name for path in STATIC.iterdir() if path.is_dir())
"""Folders that model2vec and sentence-transformers saved."""


@pytest.fixture(scope="session")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the sample tables and every static text model, by its folder's name. Not to be changed."""
    root = tmp_path_factory.mktemp("dialects")
    samples.fill(root)
    store = TableStore(root)
    for name in MODELS:
        store.publish(name, Import(ImportOptions()).read(STATIC / name), activate=True)
    return root


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """`words` has the versions 1 (active) and 2; version n is n times the rows."""
    store = TableStore(tmp_path / "store")
    for version in (1, 2):
        publish(store, "words", KERAS_ROWS * version, activate=version == 1)
    return store


@pytest.fixture(scope="session", params=["wire", "behind"])
def path(request: pytest.FixtureRequest) -> Path_:
    """The way of a request: as the service runs, or behind FastAPI's router."""
    return cast("Path_", request.param)


@pytest.fixture(scope="session")
def client(store_root: Path, path: Path_) -> Iterator[httpx.Client]:
    """A client of a server over the store."""
    with serving(store_root, path, tei_table="model2vec_float32") as session:
        yield session


@pytest.fixture(scope="session")
def narrow(store_root: Path, path: Path_) -> Iterator[httpx.Client]:
    """The same with limits that small requests reach."""
    with serving(store_root, path, max_body_bytes=65_536, max_ids=100, max_response_bytes=20_000) as session:
        yield session


@pytest.fixture(scope="session")
def address(client: httpx.Client) -> str:
    """Host and port of the server."""
    return f"{client.base_url.host}:{client.base_url.port}"
