"""The commands of the pages about Docker and Kubernetes, which are not run here: their order, and the names in them."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from service import __version__
from tests.deploy.manifests import KUBERNETES
from tests.deploy.shared import ROOT
from tests.readme import README

PAGE: Final = ROOT / "docs" / "deployment.md"
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The commands of a page that are shown and not run, in their blocks."""
    return _BLOCK.findall(page.read_text())


def with_apply(page: Path) -> str:
    """The one block of a page that brings the service to a cluster."""
    (found,) = (block for block in blocks(page) if "kubectl apply -k" in block)
    return found


@pytest.mark.parametrize("page", [README, PAGE], ids=lambda page: page.name)
def test_the_image_is_there_before_its_pods_are(page: Path) -> None:
    block = with_apply(page)
    (tag,) = re.findall(r"docker build -t (\S+)", block)
    assert tag.rpartition("/")[2] == f"embedding-table-service:{__version__}"
    assert re.findall(r"(?:docker push|kind load docker-image) (\S+)", block) == [tag]
    assert block.index("docker build") < block.index(tag, block.index("docker build") + 20) < block.index("apply -k")


def test_the_token_is_there_before_a_container_reads_it_and_in_its_namespace() -> None:
    block = with_apply(PAGE)
    assert block.index("namespace.yaml") < block.index("create secret") < block.index("kubectl apply -k")
    (folder,) = re.findall(r"apply -k (\S+)", block)
    (namespace,) = re.findall(r"create secret .* -n (\S+)", block)
    assert yaml.safe_load((ROOT / folder / "kustomization.yaml").read_text())["namespace"] == namespace


def test_the_image_that_is_pushed_is_the_one_of_the_overlay() -> None:
    (image,) = yaml.safe_load((KUBERNETES / "overlays/example/kustomization.yaml").read_text())["images"]
    assert f"docker push {image['newName']}:{image['newTag']}\n" in with_apply(PAGE)


@pytest.mark.parametrize("page", [README, PAGE], ids=lambda page: page.name)
def test_what_is_applied_is_there(page: Path) -> None:
    named = re.findall(r"deploy/[\w./-]*\w", page.read_text())
    assert named
    assert [path for path in named if not (ROOT / path).exists() and path != "deploy/admin.env"] == []
