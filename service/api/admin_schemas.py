"""The shapes of requests and answers of the admin API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.importers.options import Missing
from service.manifest import TextPooling
from service.registry import TableState
from service.types import OovRule, RowDtype

Version = Annotated[int, Field(ge=1)]
_FORM = ConfigDict(extra="forbid", strict=True)


class ActivateBody(BaseModel):
    """Which version is to be served."""

    model_config = _FORM

    version: Version


class ActivateAllBody(BaseModel):
    """Which versions are to be served: all of them, or none."""

    model_config = _FORM

    tables: Annotated[dict[str, Version], Field(examples=[{"user": 7, "item": 7}])]


class LabelBody(BaseModel):
    """The version that the label names from now on."""

    model_config = _FORM

    version: Version


class PruneBody(BaseModel):
    """How many of the newest versions stay, and how old others must be to go."""

    model_config = _FORM

    keep: Annotated[int, Field(ge=0)] = 2
    older_than_days: Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)] = 0.0


class SourceBody(BaseModel):
    """A file or a model's folder below the folder that the operator has allowed (`EMBEDDING_IMPORT_FOLDER`)."""

    model_config = _FORM

    source: Annotated[str, Field(min_length=1)]


class UploadQuery(BaseModel):
    """How a file is read: the options of the command `import`, by their names with `_` for `-`."""

    model_config = ConfigDict(extra="forbid")

    activate: Annotated[bool, Field(description="Serve the new version, in all workers or none.")] = False
    format: Annotated[str | None, Field(description="The format of the file; told by its content without it.")] = None
    file: Annotated[
        str | None, Field(description="The name of the file; of a tar, the file or folder in it that has the table.")
    ] = None
    tensor: Annotated[str | None, Field(description="Which array of several.")] = None
    rows: Annotated[int | None, Field(ge=1, description="Only the first so many rows.")] = None
    transpose: Annotated[bool, Field(description="The matrix is dimension x vocabulary.")] = False
    vocabulary: Annotated[
        str | None, Field(description="The file of the tar or folder that has the token of every row.")
    ] = None
    token_column: Annotated[str | None, Field(description="The column of tokens, of CSV or Parquet.")] = None
    select: Annotated[
        str | None, Field(description="The file of the tar or folder with a word list: a row for each word.")
    ] = None
    missing: Annotated[Missing, Field(description="What a word of `select` without a row gets.")] = "error"
    normalize: Annotated[bool, Field(description="Scale every row to an L2 norm of 1.")] = False
    max_norm: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Scale rows of a larger L2 norm down to this one.")
    ] = None
    padding_id: Annotated[int | None, Field(ge=0, description="Row of the padding token.")] = None
    unk_id: Annotated[int | None, Field(ge=0, description="Row of the unknown token.")] = None
    on_oov: Annotated[OovRule, Field(description="The rule for ids outside the table.")] = "error"
    dtype: Annotated[RowDtype, Field(description="What rows are stored as.")] = "float32"
    tokenizer: Annotated[
        str | None, Field(description="The file of the tar or folder that is a tokenizer.json for texts.")
    ] = None
    pooling: Annotated[TextPooling | None, Field(description="How rows become the vector of a text.")] = None
    normalize_texts: Annotated[bool, Field(description="Scale the vector of a text to an L2 norm of 1.")] = False
    note: Annotated[str | None, Field(description="Origin or licence, kept with the version.")] = None


class Published(BaseModel):
    """The new version."""

    table: str
    version: int
    active: bool


class ActivatedTable(BaseModel):
    """Which version was served before, and which is now."""

    table: str
    previous_version: int | None
    active_version: int


class Activation(ActivatedTable):
    """And in how many workers, after how many seconds."""

    workers: int
    seconds: float


class Activations(BaseModel):
    """What was activated together."""

    tables: list[ActivatedTable]
    workers: int
    seconds: float


class Label(BaseModel):
    """What the label names."""

    table: str
    label: str
    version: int


class PrunedVersions(BaseModel):
    """The versions that were removed, and the names of what killed processes had left."""

    table: str
    removed: list[int]
    unfinished: list[str]


class WorkerInfo(BaseModel):
    """What one worker serves of the table; `process` is null for one that does not answer."""

    worker: int
    process: int | None
    state: TableState
    version: int | None
    reason: str | None


class VersionSummary(BaseModel):
    """One version on disk; the other fields are null where its manifest cannot be read, for `reason`."""

    version: int
    active: bool
    labels: list[str]
    num_embeddings: int | None = None
    embedding_dim: int | None = None
    dtype: str | None = None
    has_vocabulary: bool | None = None
    bytes: int | None = None
    created: str | None = None
    source: dict[str, Any] | None = None
    reason: str | None = None


class HistoryEvent(BaseModel):
    """An activation of `version` in the place of `previous_version`, or a deletion of `version`."""

    event: Literal["activation", "deletion", "unloading"]
    version: int
    previous_version: int | None
    time: str
    by: str


class TableDetail(BaseModel):
    """One table: on disk, and in every worker."""

    table: str
    active_version: int | None
    versions: list[VersionSummary]
    labels: dict[str, int]
    history: list[HistoryEvent]
    workers: list[WorkerInfo]


class TableLine(BaseModel):
    """One table of several; `reason` says why the store's files of it cannot be read."""

    table: str
    active_version: int | None
    versions: list[int]
    labels: dict[str, int]
    workers: list[WorkerInfo]
    reason: str | None = None


class TableLines(BaseModel):
    """All tables of the store."""

    tables: list[TableLine]
