"""Servers that the tests of the client share, and both clients of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.api import samples
from tests.client.both import KINDS, Asked, Kind, opened
from tests.world import serving


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over the sample tables, which are not to be changed."""
    root = tmp_path_factory.mktemp("samples")
    samples.fill(root)
    with serving(root) as http:
        yield str(http.base_url)


@pytest.fixture(scope="session")
def client(url: str, kind: Kind) -> Iterator[Asked]:
    """A client of that server."""
    with opened(kind, url) as asked:
        yield asked


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    return tmp_path / "store"
