"""The lookup routes for OpenAPI, in full: they are served outside FastAPI's routing and it cannot derive them."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from service.api.errors import KINDS
from service.api.media import NPY, NPZ, OCTETS
from service.api.options import SCALAR_FIELDS
from service.api.schemas import (
    LookupAnswer,
    LookupBody,
    MultiLookupAnswer,
    MultiLookupBody,
    OutOfVocabularyProblem,
    Problem,
)

DESCRIPTION: Final = """
Serves trained embedding tables: token ids (or tokens) in, vectors and masks out, with Keras `Embedding` semantics.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. An id outside the table is named with its
position.
"""

_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_TARGETS: Final = {
    "table": "Name of the table.",
    "version": "One of its versions, a positive integer.",
    "label": "One of its labels.",
}
_HEADERS: Final[dict[str, Any]] = {
    "Embedding-Table": {"description": "The table.", "schema": {"type": "string"}},
    "Embedding-Version": {"description": "The version that all rows are from.", "schema": {"type": "integer"}},
    "Embedding-Shape": {"description": "Shape of the vectors, like 32,64,128.", "schema": {"type": "string"}},
    "Embedding-Dtype": {"description": "dtype of the vectors.", "schema": {"type": "string"}},
}
_CODES: Final = {
    400: ("invalid_json",),
    404: ("table_not_found", "version_not_found", "label_not_found"),
    406: ("not_acceptable",),
    413: ("request_too_large",),
    415: ("unsupported_media_type",),
    503: ("not_ready",),
}


@dataclass(frozen=True, slots=True)
class Documentation:
    """One kind of lookup route: the models of its JSON, and whether it speaks the binary forms too."""

    body: type[BaseModel]
    answer: type[BaseModel]
    binary: bool
    examples: dict[str, Any]

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """All answers, by status."""
        answers: dict[int | str, dict[str, Any]] = {
            status: {
                "model": Problem,
                "description": "; ".join(f"`{code}`: {KINDS[code].title.lower()}" for code in codes),
            }
            for status, codes in _CODES.items()
        }
        answers[422] = {
            "model": OutOfVocabularyProblem | Problem,
            "description": "; ".join(
                f"`{code}`: {kind.title.lower()}" for code, kind in KINDS.items() if kind.status == 422
            ),
        }
        answers[200] = {"model": self.answer, "description": "The vectors and the mask."}
        if self.binary:
            answers[200] |= {"headers": _HEADERS, "content": dict.fromkeys((OCTETS, NPY, NPZ), _BINARY)}
        return answers

    def operation(self, path: str) -> dict[str, Any]:
        """What OpenAPI says of the request at `path`."""
        content: dict[str, Any] = {"application/json": {"schema": _inline(self.body), "examples": self.examples}}
        if self.binary:
            content |= dict.fromkeys((OCTETS, NPY, NPZ), _BINARY)
        parameters = [
            {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in _TARGETS.items()
            if f"{{{name}}}" in path
        ]
        return {
            "requestBody": {"required": True, "content": content},
            "parameters": parameters + (_query() if self.binary else []),
        }


def _query() -> list[dict[str, Any]]:
    """The scalar fields once more, as query parameters of binary requests."""
    properties = _inline(LookupBody)["properties"]
    named = {name: properties[name] for name in LookupBody.model_fields if name in SCALAR_FIELDS}
    named["ids_dtype"] = {
        "type": "string",
        "enum": ["int64", "int32"],
        "default": "int64",
        "description": f"Of the ids in an {OCTETS} body.",
    }
    named["shape"] = {"type": "string", "description": f"Of the ids in an {OCTETS} body, like 32,64."}
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"Binary requests: {schema.get('description', '')}",
            "schema": {key: value for key, value in schema.items() if key not in ("description", "title")},
        }
        for name, schema in named.items()
    ]


def _inline(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema without the requirements of a model: all fields are optional, `ids` or `tokens` is not."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for part in (schema, *schema.pop("$defs", {}).values()):
        if "ids" in part.get("properties", {}):
            part["required"] = ["table"] if "table" in part["properties"] else []
            part["oneOf"] = [{"required": ["ids"]}, {"required": ["tokens"]}]
        if part is not schema:
            schema["properties"]["lookups"]["items"] = part
    return schema


LOOKUP: Final = Documentation(
    LookupBody,
    LookupAnswer,
    binary=True,
    examples={
        "a sequence of ids": {"value": {"ids": [5, 1, 2, 3, 6]}},
        "a ragged batch of tokens, mean-pooled": {
            "value": {"tokens": [["hope", "to", "see", "you"], ["nice"]], "pooling": "mean"}
        },
        "padded to a length": {"value": {"ids": [[1, 3, 2]], "length": 7}},
    },
)
MULTI_LOOKUP: Final = Documentation(
    MultiLookupBody,
    MultiLookupAnswer,
    binary=False,
    examples={
        "two tables": {"value": {"lookups": [{"table": "user", "ids": [7]}, {"table": "item", "ids": [[3, 1], [2]]}]}}
    },
)
