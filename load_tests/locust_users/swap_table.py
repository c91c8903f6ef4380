"""The table whose two versions are swapped: a copy of the scenario's own, or one that exists and is named."""

from dataclasses import dataclass
from typing import Final

from load_tests.locust_users.admin import Admin
from load_tests.locust_users.options import Options
from load_tests.locust_users.table import Table, TableUnusable

_SOURCE: Final = "locust-swap.npy"
"""The source of the versions of a copy: a table with others is somebody's, and never touched."""


@dataclass(frozen=True, slots=True)
class SwapTable:
    """Two versions, the first of them in force; `before` is what is to be in force at the end, None for a copy."""

    name: str
    versions: tuple[int, int]
    before: int | None

    def put_back(self, admin: Admin) -> None:
        """Removes the copy, or activates what was active; raises AdminFailed."""
        if self.before is None:
            admin.remove(self.name, [version["version"] for version in admin.versions(self.name)])
        else:
            admin.activate(self.name, self.before)


def prepared(host: str, admin: Admin, options: Options) -> SwapTable:
    """Makes the copy, or puts the first of the named versions in force; raises TableUnusable, AdminFailed."""
    if options.swap_versions is None:
        return _copied(host, admin, options, options.swap_table or f"{options.table}-swap")
    name = options.swap_table or options.table
    before = Table.read(host, name).active_version
    for version in options.swap_versions:
        if version not in [each["version"] for each in admin.versions(name)]:
            raise TableUnusable(f"table {name} has no version {version}")
    admin.activate(name, options.swap_versions[0])
    return SwapTable(name, options.swap_versions, before)


def _copied(host: str, admin: Admin, options: Options, name: str) -> SwapTable:
    """The first rows of the table and, as a second version, the same with the other sign: exact in every float."""
    _make_way(admin, name)
    table = Table.read(host, options.table)
    count = min(options.swap_rows, table.num_embeddings)
    rows = admin.rows(table.name, count, table.embedding_dim)
    special = {"padding_id": table.padding_id, "unk_id": table.unk_id}
    kept = {key: value for key, value in special.items() if value is not None and value < count}
    first = admin.publish(name, rows, _SOURCE, kept, activate=True)
    return SwapTable(name, (first, admin.publish(name, -rows, _SOURCE, kept, activate=False)), None)


def _make_way(admin: Admin, name: str) -> None:
    """Removes what a killed run has left; raises TableUnusable for any other table."""
    versions = admin.versions(name) if admin.exists(name) else []
    if not versions:
        return
    sources = {(version.get("source") or {}).get("file") for version in versions}
    if sources != {_SOURCE}:
        raise TableUnusable(
            f"table {name} exists: name two of its versions with --swap-versions, or another table with --swap-table"
        )
    admin.remove(name, [version["version"] for version in versions])
