"""`activate`, `rollback`, `label` and `prune`: which version counts, and which may go."""

from datetime import timedelta
from typing import Annotated

import typer

from service.cli.common import JsonOption, StoreOption, TableArgument, out, print_json, store_at, who
from service.store import Switch

VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="A version of the table.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(name="activate")(activate)
    app.command(name="rollback")(rollback)
    app.command(name="label")(label)
    app.command(name="prune")(prune)


def activate(
    table: TableArgument, version: VersionArgument, store: StoreOption = None, json: JsonOption = False
) -> None:
    """Verifies a version and makes it the one that is served. Servers on the store follow within a second."""
    _print_switch(store_at(store).activate(table, version, who("activate")), json)


def rollback(table: TableArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Activates the version that was active before; twice swaps back."""
    _print_switch(store_at(store).rollback(table, who("rollback")), json)


def label(
    table: TableArgument,
    name: Annotated[str, typer.Argument(metavar="LABEL", help="Name of the label, like `stable`.")],
    version: Annotated[int | None, typer.Argument(metavar="VERSION", min=1, help="The version it names.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget the label.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Gives a version a name that clients can ask for, moves it, or forgets it."""
    if delete == (version is not None):
        raise typer.BadParameter("either VERSION or --delete is needed")
    opened = store_at(store)
    if version is None:
        opened.delete_label(table, name)
    else:
        opened.set_label(table, name, version)
    if json:
        print_json({"table": table, "label": name, "version": version})
    else:
        out.print(f"{table}: {name} " + ("is forgotten" if version is None else f"names version {version}"))


def prune(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="One table; all without it.")] = None,
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many of the newest versions stay.")] = 2,
    older_than_days: Annotated[
        float, typer.Option("--older-than-days", min=0, max=36_500, help="Remove only versions older than this.")
    ] = 0.0,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Removes old versions, and what killed processes left.

    Versions that are active, labelled, or what a rollback would activate always stay.
    """
    opened = store_at(store)
    tables = opened.tables() if table is None else [table]
    age = timedelta(days=older_than_days)
    done = {name: opened.prune(name, keep, age, who("prune")) for name in tables}
    if json:
        removed = {
            name: {"versions": [version.version for version in pruned.versions], "staging": list(pruned.staging)}
            for name, pruned in done.items()
        }
        print_json({"removed": removed})
        return
    for name, pruned in done.items():
        versions = ", ".join(str(version.version) for version in pruned.versions) or "none"
        left = f"; {len(pruned.staging)} unfinished" if pruned.staging else ""
        out.print(f"{name}: versions removed: {versions}{left}")


def _print_switch(switch: Switch, json: bool) -> None:
    if json:
        names = {"table": switch.table, "previous_version": switch.previous_version}
        print_json(names | {"active_version": switch.active_version})
    elif switch.previous_version == switch.active_version:
        out.print(f"{switch.table}: version {switch.active_version} was active already")
    else:
        before = "" if switch.previous_version is None else f" (before: {switch.previous_version})"
        out.print(f"{switch.table}: version {switch.active_version} is active{before}")
