"""The shapes of requests and answers for the documentation, and the models of the small answers.

Lookup bodies are not validated through these: `json_body.py` does that, many times faster. A test holds both to
the same fields.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.api.options import Encoding
from service.registry import TableState
from service.types import Masked, OovRule, Pooling, Side, Truncation, VectorDtype

Ids = list[Any]
_NESTED = "one sequence, a batch of sequences (ragged allowed), or deeper rectangular nesting"


class LookupBody(BaseModel):
    """What to look up, and how vectors are made of the rows. Either `ids` or `tokens`."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[
        list[int] | list[list[int]] | Ids,
        Field(description=f"Token ids, integers: {_NESTED}.", examples=[[5, 1, 2, 3, 6]]),
    ]
    tokens: Annotated[
        list[str] | list[list[str]] | Ids,
        Field(description=f"Tokens instead of ids, where the table has a vocabulary: {_NESTED}."),
    ]
    mask: Annotated[
        Ids, Field(description="Booleans or 0/1 in the shape of the ids; takes the place of the derived mask.")
    ]
    weights: Annotated[
        Ids,
        Field(description="A finite number >= 0 per position, with pooling `sum`, `mean` or `sqrtn`."),
    ]
    length: Annotated[int, Field(ge=1, description="Pad or cut each sequence to this many positions.")]
    padding: Annotated[Side, Field(description="Where short sequences are padded.")] = "post"
    truncation: Annotated[Truncation, Field(description="Where long sequences are cut, or that they are refused.")] = (
        "error"
    )
    on_oov: Annotated[
        OovRule,
        Field(
            description="What an id outside the table gives: an error, zeros, the row `unk_id`, or zeros that are "
            "masked. Default: the table's own rule."
        ),
    ]
    masked: Annotated[Masked, Field(description="Keep masked rows as stored, or make them zero.")] = "keep"
    pooling: Annotated[
        Pooling, Field(description="Combine the unmasked positions of each sequence into one vector.")
    ] = "none"
    normalize: Annotated[bool, Field(description="L2-normalise each vector, after pooling.")] = False
    flatten: Annotated[bool, Field(description="Merge the last id axis with the vector axis.")] = False
    dtype: Annotated[VectorDtype, Field(description="Of the answer.")] = "float32"
    encoding: Annotated[
        Encoding, Field(description="How JSON carries vectors: numbers, or base64 of little-endian bytes.")
    ] = "float"


class LookupItem(LookupBody):
    """One lookup of several: a table, optionally one of its versions, and what to look up."""

    table: str
    version: Annotated[int, Field(ge=1)]
    label: str


class MultiLookupBody(BaseModel):
    """Several lookups, answered from one snapshot of all tables: all of them or none."""

    model_config = ConfigDict(extra="forbid")

    lookups: list[LookupItem]


class LookupAnswer(BaseModel):
    """The vectors and the mask. `mask` is left out of pooled answers."""

    table: str
    version: int
    shape: list[int]
    dtype: VectorDtype
    vectors: Annotated[Ids | str, Field(description="Nested numbers, or with `encoding` base64 a string.")]
    mask: Annotated[Ids, Field(default_factory=list, description="False where the position is padding.")]


class MultiLookupAnswer(BaseModel):
    """One answer per lookup, in their order."""

    results: list[LookupAnswer]


class Problem(BaseModel):
    """RFC 9457 problem details; some codes add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str


class OovEntry(BaseModel):
    """One id or token outside the table, where it was sent."""

    index: list[int]
    id: Annotated[int, Field(default_factory=int)]
    token: Annotated[str, Field(default_factory=str)]


class OutOfVocabularyProblem(Problem):
    """Ids or tokens outside the table: the first 100 of `total`."""

    table: str
    version: int
    num_embeddings: int
    total: int
    errors: list[OovEntry]


class TableInfo(BaseModel):
    """A table, or one version of it, as this server knows it. Unknown numbers of an unreadable one are null."""

    name: str
    version: int | None
    active_version: int | None
    num_embeddings: int | None = None
    embedding_dim: int | None = None
    dtype: str | None = None
    padding_id: int | None = None
    unk_id: int | None = None
    on_oov: OovRule | None = None
    has_vocabulary: bool | None = None
    backend: str
    state: TableState
    reason: str | None = None
    source: dict[str, JsonValue] | None = None


class TableList(BaseModel):
    """Every table of the store."""

    tables: list[TableInfo]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class MissingTable(BaseModel):
    """A table that should be served and is not."""

    table: str
    state: TableState
    reason: str | None


class Readiness(BaseModel):
    """Whether every table with an active version is served, and which are not."""

    status: Literal["ready", "not_ready"]
    missing: list[MissingTable]
