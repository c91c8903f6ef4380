"""What the protocol says of the server and of its models: metadata, configuration, statistics, the repository's index.

Every object is made of what JSON has, in the names of the protocol's messages, so that HTTP and gRPC tell the same.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from service import __version__
from service.api.lookup import version_of
from service.api.served import Served
from service.dialects.v2.inference import MASK, VECTORS
from service.errors import VersionNotFound
from service.metrics.families import REQUEST_SECONDS, REQUESTS
from service.opened import Target
from service.registry import TableState
from service.table import EmbeddingTable
from service.types import TableVersion

HTTP_COUNTED: Final = "v2_infer"
GRPC_COUNTED: Final = "v2_grpc_infer"
"""The names of inferences in the metrics."""
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
_PLATFORM: Final = "embedding_table"
_ANY_RANK: Final = [-1, -1]
"""The protocol has no word for any number of axes: two are what most requests have."""


def server() -> dict[str, Any]:
    """ServerMetadataResponse."""
    return {"name": "embedding-table-service", "version": __version__, "extensions": list(EXTENSIONS)}


def is_ready(served: Served) -> bool:
    """Whether every table with an active version is served."""
    return served.registry.settled and not served.registry.missing()


async def table_of(served: Served, name: str, version: str | None) -> EmbeddingTable:
    """The table of a model, in one version if that is named; raises TableNotFound, VersionNotFound, NotReady."""
    if not version:
        return served.registry.get(name)
    served.registry.entry(name)
    return await served.table(Target(name, version=version_of(name, version)))


async def is_model_ready(served: Served, name: str, version: str | None) -> bool:
    """Whether a model answers, in one version if that is named; raises TableNotFound, VersionNotFound."""
    entry = served.registry.entry(name)
    if not version:
        return entry.loaded is not None
    number = version_of(name, version)
    if entry.loaded is not None and entry.loaded.table.identity.version == number:
        return True
    versions = await asyncio.to_thread(served.store.versions, name)
    if number not in versions:
        raise VersionNotFound(name, number)
    return entry.active_version != number  # what is not active is opened when it is asked for


async def metadata(served: Served, name: str, version: str | None) -> dict[str, Any]:
    """ModelMetadataResponse; raises TableNotFound, VersionNotFound, NotReady."""
    table = await table_of(served, name, version)
    versions = await asyncio.to_thread(served.store.versions, name)
    inputs = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape, _ in _inputs(table)]
    outputs = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in _outputs(table)]
    return {
        "name": name,
        "versions": [str(version)] if version else [str(number) for number in sorted(versions)],
        "platform": _PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }


async def config(served: Served, name: str, version: str | None) -> dict[str, Any]:
    """ModelConfig, as far as a table has one; raises TableNotFound, VersionNotFound, NotReady."""
    table = await table_of(served, name, version)
    return {
        "name": name,
        "platform": "",
        "backend": _PLATFORM,
        "version_policy": {"specific": {"versions": [table.identity.version]}},
        "max_batch_size": 0,
        "input": [
            {"name": name, "data_type": _config_type(kind), "dims": shape, "optional": optional}
            for name, kind, shape, optional in _inputs(table)
        ],
        "output": [
            {"name": name, "data_type": _config_type(kind), "dims": shape} for name, kind, shape in _outputs(table)
        ],
        "instance_group": [{"name": name, "kind": "KIND_CPU", "count": served.settings.workers}],
        "parameters": {
            key: {"string_value": str(value)}
            for key, value in {
                "num_embeddings": table.num_embeddings,
                "embedding_dim": table.embedding_dim,
                "dtype": table.dtype,
                "padding_id": table.padding_id,
                "unk_id": table.unk_id,
                "on_oov": table.on_oov,
                "backend": served.settings.backend,
            }.items()
            if value is not None
        },
    }


def _config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _inputs(table: EmbeddingTable) -> list[tuple[str, str, list[int], bool]]:
    """Name, datatype, shape, and whether it may be left out."""
    tokens = table.vocabulary is not None
    inputs = [("ids", "INT64", _ANY_RANK, tokens)]
    if tokens:
        inputs.append(("tokens", "BYTES", _ANY_RANK, True))
    return [
        *inputs,
        ("mask", "BOOL", _ANY_RANK, True),
        ("weights", "FP32", _ANY_RANK, True),
        ("offsets", "INT64", [-1], True),
    ]


def _outputs(table: EmbeddingTable) -> list[tuple[str, str, list[int]]]:
    return [(VECTORS, "FP32", [*_ANY_RANK, table.embedding_dim]), (MASK, "BOOL", _ANY_RANK)]


async def statistics(served: Served, name: str | None, version: str | None) -> dict[str, Any]:
    """ModelStatisticsResponse, for all models if none is named: inferences of all workers since they were started.

    Versions are not counted apart: the numbers stand at the one that is asked for, or is active. The time is
    that from a request to its answer, and is not taken apart. Raises TableNotFound, VersionNotFound, NotReady.
    """
    if name is not None:
        wanted = [(await table_of(served, name, version)).identity]
    else:
        entries = served.registry.entries.values()
        wanted = sorted(entry.loaded.table.identity for entry in entries if entry.loaded is not None)
    return {"model_stats": await asyncio.to_thread(_all_statistics, served, wanted)}


def _all_statistics(served: Served, wanted: Sequence[TableVersion]) -> list[dict[str, Any]]:
    """In a thread: with thousands of series it takes milliseconds to add them up."""
    sums = served.meter.counters.shared.all_sums()
    counts, taken = Counter[tuple[str, str]](), Counter[str]()
    for (table, _, endpoint, code), (count,) in sums.get(REQUESTS, {}).items():
        if endpoint in (HTTP_COUNTED, GRPC_COUNTED):
            counts[table, "success" if code in ("200", "OK") else "fail"] += int(count)
    for (table, endpoint), numbers in sums.get(REQUEST_SECONDS, {}).items():
        if endpoint in (HTTP_COUNTED, GRPC_COUNTED):
            taken[table] += int(numbers[-1] * 1e9)
    return [
        _statistics(each, counts[each.name, "success"], counts[each.name, "fail"], taken[each.name]) for each in wanted
    ]


def _statistics(identity: TableVersion, success: int, fail: int, nanoseconds: int) -> dict[str, Any]:
    durations = {what: {"count": success, "ns": 0} for what in _DURATIONS}
    durations["success"]["ns"] = durations["compute_infer"]["ns"] = nanoseconds
    return {
        "name": identity.name,
        "version": str(identity.version),
        "last_inference": 0,
        "inference_count": success,
        "execution_count": success,
        "inference_stats": {**durations, "fail": {"count": fail, "ns": 0}},
        "batch_stats": [],
    }


_DURATIONS: Final = ("success", "queue", "compute_input", "compute_infer", "compute_output")


async def index(served: Served, *, ready_only: bool) -> list[dict[str, str]]:
    """RepositoryIndexResponse: every version of every table.

    The active one has the state of its table. Others are AVAILABLE: on disk, and opened when they are asked for.
    """
    found: list[dict[str, str]] = []
    for name, entry in sorted(served.registry.entries.items()):
        served_version = None if entry.loaded is None else entry.loaded.table.identity.version
        for number in sorted(await asyncio.to_thread(_versions, served, name)):
            is_active = number == (entry.active_version if served_version is None else served_version)
            state = entry.state if is_active else TableState.AVAILABLE
            if not ready_only or state is TableState.READY:
                reason = (entry.reason or "") if is_active or entry.loaded is None else ""
                found.append({"name": name, "version": str(number), "state": state.value, "reason": reason})
    return found


def _versions(served: Served, name: str) -> list[int]:
    try:
        return list(served.store.versions(name))
    except (LookupError, OSError):  # it has just been deleted
        return []
