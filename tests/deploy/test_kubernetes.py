"""The resources for Kubernetes: valid, consistent with each other, with the image and with what the service serves."""

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.grafana.dashboard import JOB
from service import __version__
from tests.deploy import dockerfile
from tests.deploy.manifests import (
    BUILT,
    KSERVE,
    KUBECTL,
    KUBERNETES,
    Resource,
    built,
    containers,
    environment,
    finds,
    kserve,
    main_container,
    named,
    of_kind,
    pods,
    ports,
    probes,
    selects,
)
from tests.deploy.rules import COMMITTED, RULES, text
from tests.deploy.shared import GRACE, served_paths, settings_of

BY_OTHERS = ("monitoring.coreos.com/v1", "serving.kserve.io/v1beta1", "serving.kserve.io/v1alpha1")
"""Kinds that the cluster does not know by itself, for which there is no schema here."""
SERVER = "embedding-service"
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not here")


@pytest.fixture(params=[pytest.param(folder, marks=needs_kubectl) for folder in BUILT])
def resources(request: pytest.FixtureRequest) -> tuple[Resource, ...]:
    return built(request.param)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return served_paths(tmp_path_factory.mktemp("store"))


@needs_kubectl
def test_every_kustomization_is_built_or_a_part_of_one() -> None:
    files = KUBERNETES.glob("**/kustomization.yaml")
    whole = {str(file.parent.relative_to(KUBERNETES)) for file in files if "kind: Kustomization" in file.read_text()}
    assert whole == set(BUILT)


@pytest.mark.parametrize("release", ["1.30", "1.37"])
def test_kubernetes_knows_every_field(resources: tuple[Resource, ...], release: str) -> None:
    known = [each for each in resources if each["apiVersion"] not in BY_OTHERS]
    assert len(known) > 7
    for each in known:
        kubernetes_validate.validate(each, release, strict=True)


def test_what_is_set_are_settings(resources: tuple[Resource, ...]) -> None:
    for pod in pods(resources).values():
        settings_of(environment(main_container(pod), resources))


def test_the_ports_of_the_pods_are_those_that_are_served(resources: tuple[Resource, ...]) -> None:
    for pod in pods(resources).values():
        container = main_container(pod)
        settings = settings_of(dockerfile.environment("base") | environment(container, resources))
        served = {"http": settings.port, "grpc": settings.grpc_port, "admin": settings.admin_port}
        assert ports(container).items() <= served.items()


def test_probes_ask_what_is_served(resources: tuple[Resource, ...], paths: set[str]) -> None:
    for pod in pods(resources).values():
        container = main_container(pod)
        asked = list(probes(container))
        assert len(asked) > 1
        for each in asked:
            assert each["path"] in paths
            assert each["port"] in ports(container)


def test_a_pod_gets_time_for_its_drain(resources: tuple[Resource, ...]) -> None:
    for pod in pods(resources).values():
        container = main_container(pod)
        before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        drain = settings_of(environment(container, resources)).drain_seconds
        assert float(before[1]) + drain + GRACE < pod["spec"]["terminationGracePeriodSeconds"]


def test_servers_are_taken_from_the_endpoints_before_they_close(resources: tuple[Resource, ...]) -> None:
    container = main_container(pods(resources)[SERVER])
    assert float(container["lifecycle"]["preStop"]["exec"]["command"][1]) >= 3


