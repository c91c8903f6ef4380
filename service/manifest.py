"""What a version folder says of itself: `manifest.json`, checked when read. Where it lies is the store's business."""

from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from service.types import OovRule, RowDtype

FORMAT: Final = 1
"""The format of the store that this code writes; it reads this one only."""


class FileRecord(BaseModel):
    """The length and the SHA-256 (hexadecimal) of one file of the version."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Rounding(BaseModel):
    """How far stored rows are from those that were published, measured over all of them.

    The errors are absolute, of single numbers; `mean_cosine` is between a row as it came and as it is stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_abs_error: Annotated[float, Field(ge=0)]
    mean_abs_error: Annotated[float, Field(ge=0)]
    mean_cosine: float


TextPooling: TypeAlias = Literal["mean", "sum", "max", "sqrtn"]


class TextSettings(BaseModel):
    """How a vector is made of a text, beyond the tokenizer and the weights of its tokens.

    The text, cut to `max_characters` and behind `prompt`, is tokenised without special tokens, cut to `max_tokens`;
    the ids in `dropped_ids` are left out. The vector is the mean of the rows (each times its weight) or another
    `pooling` of them, zeros for no row, then L2-normalised if `normalize`, then cut to its first `dimensions` numbers.
    With the tokenizer `whitespace` the tokens are those of the vocabulary, as they stand between white space.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    normalize: bool
    tokenizer: Literal["tokenizer.json", "whitespace"] = "tokenizer.json"
    pooling: TextPooling = "mean"
    prompt: str = ""
    max_characters: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    dropped_ids: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    dimensions: Annotated[int, Field(ge=1)] | None = None


class Manifest(BaseModel):
    """A version's shape, dtype, special rows, default rule, checksums and origin."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    num_embeddings: Annotated[int, Field(ge=1)]
    embedding_dim: Annotated[int, Field(ge=1)]
    dtype: RowDtype = "float32"
    rounding: Rounding | None = None
    padding_id: Annotated[int, Field(ge=0)] | None = None
    unk_id: Annotated[int, Field(ge=0)] | None = None
    on_oov: OovRule = "error"
    text: TextSettings | None = None
    no_text: str | None = None
    files: dict[str, FileRecord]
    source: dict[str, JsonValue] = Field(default_factory=dict)
    created: AwareDatetime

    @model_validator(mode="after")
    def _special_rows_exist(self) -> Self:
        for name, row in (("padding_id", self.padding_id), ("unk_id", self.unk_id)):
            if row is not None and row >= self.num_embeddings:
                raise ValueError(f"{name} {row} is not a row: the table has {self.num_embeddings}")
        if self.on_oov == "unk" and self.unk_id is None:
            raise ValueError("on_oov 'unk' needs an unk_id")
        return self

    def to_json(self) -> bytes:
        """The file's content: indented JSON with a final newline."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Reads the file's content; raises ValueError that names every field that is wrong."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ValueError(describe(error)) from None


def describe(error: ValidationError) -> str:
    """Pydantic's findings on one line: `field: what is wrong; field: …`."""
    return "; ".join(_finding(finding["loc"], finding["msg"]) for finding in error.errors())


def _finding(place: tuple[Any, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{'.'.join(str(part) for part in place)}: {message}" if place else message
