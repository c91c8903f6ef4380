"""The lookup routes for OpenAPI, in full: they are served outside FastAPI's routing and it cannot derive them."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from service.api.answer import PROBLEM
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
_CODES: Final = (
    "invalid_json",
    "table_not_found",
    "version_not_found",
    "label_not_found",
    "not_acceptable",
    "request_too_large",
    "unsupported_media_type",
    "invalid_request",
    "out_of_vocabulary",
    "no_vocabulary",
    "no_unknown_row",
    "not_representable",
    "not_ready",
)
Responses: TypeAlias = dict[int | str, dict[str, Any]]


def problems(*codes: str) -> Responses:
    """What OpenAPI says of these errors, by status."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {status: _problem(together) for status, together in by_status.items()}


def _problem(codes: list[str]) -> dict[str, Any]:
    schema = _problem_schema(OutOfVocabularyProblem if "out_of_vocabulary" in codes else Problem)
    if len(codes) > 1 and "out_of_vocabulary" in codes:
        schema = {"anyOf": [schema, _problem_schema(Problem)]}
    return {
        "description": "; ".join(f"`{code}`: {KINDS[code].title.lower()}" for code in codes),
        "content": {PROBLEM.decode(): {"schema": schema}},
    }


def _problem_schema(model: type[Problem]) -> dict[str, Any]:
    """The model's schema with the models in it written out: the router adds only those of its own `model`s."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    if "errors" in schema["properties"]:
        schema["properties"]["errors"]["items"] = definitions["OovEntry"]
    return schema


@dataclass(frozen=True, slots=True)
class Documentation:
    """One kind of lookup route: the models of its JSON, and whether it speaks the binary forms too."""

    body: type[BaseModel]
    answer: type[BaseModel]
    binary: bool
    examples: dict[str, Any]

    @property
    def responses(self) -> Responses:
        """All answers, by status."""
        good: dict[str, Any] = {"model": self.answer, "description": "The vectors and the mask."}
        if self.binary:
            good |= {"headers": _HEADERS, "content": dict.fromkeys((OCTETS, NPY, NPZ), _BINARY)}
        return {200: good, **problems(*_CODES)}

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
