"""The Dockerfile and what goes into the image, as far as files tell; that it builds and runs is seen with an engine."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from load_tests.running import running
from service import __version__
from service.store import TableStore
from tests.api.test_tables import damage
from tests.deploy.dockerfile import FILE, environment, instructions, said, stages
from tests.deploy.shared import DEPLOY, GRACE, PATIENCE_OF_DOCKER, ROOT, settings_of
from tests.world import KERAS_ROWS, publish, serving

IGNORED = (ROOT / ".dockerignore").read_text().splitlines()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
CHECK = DEPLOY / "image" / "healthcheck.py"


def arguments(stage: str) -> dict[str, str]:
    pairs = (rest.partition("=") for rest in said("ARG", stage))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_what_the_image_sets_are_settings(variant: str) -> None:
    settings = settings_of(environment("base") | environment(f"service-{variant}"))
    assert (settings.host, settings.store) == ("0.0.0.0", Path("/store"))
    assert (settings.backend, settings.providers) == {
        "cpu": ("numpy", "CPUExecutionProvider"),
        "gpu": ("onnx", "auto"),
    }[variant]


def test_the_drain_ends_before_docker_kills() -> None:
    assert settings_of(environment("base")).drain_seconds + GRACE < PATIENCE_OF_DOCKER


def test_the_port_that_is_exposed_is_the_one_that_is_served() -> None:
    assert said("EXPOSE", "base") == [str(settings_of(environment("base")).port)]


def test_nobody_is_root_in_an_image_that_is_run() -> None:
    for stage in ("base", "load"):
        assert said("USER", stage)[-1] == "10001:10001"


def test_process_1_is_the_command_itself() -> None:
    assert json.loads(said("ENTRYPOINT", "base")[0])[0] in PROJECT["scripts"]
    assert json.loads(said("CMD", "base")[0]) == ["serve"]
    assert said("STOPSIGNAL") == ["SIGTERM"]


def test_a_plain_build_makes_the_service_and_the_variants_are_there() -> None:
    assert list(stages())[-1] == "service"
    assert said("ARG", "") == ["VARIANT=cpu"]
    assert {"service-cpu", "service-gpu", "load"} < set(stages())
    assert {origin for origin in stages().values() if ":" in origin} == {"python:3.13-slim"}
    assert not FILE.read_text().startswith("# syntax")


def test_the_store_is_filled_before_it_is_a_volume() -> None:
    at = [(each.word, each.rest) for each in instructions() if each.stage == "base"]
    assert at.index(("COPY", "--chown=10001:10001 model_store /store")) < at.index(("VOLUME", "/store"))


def test_the_label_says_the_version_of_the_package() -> None:
    assert arguments("base")["VERSION"] == __version__ == PROJECT["version"]


def test_the_labels_say_what_the_project_says() -> None:
    (labels,) = said("LABEL")
    assert f'org.opencontainers.image.licenses="{PROJECT["license"]}"' in labels
    assert {"title", "description", "source", "version", "revision"} <= set(re.findall(r"image\.(\w+)=", labels))


def test_the_extras_of_the_image_are_those_of_the_package() -> None:
    assert set(arguments("dependencies")["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_gpu_variant_finds_what_it_replaces() -> None:
    assert [each for each in PROJECT["dependencies"] if each.startswith("onnxruntime>=")]
    (pinned,) = [line for line in CONSTRAINTS if line.startswith("onnxruntime==")]
    more = (DEPLOY / "image" / "constraints-gpu.txt").read_text()
    assert pinned.replace("==", "-gpu ") in more, "renew the pins of what it brings"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [rest for rest in said("COPY") if "--from" not in rest]
    sources = {word for rest in copied for word in rest.split()[:-1] if not word.startswith("--")}
    wanted = [line[1:] for line in IGNORED if line.startswith("!")]
    assert IGNORED[1] == "*"
    for source in sources:
        assert (ROOT / source).exists()
        assert any(inside(source, each) or inside(each, source) for each in wanted), source


def inside(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def test_of_the_store_only_what_is_shipped_goes_into_a_build() -> None:
    assert [line for line in IGNORED if "model_store" in line] == [
        "!model_store/README.md",
        "!model_store/glove-6b-50d",
    ]
    assert all((ROOT / line[1:]).exists() for line in IGNORED if line.startswith("!"))


def test_no_secret_goes_into_a_build() -> None:
    assert not [line for line in IGNORED if line.startswith("!") and "env" in line]
    assert "/deploy/admin.env" in (ROOT / ".gitignore").read_text().splitlines()


# The health check


def check(url: str, host: str | None = None) -> tuple[int, str]:
    (command,) = (rest for rest in said("HEALTHCHECK", "base"))
    words = json.loads(command.partition(" CMD ")[2])
    assert words[-1] == "/opt/healthcheck.py"
    done = subprocess.run(
        [sys.executable, *words[1:-1], str(CHECK)],
        env={**os.environ, **({"EMBEDDING_HOST": host} if host else {}), "EMBEDDING_PORT": str(urlsplit(url).port)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_ready_server_is_healthy(tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    with running(tmp_path) as server:
        assert check(server.url) == (0, '{"status":"ready","missing":[]}\n')


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "0.0.0.0",
        "localhost",
        pytest.param("::1", marks=needs_ipv6),
        pytest.param("::", marks=needs_ipv6),
    ],
)
def test_a_server_is_asked_where_it_listens(host: str, tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "words", KERAS_ROWS)
    with running(tmp_path, "--host", host) as server:
        assert check(server.url, host) == (0, '{"status":"ready","missing":[]}\n')


def test_a_server_that_misses_a_table_is_not_and_says_which(tmp_path: Path) -> None:
    damage(tmp_path)
    with serving(tmp_path) as client:
        code, text = check(str(client.base_url))
    assert code == 1
    assert '"table":"broken"' in text


def test_no_server_is_not_healthy(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        url = str(client.base_url)
    code, text = check(url)
    assert (code, "refused" in text) == (1, True)


def test_the_check_gives_up_before_it_is_given_up() -> None:
    (options,) = (rest.partition(" CMD ")[0] for rest in said("HEALTHCHECK", "base"))
    seconds = dict(re.findall(r"--([a-z-]+)=(\d+)s", options))
    (own,) = re.findall(r"_SECONDS: Final = ([\d.]+)", CHECK.read_text())
    assert float(own) < float(seconds["timeout"]) <= float(seconds["interval"])
