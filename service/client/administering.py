"""The verbs of the admin API: what is published, what is in force, what labels name, what goes."""

import json
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypedDict, Unpack
from urllib.parse import urlencode

from service.client.answers import (
    Activation,
    Activations,
    Label,
    Pruned,
    Published,
    TableDetail,
    TableLine,
)
from service.client.calling import JSON, OCTETS, Call
from service.client.inputs import whole
from service.client.options import given_of, name_of, text_of
from service.client.uploads import TOKENS_FILE, Source, upload_of
from service.client.verbs import Verb, Verbs
from service.types import OovRule, RowDtype

_ADMIN: Final = "/v1/admin"


class PublishOptions(TypedDict, total=False):
    """How a file is read and what is kept with it: the options of the command `import`, `_` for `-`."""

    format: str
    file: str
    tensor: str
    rows: int
    transpose: bool
    vocabulary: str
    token_column: str
    select: str
    missing: Literal["error", "zeros", "random"]
    normalize: bool
    max_norm: float
    padding_id: int
    unk_id: int
    on_oov: OovRule
    dtype: RowDtype
    tokenizer: str
    pooling: str
    normalize_texts: bool
    note: str


_PUBLISH_NAMES: Final = frozenset(PublishOptions.__annotations__)


class AdminVerbs(Verbs):
    """What changes the store, with a token. A change is sent once: again only where nothing can have been received."""

    @Verb
    async def publish(
        self,
        table: str,
        source: Source,
        *,
        tokens: Sequence[str] | None = None,
        activate: bool = False,
        **options: Unpack[PublishOptions],
    ) -> Published:
        """Publishes a matrix or a file as a new version; it is served once it is activated.

        `source` is an array of shape (num_embeddings, embedding_dim), with `tokens` if it has a vocabulary; or the
        path of a file of any format that `embedding-service import` takes, of a tar, its bytes, or an open file.
        Files are streamed, and what arrives is checked against their SHA-256.

        Raises InvalidRequest for what is no table, Conflict, RequestTooLarge, InsufficientStorage, WorkersSilent,
        Unauthorized, Forbidden.
        """
        upload, name = await self._caller.exchange.work(lambda: upload_of(source, tokens))
        digest = await self._caller.exchange.work(upload.digest)
        query = {**given_of(options, _PUBLISH_NAMES), "activate": activate}
        if name is not None:
            query.setdefault("file", name)
        if tokens is not None:
            query.setdefault("vocabulary", TOKENS_FILE)
        digested = (("Content-Digest", digest),)
        call = Call("POST", _versions(table, query), "admin", upload, OCTETS, JSON, digested)
        return await self._caller.value(Published, call)

    @Verb
    async def publish_from(
        self, table: str, source: str, *, activate: bool = False, **options: Unpack[PublishOptions]
    ) -> Published:
        """Publishes a file of the server's, by its name below the folder that the operator has allowed."""
        target = _versions(table, {**given_of(options, _PUBLISH_NAMES), "activate": activate})
        return await self._caller.value(Published, _change("POST", target, {"source": source}))

    @Verb
    async def activate(self, table: str, version: int) -> Activation:
        """Puts a version in force, in all workers or in none; the answer comes when every worker serves it.

        Raises VersionNotFound, Conflict for a version that is damaged or that a worker cannot load, WorkersSilent.
        """
        call = _change("POST", f"{_of(table)}/activate", {"version": whole(version, "version")})
        return await self._caller.value(Activation, call)

    @Verb
    async def activate_all(self, versions: Mapping[str, int]) -> Activations:
        """Puts versions of several tables in force, all of them or none."""
        call = _change(
            "POST",
            f"{_ADMIN}/activate",
            {"tables": {table: whole(version, "version") for table, version in versions.items()}},
        )
        return await self._caller.value(Activations, call)

    @Verb
    async def rollback(self, table: str) -> Activation:
        """Activates the version before; twice swaps back. Raises Conflict where there is none."""
        return await self._caller.value(Activation, Call("POST", f"{_of(table)}/rollback", "admin"))

    @Verb
    async def label(self, table: str, label: str, version: int) -> Label:
        """Makes `label` name a version, which must verify and load."""
        target = f"{_of(table)}/labels/{name_of(label, 'label')}"
        call = _change("PUT", target, {"version": whole(version, "version")})._replace(kind="admin again")
        return await self._caller.value(Label, call)

    @Verb
    async def delete_label(self, table: str, label: str) -> None:
        """Forgets a label; raises LabelNotFound."""
        await self._caller.ask(Call("DELETE", f"{_of(table)}/labels/{name_of(label, 'label')}", "admin"))

    @Verb
    async def delete_version(self, table: str, version: int) -> None:
        """Deletes a version; raises Conflict while it is active or labelled, VersionNotFound."""
        await self._caller.ask(Call("DELETE", f"{_of(table)}/versions/{whole(version, 'version')}", "admin"))

    @Verb
    async def prune(self, table: str, *, keep: int = 2, older_than_days: float = 0.0) -> Pruned:
        """Deletes all but the newest versions, and what killed processes left.

        Those that are active, that were before, or that have a label stay.
        """
        body = {"keep": whole(keep, "keep"), "older_than_days": float(older_than_days)}
        return await self._caller.value(Pruned, _change("POST", f"{_of(table)}/prune", body))

    @Verb
    async def admin_table(self, table: str) -> TableDetail:
        """A table's versions, labels and history, and what every worker serves."""
        return await self._caller.value(TableDetail, Call("GET", _of(table), "admin read"))

    @Verb
    async def admin_tables(self) -> list[TableLine]:
        """All tables of the store, and what every worker serves."""
        return await self._caller.values(TableLine, Call("GET", f"{_ADMIN}/tables", "admin read"), "tables")


def _of(table: str) -> str:
    return f"{_ADMIN}/tables/{name_of(table, 'table')}"


def _versions(table: str, query: Mapping[str, object]) -> str:
    return f"{_of(table)}/versions?{urlencode({name: text_of(value) for name, value in query.items()})}"


def _change(method: str, target: str, body: Mapping[str, object]) -> Call:
    return Call(method, target, "admin", json.dumps(body).encode(), JSON)
