"""`list`, `show` and `verify`: what lies in the store, and whether it is whole."""

from typing import Annotated, Any

import typer

from service.cli.changing import changing
from service.cli.common import JsonOption, StoreOption, TableArgument, store_at
from service.cli.printing import complain, out, print_json, print_table
from service.errors import Conflict, DamagedVersion
from service.store import TableStore
from service.types import TableVersion


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(name="list")(list_)
    app.command(name="show")(show)
    app.command(name="verify")(verify)


def list_(store: StoreOption = None, json: JsonOption = False) -> None:
    """Lists the tables of the store with their active versions."""
    opened = store_at(store)
    rows = [_summary(opened, table) for table in opened.tables()]
    with changing(opened) as changes:
        workers = changes.all_workers()
    if json:
        print_json(
            {"tables": rows if workers is None else [row | {"workers": workers.get(row["table"], [])} for row in rows]}
        )
        return
    columns = ["table", "active", "versions", "rows", "dim", "vocabulary", "padding_id", "labels"]
    cells = [[*list(row.values())[:-1], _labels(row["labels"])] for row in rows]
    if workers is not None:
        columns.append("workers that serve it")
        for cell, row in zip(cells, rows, strict=True):
            cell.append(_serving(row["active_version"], workers.get(row["table"], [])))
    print_table(f"Tables in {opened.root}", columns, cells)


def show(table: TableArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Shows the versions, labels and history of one table."""
    opened = store_at(store)
    active = opened.active_version(table)
    versions = [_version(opened, TableVersion(table, version)) for version in opened.versions(table)]
    labels = opened.labels(table)
    history = [event.model_dump(mode="json") for event in opened.history(table)]
    with changing(opened) as changes:
        workers = changes.workers(table)
    if json:
        content = {"table": table, "active_version": active, "versions": versions, "labels": labels}
        print_json(content | {"history": history} | ({"workers": workers} if workers else {}))
        return
    columns = ("", "version", "rows", "dim", "dtype", "tokens", "padding", "unk", "on_oov", "created (UTC)")
    print_table(f"Versions of {table}", columns, [_row(version, active) for version in versions])
    for version in versions:
        out.print(f"{version['version']}: {_origin(version)}")
    if labels:
        print_table("\nLabels", ("label", "version"), [(label, str(version)) for label, version in labels.items()])
    if history:
        cells = [(event["time"][:19], _what(event), event["by"]) for event in history]
        print_table("\nHistory", ("time (UTC)", "", "by"), cells)
    if workers:
        lines = [[worker[name] for name in ("worker", "state", "version", "reason")] for worker in workers]
        print_table("\nWorkers", ("worker", "state", "version", "reason"), lines)


def verify(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="One table; all without it.")] = None,
    version: Annotated[int | None, typer.Option("--version", min=1, help="One version; all without it.")] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Checks every byte of versions against their manifests. Ends with 6 if one is damaged."""
    opened = store_at(store)
    if table is None and version is not None:
        raise typer.BadParameter("--version needs a TABLE")
    tables = opened.tables() if table is None else [table]
    chosen = [
        TableVersion(name, number)
        for name in tables
        for number in (opened.versions(name) if version is None else [version])
    ]
    found: list[tuple[TableVersion | str, str | None]] = [(checked, _damage(opened, checked)) for checked in chosen]
    if version is None:
        found += [(name, why) for name in tables if (why := _table_damage(opened, name)) is not None]
    if json:
        print_json({"versions": [_verified(checked, why) for checked, why in found]})
    else:
        print_table("", ("version", "state"), [(checked, why or "whole") for checked, why in found])
    if any(why for _, why in found):
        raise typer.Exit(6)


def _verified(checked: TableVersion | str, damage: str | None) -> dict[str, Any]:
    if isinstance(checked, str):
        return {"table": checked, "version": None, "damage": damage}
    return {"table": checked.name, "version": checked.version, "damage": damage}


def _table_damage(store: TableStore, table: str) -> str | None:
    """What is wrong with a table beside its versions: what names them."""
    try:
        versions = store.versions(table)
        store.history(table)
        named = {
            **{f"label {name!r}": n for name, n in store.labels(table).items()},
            "the activation": store.active_version(table),
        }
    except Conflict as error:
        return str(error)
    missing = [f"{who} names version {n}, which is not there" for who, n in named.items() if n and n not in versions]
    return "; ".join(missing) or None


def _damage(store: TableStore, version: TableVersion) -> str | None:
    try:
        store.verify(version)
    except DamagedVersion as error:
        return error.reason
    return None


def _summary(store: TableStore, table: str) -> dict[str, Any]:
    """One table on one line; a part that cannot be read is said aside and left empty."""
    summary: dict[str, Any] = dict.fromkeys(
        ("table", "active_version", "versions", "num_embeddings", "embedding_dim", "vocabulary", "padding_id", "labels")
    )
    summary |= {"table": table, "labels": {}}
    try:
        summary["versions"] = len(store.versions(table))
        active = summary["active_version"] = store.active_version(table)
        summary["labels"] = store.labels(table)
        if active is not None:
            folder = store.version(TableVersion(table, active))
            manifest = folder.manifest()
            summary |= {
                "num_embeddings": manifest.num_embeddings,
                "embedding_dim": manifest.embedding_dim,
                "vocabulary": "yes" if folder.has_vocabulary() else "no",
                "padding_id": manifest.padding_id,
            }
    except (Conflict, LookupError, OSError) as error:
        complain(error)
    return summary


def _version(store: TableStore, version: TableVersion) -> dict[str, Any]:
    folder = store.version(version)
    try:
        manifest = folder.manifest()
    except DamagedVersion as error:
        return {"version": version.version, "damage": error.reason}
    content = manifest.model_dump(mode="json", exclude={"files", "format"})
    return {"version": version.version, "has_vocabulary": folder.has_vocabulary(), **content}


def _row(version: dict[str, Any], active: int | None) -> tuple[object, ...]:
    mark = "active" if version["version"] == active else ""
    if "damage" in version:
        return (mark, version["version"], *[None] * 8)
    names = ("num_embeddings", "embedding_dim", "dtype", "padding_id", "unk_id", "on_oov", "created")
    rows, dim, dtype, padding_id, unk_id, on_oov, created = (version[name] for name in names)
    vocabulary = "yes" if version["has_vocabulary"] else "no"
    return (mark, version["version"], rows, dim, dtype, vocabulary, padding_id, unk_id, on_oov, created[:19])


def _origin(version: dict[str, Any]) -> str:
    if "damage" in version:
        return f"damaged: {version['damage']}"
    return ", ".join(f"{key} {value}" for key, value in version["source"].items())


def _what(event: dict[str, Any]) -> str:
    if "deleted" in event:
        return f"version {event['deleted']} deleted"
    if "unloaded" in event:
        return f"version {event['unloaded']} unloaded"
    before = "" if event["previous"] is None else f" after {event['previous']}"
    return f"version {event['version']} active{before}"


def _serving(active: int | None, workers: list[dict[str, Any]]) -> str:
    serving = [worker for worker in workers if active is not None and worker["version"] == active]
    return f"{len(serving)} of {len(workers)}"


def _labels(labels: dict[str, int]) -> str:
    return ", ".join(f"{label} = {version}" for label, version in labels.items())
