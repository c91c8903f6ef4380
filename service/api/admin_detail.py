"""What the admin API says of tables: what is on disk, and what every worker serves. Reads the disk, so off the loop."""

from collections.abc import Sequence
from dataclasses import asdict

from service.api.admin_schemas import HistoryEvent, TableDetail, TableLine, VersionSummary, WorkerInfo
from service.barrier import WorkerState
from service.errors import Conflict, TableNotFound
from service.history import Activation, Deletion, Event
from service.store import TableStore
from service.systemerrors import reason_of
from service.types import TableVersion


def line(store: TableStore, table: str, workers: Sequence[WorkerState]) -> TableLine:
    """One table of several; a part that cannot be read is left out, and the reason said."""
    said = TableLine(table=table, active_version=None, versions=[], labels={}, workers=_workers(workers))
    try:
        said.versions = store.versions(table)
        said.labels = store.labels(table)
        said.active_version = store.active_version(table)
    except (Conflict, LookupError, OSError) as error:
        said.reason = reason_of(error)
    return said


def detail(store: TableStore, table: str, workers: Sequence[WorkerState]) -> TableDetail:
    """One table; raises TableNotFound, Conflict."""
    try:
        versions, labels, active = store.versions(table), store.labels(table), store.active_version(table)
    except TableNotFound:  # all versions were deleted; what is left is the history
        versions, labels, active = [], {}, None
    return TableDetail(
        table=table,
        active_version=active,
        versions=[_version(store, TableVersion(table, version), active, labels) for version in versions],
        labels=labels,
        history=[_event(event) for event in store.history(table)],
        workers=_workers(workers),
    )


def _workers(states: Sequence[WorkerState]) -> list[WorkerInfo]:
    return [WorkerInfo(**asdict(state)) for state in states]


def _version(store: TableStore, chosen: TableVersion, active: int | None, labels: dict[str, int]) -> VersionSummary:
    said = VersionSummary(
        version=chosen.version,
        active=chosen.version == active,
        labels=[label for label, version in labels.items() if version == chosen.version],
    )
    try:
        folder = store.version(chosen)
        manifest, has_vocabulary = folder.manifest(), folder.has_vocabulary()
    except (Conflict, LookupError) as error:
        return said.model_copy(update={"reason": str(error)})
    read = {
        "num_embeddings": manifest.num_embeddings,
        "embedding_dim": manifest.embedding_dim,
        "dtype": manifest.dtype,
        "has_vocabulary": has_vocabulary,
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "created": manifest.created.isoformat(),
        "source": manifest.source,
    }
    return said.model_copy(update=read)


def _event(event: Event) -> HistoryEvent:
    time, by = event.time.isoformat(), event.by
    if isinstance(event, Activation):
        previous = event.previous
        return HistoryEvent(event="activation", version=event.version, previous_version=previous, time=time, by=by)
    if isinstance(event, Deletion):
        return HistoryEvent(event="deletion", version=event.deleted, previous_version=None, time=time, by=by)
    return HistoryEvent(event="unloading", version=event.unloaded, previous_version=None, time=time, by=by)
