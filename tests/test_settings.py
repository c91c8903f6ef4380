import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr, ValidationError

from service.backends import BACKENDS, Fetching
from service.settings import PREFIX, Settings

DEFAULTS: dict[str, object] = {
    "store": Path("model_store"),
    "host": "127.0.0.1",
    "port": 8000,
    "workers": 1,
    "backend": "numpy",
    "threads": 0,
    "providers": "CPUExecutionProvider",
    "device_id": 0,
    "device_memory_bytes": None,
    "admin_token": None,
    "admin_tokens": {},
    "admin_host": None,
    "admin_port": None,
    "tls_certificate": None,
    "tls_key": None,
    "import_folder": None,
    "max_upload_bytes": 16 * 1024**3,
    "prepare_seconds": 300.0,
    "delete_grace_seconds": 10.0,
    "max_body_bytes": 16 * 1024 * 1024,
    "max_ids": 262_144,
    "max_response_bytes": 256 * 1024 * 1024,
    "dialects": "v2,openai,tensorflow,tei",
    "grpc_port": None,
    "tei_table": None,
    "max_in_flight": 256,
    "client_seconds": 30.0,
    "json_cache_bytes": 256 * 1024 * 1024,
    "keep_loaded": 0,
}

FROM_ENVIRONMENT: dict[str, tuple[str, object]] = {
    "store": ("/srv/tables", Path("/srv/tables")),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "workers": ("4", 4),
    "backend": ("onnx", "onnx"),
    "threads": ("3", 3),
    "providers": ("CUDAExecutionProvider, CPUExecutionProvider", "CUDAExecutionProvider,CPUExecutionProvider"),
    "device_id": ("1", 1),
    "device_memory_bytes": ("1000000", 1_000_000),
    "admin_token": ("secret", SecretStr("secret")),
    "admin_tokens": ('{"alice": "hush"}', {"alice": SecretStr("hush")}),
    "admin_host": ("127.0.0.2", "127.0.0.2"),
    "admin_port": ("8001", 8001),
    "tls_certificate": ("/run/tls.crt", Path("/run/tls.crt")),
    "tls_key": ("/run/tls.key", Path("/run/tls.key")),
    "import_folder": ("/srv/incoming", Path("/srv/incoming")),
    "max_upload_bytes": ("1024", 1024),
    "prepare_seconds": ("0.5", 0.5),
    "delete_grace_seconds": ("0", 0.0),
    "max_body_bytes": ("1", 1),
    "max_ids": ("10", 10),
    "max_response_bytes": ("4096", 4096),
    "dialects": ("tei, v2", "v2,tei"),
    "grpc_port": ("8001", 8001),
    "tei_table": ("words", "words"),
    "max_in_flight": ("8", 8),
    "client_seconds": ("2.5", 2.5),
    "json_cache_bytes": ("0", 0),
    "keep_loaded": ("2", 2),
    "poll_seconds": ("0.25", 0.25),
    "drain_seconds": ("3", 3),
    "log_level": ("WARNING", "warning"),
    "log_format": ("JSON", "json"),
    "access_log": ("true", True),
    "traces_endpoint": ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    "traces_ratio": ("0.5", 0.5),
}

REFUSED: dict[str, tuple[str, str]] = {
    "a port that is no number": ("port", "eighty"),
    "a port beyond": ("port", "65536"),
    "a negative port": ("port", "-1"),
    "no workers": ("workers", "0"),
    "half a worker": ("workers", "1.5"),
    "no workers said": ("workers", ""),
    "a backend that is none": ("backend", "gpu"),
    "a protocol that is none": ("dialects", "v2,soap"),
    "none beside another": ("dialects", "none,v2"),
    "negative threads": ("threads", "-1"),
    "no provider": ("providers", ""),
    "a provider without a name": ("providers", "CPUExecutionProvider,"),
    "a provider twice": ("providers", "CPUExecutionProvider,CPUExecutionProvider"),
    "a provider with a blank in its name": ("providers", "CPU ExecutionProvider"),
    "auto and a provider": ("providers", "auto,CPUExecutionProvider"),
    "a negative device": ("device_id", "-1"),
    "no memory of a device": ("device_memory_bytes", "0"),
    "no bytes": ("max_body_bytes", "0"),
    "no ids": ("max_ids", "0"),
    "no answer": ("max_response_bytes", "0"),
    "an admin port beyond": ("admin_port", "65536"),
    "no upload": ("max_upload_bytes", "0"),
    "no time to prepare": ("prepare_seconds", "0"),
    "a negative grace": ("delete_grace_seconds", "-1"),
    "nothing in flight": ("max_in_flight", "0"),
    "no time for clients": ("client_seconds", "0"),
    "a negative cache": ("json_cache_bytes", "-1"),
    "negative versions": ("keep_loaded", "-1"),
    "never polling": ("poll_seconds", "0"),
    "polling that is no number": ("poll_seconds", "nan"),
    "no time to finish": ("drain_seconds", "0"),
    "a level that is none": ("log_level", "loud"),
    "a form that is none": ("log_format", "xml"),
    "an access log for some": ("access_log", "sometimes"),
    "an endpoint without a scheme": ("traces_endpoint", "collector:4318"),
    "more traces than requests": ("traces_ratio", "1.5"),
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting but those of the test, and no file of settings in the working folder."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items(), ids=DEFAULTS.keys())
def test_a_setting_that_is_not_made_has_its_default(name: str, value: object) -> None:
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize(("name", "said"), FROM_ENVIRONMENT.items(), ids=FROM_ENVIRONMENT.keys())
def test_the_environment_makes_a_setting(monkeypatch: pytest.MonkeyPatch, name: str, said: tuple[str, object]) -> None:
    text, value = said
    monkeypatch.setenv(f"EMBEDDING_{name.upper()}", text)
    assert getattr(Settings(), name) == value


def test_every_setting_is_tried_here() -> None:
    assert FROM_ENVIRONMENT.keys() == Settings.model_fields.keys()


def test_an_argument_is_stronger_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PORT", "9000")
    assert Settings(port=9001).port == 9001


@pytest.mark.parametrize(("name", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_setting_is_refused_and_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"EMBEDDING_{name.upper()}", text)
    with pytest.raises(ValidationError) as refused:
        Settings()
    (finding,) = refused.value.errors()
    assert finding["loc"] == (name,)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_a_setting(name: str) -> None:
    assert Settings(backend=name).backend == name


def test_rows_are_fetched_as_the_settings_say() -> None:
    said = Settings(backend="onnx", threads=3, providers="B,A", device_id=2, device_memory_bytes=5)
    assert said.fetching() == Fetching("onnx", 3, ("B", "A"), 2, 5)


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 4, 1), (8, 3, 2), (64, 1, 4)]
)
def test_without_a_number_of_threads_each_worker_has_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert Settings(workers=workers).fetching().threads == threads


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_a_variable_of_another_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_SOMETHING_ELSE", "1")
    monkeypatch.setenv("PORT", "1")
    assert Settings().port == 8000


def test_the_token_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_ADMIN_TOKEN", "secret")
    settings = Settings()
    assert "secret" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("EMBEDDING_ADMIN_TOKENS", '{"alice": "hush"}')
    assert "hush" not in repr(Settings()) + Settings().model_dump_json()
    assert SecretStr in get_args(Settings.model_fields["admin_token"].annotation)


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_two_tokens_of_one_owner_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("EMBEDDING_ADMIN_TOKENS", '{"admin": "other"}')
    with pytest.raises(ValidationError, match="the owner of ADMIN_TOKEN already"):
        Settings()
