"""The resources of `deploy/kubernetes`, as `kubectl kustomize` builds them and as they stand in files."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, TypeAlias

import yaml

from tests.deploy.shared import DEPLOY

KUBERNETES: Final = DEPLOY / "kubernetes"
KUBECTL: Final = shutil.which("kubectl")
BUILT: Final = ("base", "overlays/example", "overlays/gpu", "overlays/shared-store")
KSERVE: Final = ("inferenceservice", "servingruntime")
Resource: TypeAlias = dict[str, Any]


@cache
def built(folder: str) -> tuple[Resource, ...]:
    """All resources of a folder with a kustomization; not to be changed."""
    assert KUBECTL is not None
    command = [KUBECTL, "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def kserve(name: str) -> Resource:
    """A resource of KServe, as it is committed."""
    found: Resource = yaml.safe_load((KUBERNETES / "kserve" / f"{name}.yaml").read_text())
    return found


def of_kind(resources: Iterable[Resource], kind: str) -> list[Resource]:
    """Those of one kind."""
    return [each for each in resources if each["kind"] == kind]


def named(resources: Iterable[Resource], kind: str, name: str) -> Resource:
    """The one of a kind with this name."""
    (found,) = (each for each in of_kind(resources, kind) if each["metadata"]["name"] == name)
    return found


def pods(resources: Iterable[Resource]) -> dict[str, Resource]:
    """The template of each Deployment's pods."""
    return {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind(resources, "Deployment")}


def containers(pod: Resource) -> list[Resource]:
    """All of a pod's, also those that only begin it."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def main_container(pod: Resource) -> Resource:
    """The one that serves."""
    (found,) = pod["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(container: Resource, resources: Iterable[Resource] = ()) -> dict[str, str]:
    """What a container is given: from ConfigMaps, and by itself where the value stands there."""
    maps = (each["configMapRef"]["name"] for each in container.get("envFrom", ()))
    found = {key: value for name in maps for key, value in named(resources, "ConfigMap", name)["data"].items()}
    return found | {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}


def probes(container: Resource) -> Iterator[Resource]:
    """What the kubelet asks over HTTP."""
    return (probe["httpGet"] for name, probe in container.items() if name.endswith("Probe"))


def ports(container: Resource) -> dict[str, int]:
    """Numbers by names."""
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def selects(selector: dict[str, str], resource: Resource) -> bool:
    """Whether a non-empty selector finds a resource, or a pod."""
    assert selector
    labels: dict[str, str] = resource["metadata"]["labels"]
    return selector.items() <= labels.items()


def finds(selector: Resource, resource: Resource) -> bool:
    """Whether a selector by labels, and by lists of what they may be, finds a resource."""
    labels: dict[str, str] = resource["metadata"]["labels"]
    wanted = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in wanted)
    among = all(labels.get(each["key"]) in each["values"] for each in wanted)
    return among and selects(selector["matchLabels"], resource)
