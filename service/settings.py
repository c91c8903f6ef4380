"""Every setting, once: its name, default, meaning. The environment is read here and nowhere else."""

import os
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, PositiveInt, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.backends import AUTO, BACKENDS, CPU, Fetching
from service.logs import FORMATS

PREFIX: Final = "EMBEDDING_"
_PROVIDER: Final = re.compile("[A-Za-z0-9]+")
DIALECTS: Final = ("v2", "openai", "tensorflow", "tei")
"""The protocols of others that can be served."""
NONE: Final = "none"
_MOST_THREADS: Final = 4  # that are taken unasked: a few are enough to keep the memory busy


class Settings(BaseSettings):
    """What a server is told; a field `max_ids` is the setting `EMBEDDING_MAX_IDS` and the option `--max-ids`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    store: Annotated[Path, Field(description="Folder of the table store.")] = Path("model_store")
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    workers: Annotated[int, Field(ge=1, le=1024, description="Worker processes.")] = 1
    backend: Annotated[str, Field(description="How rows are fetched: numpy or onnx.")] = "numpy"
    threads: Annotated[
        int,
        Field(ge=0, le=256, description="Threads of a worker that share a large gather; 0: its share of the cores."),
    ] = 0
    providers: Annotated[
        str,
        Field(
            description="Of the backend onnx: execution providers of ONNX Runtime in their order; auto: what is there."
        ),
    ] = CPU
    device_id: Annotated[int, Field(ge=0, le=255, description="Number of the providers' device.")] = 0
    device_memory_bytes: Annotated[
        PositiveInt | None,
        Field(description="Most memory of the device for the tables of a worker, in bytes; none: what is free."),
    ] = None
    admin_token: Annotated[
        SecretStr | None, Field(description="Bearer token of the admin API; without one it is off.")
    ] = None
    admin_tokens: Annotated[
        dict[str, SecretStr],
        Field(description="More tokens of the admin API: JSON from owner to token."),
    ] = {}
    admin_host: Annotated[str | None, Field(description="Address of the admin API's own port; default: --host.")] = None
    admin_port: Annotated[
        int | None, Field(ge=0, le=65535, description="A port of its own for the admin API; without it, --port.")
    ] = None
    tls_certificate: Annotated[
        Path | None,
        Field(description="File of a certificate and its chain (PEM): HTTP and gRPC are then served over TLS alone."),
    ] = None
    tls_key: Annotated[
        Path | None, Field(description="File of the certificate's private key, if it is not in the same file.")
    ] = None
    import_folder: Annotated[
        Path | None, Field(description="Folder whose files the admin API may import by name; none without it.")
    ] = None
    max_upload_bytes: Annotated[PositiveInt, Field(description="Largest upload, in bytes.")] = 16 << 30
    prepare_seconds: Annotated[
        float, Field(gt=0, le=86_400, description="Seconds that workers get to load what is to be activated.")
    ] = 300.0
    delete_grace_seconds: Annotated[
        float, Field(ge=0, le=86_400, description="Seconds until the files of a deleted version are removed.")
    ] = 10.0
    max_body_bytes: Annotated[PositiveInt, Field(description="Largest request body, in bytes.")] = 16 << 20
    max_ids: Annotated[PositiveInt, Field(description="Most ids or tokens in one request.")] = 262_144
    max_response_bytes: Annotated[PositiveInt, Field(description="Largest answer, in bytes.")] = 256 << 20
    dialects: Annotated[
        str, Field(description=f"Other protocols that are served: {', '.join(DIALECTS)}; {NONE}: none of them.")
    ] = ",".join(DIALECTS)
    grpc_port: Annotated[
        int | None,
        Field(ge=0, le=65535, description="Port of the Open Inference Protocol over gRPC; none without it."),
    ] = None
    tei_table: Annotated[
        str | None,
        Field(description="Table of /embed, whose requests name none; without it, the only table that embeds texts."),
    ] = None
    max_in_flight: Annotated[
        PositiveInt, Field(description="Most lookups in flight in a worker; more are refused with 503.")
    ] = 256
    client_seconds: Annotated[
        float, Field(gt=0, le=86_400, description="Seconds that a client gets to send a request, or to read on.")
    ] = 30.0
    json_cache_bytes: Annotated[
        int, Field(ge=0, description="Most memory of a worker for the JSON text of rows, in bytes; 0: none.")
    ] = 256 << 20
    keep_loaded: Annotated[int, Field(ge=0, description="Older versions kept open per table after their use.")] = 0
    poll_seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two looks at the store.")] = 0.5
    drain_seconds: Annotated[
        int, Field(ge=1, le=3600, description="Seconds that requests in flight get to finish at a stop.")
    ] = 8
    log_level: Annotated[str, Field(description="critical, error, warning, info or debug.")] = "info"
    log_format: Annotated[str, Field(description="How the log is written: console or json.")] = "console"
    access_log: Annotated[
        bool, Field(description="A line in the log for each request; lookups then take twice the time.")
    ] = False
    traces_endpoint: Annotated[
        str | None,
        Field(description="Where traces are sent by OTLP over HTTP, as http://collector:4318/v1/traces; none without."),
    ] = None
    traces_ratio: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the requests that are traced of those that come without a trace."),
    ] = 0.0

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, name: str) -> str:
        if name not in BACKENDS:
            raise ValueError(f"{name!r} is not a backend; there are: {', '.join(BACKENDS)}")
        return name

    @field_validator("dialects")
    @classmethod
    def _known_dialects(cls, text: str) -> str:
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in DIALECTS]
        if unknown and names != [NONE]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(DIALECTS)}, or {NONE} alone")
        return NONE if names in ([], [NONE]) else ",".join(name for name in DIALECTS if name in names)

    def spoken(self) -> tuple[str, ...]:
        """The protocols of others that are served."""
        return () if self.dialects == NONE else tuple(self.dialects.split(","))

    @field_validator("providers")
    @classmethod
    def _provider_names(cls, text: str) -> str:
        names = [name.strip() for name in text.split(",")]
        if not all(map(_PROVIDER.fullmatch, names)):
            raise ValueError(f"{text!r} is no list of names with commas between them")
        if len(set(names)) < len(names):
            raise ValueError(f"{text!r} names a provider twice")
        if AUTO in names and len(names) > 1:
            raise ValueError(f"{AUTO!r} stands alone")
        return ",".join(names)

    @field_validator("admin_tokens")
    @classmethod
    def _one_owner_each(cls, tokens: dict[str, SecretStr], info: ValidationInfo) -> dict[str, SecretStr]:
        if "admin" in tokens and info.data.get("admin_token") is not None:
            raise ValueError("'admin' is the owner of ADMIN_TOKEN already")
        return tokens

    def fetching(self) -> Fetching:
        """How a worker fetches rows, with the providers as they are named."""
        cores = len(os.sched_getaffinity(0))
        threads = self.threads or max(1, min(_MOST_THREADS, cores // self.workers))
        named = tuple(self.providers.split(","))
        return Fetching(self.backend, threads, named, self.device_id, self.device_memory_bytes)

    @field_validator("log_format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name.lower() not in FORMATS:
            raise ValueError(f"{name!r} is not a form of the log; there are: {', '.join(FORMATS)}")
        return name.lower()

    @field_validator("traces_endpoint")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        if text is not None and not text.startswith(("http://", "https://")):
            raise ValueError(f"{text!r} is not an address of the form http://collector:4318/v1/traces")
        return text

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, name: str) -> str:
        if name.lower() not in {"critical", "error", "warning", "info", "debug"}:
            raise ValueError(f"{name!r} is not a log level")
        return name.lower()
