"""`activate`, `rollback`, `label` and `prune`: which version counts, and which may go."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from service.cli.changing import Done, changing
from service.cli.common import JsonOption, StoreOption, TableArgument, store_at
from service.cli.printing import out, print_json
from service.store import Switch, parse_version

VersionsArgument = Annotated[
    list[str],
    typer.Argument(metavar="TABLE VERSION [TABLE VERSION]...", help="A table and one of its versions."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(name="activate")(activate)
    app.command(name="rollback")(rollback)
    app.command(name="label")(label)
    app.command(name="prune")(prune)


def activate(versions: VersionsArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Verifies a version and makes it the one that is served; of several tables all of them, or none.

    Beside a live server this ends when every worker serves it; servers on other hosts follow within half a second.
    """
    targets = _targets(versions)
    with changing(store_at(store)) as changes:
        _print_done(changes.activate(targets), json)


def rollback(table: TableArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Activates the version that was active before; twice swaps back."""
    with changing(store_at(store)) as changes:
        _print_done(changes.rollback(table), json)


def _targets(words: list[str]) -> dict[str, int]:
    if len(words) % 2:
        raise typer.BadParameter("a VERSION must follow each TABLE")
    targets: dict[str, int] = {}
    for table, text in zip(words[::2], words[1::2], strict=True):
        version = parse_version(text)
        if version is None:
            raise typer.BadParameter(f"{text!r} is not a version: a positive integer")
        if table in targets:
            raise typer.BadParameter(f"{table!r} is named twice")
        targets[table] = version
    return targets


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
    with changing(store_at(store)) as changes:
        if version is None:
            changes.delete_label(table, name)
        else:
            changes.set_label(table, name, version)
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
    with changing(opened) as changes:
        done = {name: changes.prune(name, keep, age) for name in tables}
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


def _print_done(done: Done, json: bool) -> None:
    if json:
        print_json(_as_json(done))
        return
    for switch in done.switches:
        out.print(_in_words(switch) + ("" if done.workers is None else f", served by {_counted(done.workers)}"))


def _as_json(done: Done) -> dict[str, Any]:
    tables = [asdict(switch) for switch in done.switches]
    served = {} if done.workers is None else {"workers": done.workers, "seconds": done.seconds}
    return {**(tables[0] if len(tables) == 1 else {"tables": tables}), **served}


def _in_words(switch: Switch) -> str:
    if switch.previous_version == switch.active_version:
        return f"{switch.table}: version {switch.active_version} was active already"
    before = "" if switch.previous_version is None else f" (before: {switch.previous_version})"
    return f"{switch.table}: version {switch.active_version} is active{before}"


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
