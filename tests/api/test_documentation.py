"""`/docs` and `/openapi.json` say what the server does, and need nothing from outside."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service import errors
from service.api import json_body, multi_lookup
from service.api.errors import KINDS
from service.api.options import SCALAR_FIELDS
from service.api.schemas import LookupBody, LookupItem, MultiLookupBody
from service.errors import ServiceError
from tests.api.samples import CONTRACT
from tests.api.wire import JSON, NPY, NPZ, OCTETS, PROBLEM

SINGLE = (
    "/v1/tables/{table}/lookup",
    "/v1/tables/{table}/versions/{version}/lookup",
    "/v1/tables/{table}/labels/{label}/lookup",
)
LOOKUPS = (*SINGLE, "/v1/lookup")
ROUTES = {
    *LOOKUPS,
    "/v1/tables",
    "/v1/tables/{table}",
    "/v1/tables/{table}/versions/{version}",
    "/health/live",
    "/health/ready",
    "/metrics",
}


@pytest.fixture
def openapi(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    content: dict[str, Any] = answer.json()
    return content


def below(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from below(item)
    elif isinstance(value, list):
        for item in value:
            yield from below(item)


def resolve(openapi: dict[str, Any], reference: str) -> dict[str, Any]:
    assert reference.startswith("#/")
    value: Any = openapi
    for part in reference[2:].split("/"):
        value = value[part.replace("~1", "/").replace("~0", "~")]
    assert isinstance(value, dict)
    return value


# The page


def test_the_docs_page_loads_nothing_from_outside(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", answer.text) == []


def test_everything_that_the_docs_page_loads_is_served(client: httpx.Client) -> None:
    page = client.get("/docs").text
    loaded = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page)
    addresses = [address or other for address, other in loaded]
    assert len(addresses) >= 4
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert len(answer.content) > 100


# The description


def test_it_is_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert openapi["openapi"].startswith("3.1.")
    assert openapi["info"]["title"]
    assert openapi["info"]["version"]
    assert set(openapi) <= {"openapi", "info", "paths", "components", "servers", "tags", "security", "externalDocs"}


def test_every_reference_resolves(openapi: dict[str, Any]) -> None:
    references = [part["$ref"] for part in below(openapi) if isinstance(part.get("$ref"), str)]
    assert references
    for reference in references:
        resolve(openapi, reference)


def test_every_route_is_described(openapi: dict[str, Any]) -> None:
    assert set(openapi["paths"]) >= ROUTES


def test_operation_ids_are_unique(openapi: dict[str, Any]) -> None:
    ids = [operation["operationId"] for path in openapi["paths"].values() for operation in path.values()]
    assert len(set(ids)) == len(ids)


def test_every_operation_has_a_summary_and_answers_with_descriptions(openapi: dict[str, Any]) -> None:
    for path in openapi["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["responses"]
            for status, answer in operation["responses"].items():
                assert re.fullmatch(r"[1-5][0-9]{2}|default", status)
                assert answer["description"]


def test_every_parameter_of_a_path_is_declared_once(openapi: dict[str, Any]) -> None:
    for path, operations in openapi["paths"].items():
        for operation in operations.values():
            declared = [(found["in"], found["name"]) for found in operation.get("parameters", [])]
            assert len(set(declared)) == len(declared)
            in_path = {name for place, name in declared if place == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(p["required"] is True for p in operation.get("parameters", []) if p["in"] == "path")


@pytest.mark.parametrize(
    ("route", "media"),
    [*((path, {JSON, OCTETS, NPY, NPZ}) for path in SINGLE), ("/v1/lookup", {JSON})],
)
def test_a_lookup_is_described_with_all_its_media_types(openapi: dict[str, Any], route: str, media: set[str]) -> None:
    operation = openapi["paths"][route]["post"]
    assert set(operation["requestBody"]["content"]) == media
    assert set(operation["responses"]["200"]["content"]) == media


@pytest.mark.parametrize("route", LOOKUPS)
def test_a_lookup_is_described_with_its_error_statuses(openapi: dict[str, Any], route: str) -> None:
    responses = openapi["paths"][route]["post"]["responses"]
    assert set(responses) >= {"200", "400", "404", "406", "413", "415", "422", "503"}


@pytest.mark.parametrize("route", LOOKUPS)
def test_the_errors_of_a_lookup_are_described_under_the_status_of_their_code(
    openapi: dict[str, Any], route: str
) -> None:
    responses = openapi["paths"][route]["post"]["responses"]
    for status, answer in responses.items():
        for code in set(re.findall(r"`(\w+)`", answer["description"])) & set(CONTRACT):
            assert CONTRACT[code] == int(status)
    of_422 = {code for code, status in CONTRACT.items() if status == 422}
    assert set(re.findall(r"`(\w+)`", responses["422"]["description"])) >= of_422


@pytest.mark.parametrize("route", LOOKUPS)
def test_errors_are_described_with_the_media_type_that_they_have(openapi: dict[str, Any], route: str) -> None:
    responses = openapi["paths"][route]["post"]["responses"]
    errors_of = {status: set(answer["content"]) for status, answer in responses.items() if status >= "400"}
    assert {status: media for status, media in errors_of.items() if media != {PROBLEM}} == {}


@pytest.mark.parametrize("route", SINGLE)
def test_the_headers_and_query_parameters_of_a_lookup_are_described(openapi: dict[str, Any], route: str) -> None:
    operation = openapi["paths"][route]["post"]
    headers = {"Embedding-Table", "Embedding-Version", "Embedding-Shape", "Embedding-Dtype"}
    assert set(operation["responses"]["200"]["headers"]) == headers
    in_query = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
    assert in_query == SCALAR_FIELDS | {"ids_dtype", "shape"}


def test_several_lookups_take_no_query_parameters(openapi: dict[str, Any]) -> None:
    operation = openapi["paths"]["/v1/lookup"]["post"]
    assert [p for p in operation.get("parameters", []) if p["in"] == "query"] == []


@pytest.mark.parametrize("route", LOOKUPS)
def test_the_examples_of_a_lookup_have_documented_fields_only(openapi: dict[str, Any], route: str) -> None:
    content = openapi["paths"][route]["post"]["requestBody"]["content"][JSON]
    assert content["examples"]
    for example in content["examples"].values():
        assert set(example["value"]) <= set(content["schema"]["properties"])


# What is described against what is done


def schema_of(openapi: dict[str, Any], route: str, status: str, media: str) -> dict[str, Any]:
    schema: dict[str, Any] = openapi["paths"][route]["post"]["responses"][status]["content"][media]["schema"]
    return resolve(openapi, schema["$ref"]) if "$ref" in schema else schema


@pytest.mark.parametrize(
    "body", [{"ids": [5]}, {"ids": [5], "pooling": "sum"}], ids=["with a mask", "pooled, without a mask"]
)
def test_an_answer_has_every_field_that_is_described_as_required(
    client: httpx.Client, openapi: dict[str, Any], body: dict[str, object]
) -> None:
    schema = schema_of(openapi, SINGLE[0], "200", JSON)
    answer = client.post("/v1/tables/padded/lookup", json=body).json()
    assert set(schema["required"]) <= set(answer) <= set(schema["properties"])


@pytest.mark.parametrize("body", [{"ids": [9]}, {"tokens": ["zzz"]}], ids=["ids", "tokens"])
def test_an_error_entry_has_every_field_that_is_described_as_required(
    client: httpx.Client, openapi: dict[str, Any], body: dict[str, object]
) -> None:
    problem = client.post("/v1/tables/padded/lookup", json=body).json()
    answers = openapi["paths"]["/v1/tables/{table}/lookup"]["post"]["responses"]
    oov, _ = answers["422"]["content"]["application/problem+json"]["schema"]["anyOf"]
    described = oov["properties"]["errors"]["items"]
    (entry,) = problem["errors"]
    assert set(described.get("required", [])) <= set(entry) <= set(described["properties"])


def test_the_documented_fields_are_those_that_the_parser_takes() -> None:
    assert set(LookupBody.model_fields) == json_body._LOOKUP_FIELDS
    assert set(LookupItem.model_fields) == multi_lookup._ITEM_FIELDS
    assert set(MultiLookupBody.model_fields) == {"lookups"}


@pytest.mark.parametrize("name", sorted(LookupBody.model_fields))
def test_a_documented_field_is_not_unknown_to_the_server(client: httpx.Client, name: str) -> None:
    problem = client.post("/v1/tables/padded/lookup", json={"ids": [5], name: {"wrong": True}}).json()
    assert problem["code"] == "invalid_request"
    assert "unknown" not in problem["detail"]


@pytest.mark.parametrize("name", sorted(SCALAR_FIELDS))
def test_the_choices_in_the_description_are_those_of_the_server(
    client: httpx.Client, openapi: dict[str, Any], name: str
) -> None:
    schema = openapi["paths"][SINGLE[0]]["post"]["requestBody"]["content"][JSON]["schema"]["properties"][name]
    base: dict[str, object] = {"ids": [5]}
    for choice in schema.get("enum", []):
        answer = client.post("/v1/tables/padded/lookup", json={**base, name: choice})
        assert answer.status_code == 200, answer.text
    if "default" in schema:
        with_default = client.post("/v1/tables/padded/lookup", json={**base, name: schema["default"]})
        assert with_default.content == client.post("/v1/tables/padded/lookup", json=base).content


# Codes


def test_codes_and_statuses_are_those_of_the_contract() -> None:
    assert {code: kind.status for code, kind in KINDS.items()} == CONTRACT


def test_every_error_has_a_code_that_has_a_status() -> None:
    raised = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError)}
    assert {kind.code for kind in raised} <= set(KINDS)


def test_every_code_of_an_http_error_is_of_one_error() -> None:
    shared = {"internal", "invalid_request", "conflict", "insufficient_storage"}  # errors of files and of the store
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError)]
    codes = [kind.code for kind in raised if kind.code not in shared]
    assert len(set(codes)) == len(codes)


def test_titles_tell_codes_apart() -> None:
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
