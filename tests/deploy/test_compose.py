"""docker-compose.yml against the image, the settings, and the files that it mounts."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deploy.dockerfile import environment, stages
from tests.deploy.shared import DEPLOY, GRACE, ROOT, settings_of

FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
SERVICE = SERVICES["embedding-service"]
SCRAPED = DEPLOY / "prometheus" / "prometheus.yml"


def test_a_plain_up_starts_the_service_alone() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["embedding-service"]
    assert {name: service.get("profiles") for name, service in SERVICES.items() if name != "embedding-service"} == {
        "prometheus": ["observability"],
        "grafana": ["observability"],
        "locust": ["load"],
        "locust-worker": ["load"],
    }


def test_what_is_set_are_settings() -> None:
    assert settings_of(environment("base") | SERVICE["environment"]).workers == 2


def test_the_drain_ends_before_the_container_is_killed() -> None:
    drain = settings_of(environment("base") | SERVICE["environment"]).drain_seconds
    assert drain + GRACE < float(SERVICE["stop_grace_period"].removesuffix("s"))


def test_the_port_that_is_published_is_the_one_that_is_served() -> None:
    assert [port.rpartition(":")[2] for port in SERVICE["ports"]] == [environment("base")["EMBEDDING_PORT"]]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_open_to_other_machines_unasked(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith(("127.0.0.1:", "${EMBEDDING_ADDRESS:-127.0.0.1}:"))


def test_the_volume_is_the_store() -> None:
    assert f"store:{environment('base')['EMBEDDING_STORE']}" in SERVICE["volumes"]
    assert "store" in FILE["volumes"]


def test_the_service_can_do_little_in_its_container() -> None:
    assert SERVICE["read_only"] is True
    assert [mount.partition(":")[0] for mount in SERVICE["tmpfs"]] == ["/tmp"]
    assert {"cpus", "memory", "pids"} == set(SERVICE["deploy"]["resources"]["limits"])


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_capabilities(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_of_ours_is_a_stage_of_the_dockerfile_and_others_have_a_version(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert service["build"]["target"] in stages()
    else:
        assert service["image"].rpartition(":")[2][-1].isdigit()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_services_that_are_there(name: str) -> None:
    assert set(SERVICES[name].get("depends_on", ())) <= set(SERVICES)


def test_the_load_is_for_the_service_and_its_workers_find_the_master() -> None:
    master, worker = SERVICES["locust"]["command"], SERVICES["locust-worker"]["command"]
    host = urlsplit(master[master.index("--host") + 1])
    assert (host.hostname, str(host.port)) == ("embedding-service", environment("base")["EMBEDDING_PORT"])
    assert "--master" in master
    assert "--worker" in worker
    assert worker[worker.index("--master-host") + 1] in SERVICES


def test_prometheus_watches_a_service_that_is_not_healthy() -> None:
    assert SERVICES["prometheus"]["depends_on"] == ["embedding-service"]


def test_who_swaps_has_the_token() -> None:
    """The master alone: its workers only look up."""
    assert [name for name, service in SERVICES.items() if "env_file" in service] == ["embedding-service", "locust"]


@pytest.mark.parametrize("name", ["embedding-service", "locust"])
def test_a_token_is_not_needed_and_the_example_has_none(name: str) -> None:
    assert SERVICES[name]["env_file"] == [{"path": "deploy/admin.env", "required": False}]
    lines = (DEPLOY / "admin.env.example").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["EMBEDDING_ADMIN_TOKEN="]


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_is_mounted_is_there(name: str) -> None:
    mounted = [Path(mount.split(":")[0]) for mount in SERVICES[name]["volumes"] if mount.startswith("./")]
    assert len(mounted) == 2
    missing = [str(path) for path in mounted if not (ROOT / path).exists()]
    if missing:
        pytest.skip(f"not there: {', '.join(missing)}")


@pytest.mark.skipif(not SCRAPED.exists(), reason="deploy/prometheus is not there")
def test_prometheus_asks_the_service() -> None:
    jobs = yaml.safe_load(SCRAPED.read_text())["scrape_configs"]
    targets = [target for job in jobs for each in job["static_configs"] for target in each["targets"]]
    assert f"embedding-service:{environment('base')['EMBEDDING_PORT']}" in targets