def test_a_rollout_never_takes_a_server_away_first(resources: tuple[Resource, ...]) -> None:
    spec = named(resources, "Deployment", SERVER)["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in spec
    (scaler,) = of_kind(resources, "HorizontalPodAutoscaler")
    assert named(resources, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
    assert scaler["spec"]["minReplicas"] >= 2


def test_a_pod_requests_a_core_for_each_of_its_workers(resources: tuple[Resource, ...]) -> None:
    container = main_container(pods(resources)[SERVER])
    workers = settings_of(environment(container, resources)).workers
    assert container["resources"]["requests"]["cpu"] == str(workers), "the scaler measures by the request"


def test_changes_reach_a_pod_that_is_not_ready(resources: tuple[Resource, ...]) -> None:
    assert named(resources, "Service", "embedding-service-admin")["spec"]["publishNotReadyAddresses"] is True


def _confined(pod: dict[str, Any], container: Resource) -> None:
    own, whole = container["securityContext"], pod.get("securityContext", {})
    assert (own | whole).items() >= {"runAsNonRoot": True, "runAsUser": 10001}.items()
    assert (own | whole)["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]


def test_pods_can_do_little(resources: tuple[Resource, ...]) -> None:
    for pod in pods(resources).values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False, "variables like EMBEDDING_PORT would come from Services"
        for container in containers(pod):
            _confined(pod["spec"], container)


def test_pods_run_one_image_and_the_user_that_it_has(resources: tuple[Resource, ...]) -> None:
    found = {each["image"] for pod in pods(resources).values() for each in containers(pod)}
    assert len(found) == 1
    assert found.pop().rpartition("/")[2].removesuffix("-gpu") == f"embedding-table-service:{__version__}"
    assert dockerfile.said("USER", "base") == ["10001:10001"]


def test_volumes_are_mounted_where_they_belong(resources: tuple[Resource, ...]) -> None:
    for pod in pods(resources).values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        mounted = {mount["mountPath"]: mount["name"] for mount in main_container(pod)["volumeMounts"]}
        assert mounted == {dockerfile.environment("base")["EMBEDDING_STORE"]: "store", "/tmp": "tmp"}
        assert all(len(volume) == 2 for volume in volumes.values()), "a name and one kind"


def test_services_lead_to_pods_and_to_their_ports(resources: tuple[Resource, ...]) -> None:
    for service in of_kind(resources, "Service"):
        found = [pod for pod in pods(resources).values() if selects(service["spec"]["selector"], pod)]
        assert len(found) == 1, "pods of one kind"
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports(main_container(found[0])))


def test_deployments_and_budgets_select_their_pods(resources: tuple[Resource, ...]) -> None:
    for deployment in of_kind(resources, "Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        found = [name for name, pod in pods(resources).items() if selects(selector, pod)]
        assert found == [deployment["metadata"]["name"]]
    for budget in of_kind(resources, "PodDisruptionBudget"):
        assert selects(budget["spec"]["selector"]["matchLabels"], pods(resources)[SERVER])


def test_the_admin_port_is_open_to_pods_with_the_label_only(resources: tuple[Resource, ...]) -> None:
    (policy,) = of_kind(resources, "NetworkPolicy")
    for pod in pods(resources).values():
        assert selects(policy["spec"]["podSelector"]["matchLabels"], pod)
    doors = {port["port"]: rule["from"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert doors["admin"] == [{"podSelector": {"matchLabels": {"embedding-service/admin": "true"}}}]
    assert doors["http"] == doors["grpc"] == [{"namespaceSelector": {}}]
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_no_secret_is_written_down(resources: tuple[Resource, ...]) -> None:
    assert of_kind(resources, "Secret") == []
    for pod in pods(resources).values():
        given = environment(main_container(pod), resources)
        assert not [name for name in given if "TOKEN" in name]


# Where there is one store


@needs_kubectl
def test_one_writer_changes_the_shared_store_and_servers_only_read_it() -> None:
    resources = built("overlays/shared-store")
    writer, server = named(resources, "Deployment", "embedding-service-writer"), pods(resources)[SERVER]
    assert (writer["spec"]["replicas"], writer["spec"]["strategy"]) == (1, {"type": "Recreate"})
    (claim,) = of_kind(resources, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in (writer["spec"]["template"], server):
        (store,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == "store")
        assert store["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mounted,) = (each for each in main_container(server)["volumeMounts"] if each["name"] == "store")
    assert mounted["readOnly"] is True
    assert "initContainers" not in server["spec"] or server["spec"]["initContainers"] == []
    admin = named(resources, "Service", "embedding-service-admin")
    assert selects(admin["spec"]["selector"], writer["spec"]["template"])


@needs_kubectl
def test_a_deleted_version_stays_until_every_server_has_let_go_of_it() -> None:
    resources = built("overlays/shared-store")
    writer, server = (main_container(pods(resources)[name]) for name in ("embedding-service-writer", SERVER))
    slowest = settings_of(environment(server, resources)).poll_seconds
    assert settings_of(environment(writer, resources)).delete_grace_seconds > 10 * slowest


@needs_kubectl
def test_a_pod_with_a_device_has_one_worker_for_it() -> None:
    resources = built("overlays/gpu")
    container = main_container(pods(resources)[SERVER])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert settings_of(environment(container, resources)).workers == 1


# What others define


@needs_kubectl
@pytest.mark.parametrize(
    ("folder", "scraped"),
    [
        ("overlays/example", ["embedding-service"]),
        ("overlays/shared-store", ["embedding-service", "embedding-service-writer"]),
    ],
)
def test_the_monitor_finds_every_pod_once_and_asks_for_its_metrics(
    folder: str, scraped: list[str], paths: set[str]
) -> None:
    (monitor,) = of_kind(built("overlays/example"), "ServiceMonitor")
    resources = built(folder)
    found = [each for each in of_kind(resources, "Service") if finds(monitor["spec"]["selector"], each)]
    assert sorted(each["metadata"]["name"] for each in found) == scraped
    for pod in pods(resources).values():
        assert sum(selects(each["spec"]["selector"], pod) for each in found) == 1
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] in paths
    for each in found:
        assert endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}
        assert each["metadata"]["labels"][monitor["spec"]["jobLabel"]] == JOB


@pytest.mark.skipif(not RULES.exists(), reason="deploy/prometheus is not there")
def test_the_rules_are_those_of_prometheus() -> None:
    assert COMMITTED.read_text() == text(), "python -m tests.deploy.rules"


@pytest.mark.parametrize("name", KSERVE)
def test_kserve_runs_the_image_by_what_it_serves(name: str, paths: set[str]) -> None:
    resource = kserve(name)
    pod = resource["spec"]["predictor"] if name == "inferenceservice" else resource["spec"]
    (container,) = pod["containers"]
    settings = settings_of(dockerfile.environment("base") | environment(container))
    assert container["name"] == "kserve-container"
    assert container["resources"]["requests"]["cpu"] == str(settings.workers)
    assert settings.spoken() == ("v2",)
    assert ports(container) == {"http1": settings.port}
    for each in probes(container):
        assert each["path"] in paths
        assert each["port"] == settings.port
    _confined(pod, container)


def test_kserve_is_told_the_protocol() -> None:
    (container,) = kserve("inferenceservice")["spec"]["predictor"]["containers"]
    assert environment(container)["PROTOCOL"] == "v2"
    assert kserve("servingruntime")["spec"]["protocolVersions"] == ["v2"]


def test_kserve_stops_after_the_drain() -> None:
    """The runtime has no period of its own: it gets the 30 s of Kubernetes."""
    predictor, runtime = kserve("inferenceservice")["spec"]["predictor"], kserve("servingruntime")["spec"]
    for pod in (predictor, runtime):
        (container,) = pod["containers"]
        word, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        drain = settings_of(environment(container)).drain_seconds
        assert (word, float(seconds) >= 3) == ("sleep", True)
        assert float(seconds) + drain + GRACE < pod.get("terminationGracePeriodSeconds", 30)


def test_every_file_is_one_of_yaml() -> None:
    for file in KUBERNETES.glob("**/*.yaml"):
        assert list(yaml.safe_load_all(file.read_text())), file
