"""Servers that all tests of the API share: one per path over the sample tables, and one with narrow limits."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import httpx
import pytest

from tests.api import samples
from tests.world import Path_, serving


@pytest.fixture(scope="session", params=["wire", "behind", "onnx"])
def path(request: pytest.FixtureRequest) -> Path_:
    """The way that lookups take: by the protocol, in front of FastAPI's router or behind it, or with ONNX Runtime."""
    return cast("Path_", request.param)


@pytest.fixture(scope="session")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the sample tables. Not to be changed."""
    root = tmp_path_factory.mktemp("samples")
    samples.fill(root)
    return root


@pytest.fixture(scope="session")
def client(store_root: Path, path: Path_) -> Iterator[httpx.Client]:
    """A client of a server over the sample tables."""
    with serving(store_root, path) as session:
        yield session


@pytest.fixture(scope="session")
def narrow(store_root: Path, path: Path_) -> Iterator[httpx.Client]:
    """The same with limits that small requests reach."""
    with serving(store_root, path, max_body_bytes=65_536, max_ids=100, max_response_bytes=20_000) as session:
        yield session
