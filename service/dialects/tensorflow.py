"""TensorFlow Serving's REST API: `:predict` and the status of a model.

Source: "RESTful API" of TensorFlow Serving. A table answers as a Keras model of one `Embedding` layer does: ids in,
`W[ids]` out, with the names that the client's model had.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from service.api.answer import Answer, Stream
from service.api.dialect import Call, Dialect, Route
from service.api.json_body import JsonBody, as_object, read_fields
from service.api.json_text import JsonText
from service.api.lookup import Address, version_of
from service.api.media import JSON
from service.api.nested import MAX_AXES, json_type
from service.api.options import DEFAULT_SCALARS
from service.api.served import Served
from service.api.sizes import check_size
from service.api.turns import Turns
from service.api.vectors import find, find_in_turns, is_large
from service.dialects.models import model_routes, version_status
from service.dialects.problems import described, json_answer, status_of
from service.errors import InvalidRequest, LabelNotFound, ServiceError, VersionNotFound
from service.table import EmbeddingTable
from service.types import LookupRequest

COUNTED: Final = "tensorflow_predict"
_FIELDS: Final = frozenset({"signature_name", "instances", "inputs"})
_OURS: Final = frozenset({"ids", "tokens", "mask", "weights"})
_STATUS: Final = {406: 400, 409: 400, 415: 400, 422: 400}
_SCHEMA: Final = {
    "type": "object",
    "properties": {"signature_name": {"type": "string"}, "instances": {"type": "array"}, "inputs": {}},
    "examples": [{"instances": [[5, 1, 0], [7, 2, 3]]}],
}
_BASE: Final = "/v1/models/{table}"


def dialect(served: Served) -> Dialect:
    """The protocol over what is served."""

    async def predict(call: Call) -> Answer:
        return await _predict(served, call)

    async def status(call: Call) -> Answer:
        return await _status(served, call)

    async def metadata(call: Call) -> Answer:
        return json_answer(_metadata(await _table(served, call)))

    places = {"": "", "/versions/{version}": "_version", "/labels/{label}": "_label"}
    predictions = [
        Route(
            "POST",
            f"{_BASE}{place}:predict",
            predict,
            "Rows of ids or tokens, as a Keras Embedding gives them",
            f"predict{name}",
            COUNTED,
            _SCHEMA,
        )
        for place, name in places.items()
    ]
    states = [
        Route("GET", f"{_BASE}{place}", status, "State of a version", f"status{name}")
        for place, name in places.items()
        if place
    ]
    signatures = [
        Route("GET", f"{_BASE}{place}/metadata", metadata, "Signature of a table", f"metadata{name}")
        for place, name in places.items()
    ]
    routes = [*predictions, *model_routes(served), *states, *signatures]
    return Dialect("tensorflow", "TensorFlow Serving", routes, problem)


def problem(error: ServiceError) -> Answer:
    """The answer to an error."""
    return json_answer({"error": described(error)}, status_of(error, _STATUS), error)


async def _table(served: Served, call: Call) -> EmbeddingTable:
    address = _address(call)
    if address.kind is None:
        return served.registry.get(call.table)
    target = address.target()
    return (await served.opened.resolve([target], served.registry.entries))[target]


def _address(call: Call) -> Address:
    for kind, name in (("versions", "version"), ("labels", "label")):
        if name in call.names:
            return Address(call.table, kind, call.names[name])
    return Address(call.table)


# Predictions


class Question(NamedTuple):
    """What is asked, and the name under which it is answered: by row (`instances`) or by column (`inputs`)."""

    request: LookupRequest
    answered_as: str


async def _predict(served: Served, call: Call) -> Answer:
    served.registry.entry(call.table)
    body = JsonBody(await call.body(served.limits.max_body_bytes))
    table = await _table(served, call)
    asked = _read(body, served)
    numbers, _ = check_size(table, asked.request, JSON, DEFAULT_SCALARS, served.limits)
    text = JsonText(served.limits)
    text.write([b'{"%b":' % asked.answered_as.encode()])
    if is_large(table, asked.request, numbers, text=True):
        await Turns().begin()
        vectors = await find_in_turns(table, asked.request)
        await text.write_in_turns(vectors.nested_text())
        text.write([b"}"])
        answer = Answer(200, _HEADERS, Stream(text.size, iter(text.pieces)))
    else:
        text.write(find(table, asked.request).nested_text())
        text.write([b"}"])
        answer = Answer(200, _HEADERS, tuple(text.pieces))
    served.counters.add("embedding_ids", (table.identity.name,), asked.request.batch.layout.total)
    return answer


_HEADERS: Final = ((b"content-type", JSON.encode()),)


def _read(body: JsonBody, served: Served) -> Question:
    fields = as_object(body.value, _FIELDS, "the body")
    if ("instances" in fields) == ("inputs" in fields):
        raise InvalidRequest("either instances or inputs must be given, and not both", field="instances")
    signature = fields.get("signature_name", "serving_default")
    if not isinstance(signature, str):
        raise InvalidRequest(f"signature_name must be a string, not {json_type(signature)}", field="signature_name")
    place = "instances" if "instances" in fields else "inputs"
    arrange = _by_row if place == "instances" else _by_column
    named = arrange(fields[place], place)
    request, _ = read_fields(
        {name: _whole(value) for name, value in named.items()},
        lambda: _exact(arrange(body.exact[place], place)),
        served.limits,
    )
    return Question(request, "predictions" if place == "instances" else "outputs")


def _exact(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _whole(value) for name, value in named.items()}


def _by_row(instances: object, place: str) -> dict[str, Any]:
    """Values of the one input, or objects with the inputs by their names, as inputs by their names."""
    if not isinstance(instances, list):
        raise InvalidRequest(f"{place} must be an array, not {json_type(instances)}", field=place)
    if not any(isinstance(instance, dict) for instance in instances):
        return {_kind(instances): instances}
    first = instances[0]
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict) or not isinstance(first, dict) or instance.keys() != first.keys():
            where = f"{place}[{index}]"
            raise InvalidRequest(f"{where} does not have the inputs of {place}[0]", field=where)
    return _named({name: [instance[name] for instance in instances] for name in first}, place)


def _by_column(inputs: object, place: str) -> dict[str, Any]:
    if isinstance(inputs, dict):
        return _named(inputs, place)
    if not isinstance(inputs, list):
        raise InvalidRequest(f"{place} must be an array or an object, not {json_type(inputs)}", field=place)
    return {_kind(inputs): inputs}


def _named(inputs: Mapping[str, Any], place: str) -> dict[str, Any]:
    """One input may have any name, which was the Keras model's; several have those of the contract."""
    if "b64" in inputs:
        raise InvalidRequest(f"{place}: values in base64 are not taken", field=place)
    if len(inputs) == 1:
        ((name, value),) = inputs.items()
        return {name: value} if name in ("ids", "tokens") else {_kind(value): value}
    unknown = [name for name in inputs if name not in _OURS]
    if unknown:
        raise InvalidRequest(
            f"unknown input {unknown[0]!r}; one may have any name, of several there are {', '.join(sorted(_OURS))}",
            field=place,
        )
    return dict(inputs)


def _kind(value: object) -> str:
    """Whether the first element is a string, and so all are tokens."""
    while isinstance(value, list) and value:
        value = value[0]
    return "tokens" if isinstance(value, str) else "ids"


def _whole(value: Any, depth: int = 0) -> Any:  # noqa: ANN401  (JSON)
    """With whole numbers that are written as fractions as integers: Keras' inputs are of floats by default.

    What is nested deeper than ids may be is left to who refuses it.
    """
    if isinstance(value, list):
        return [_whole(element, depth + 1) for element in value] if _has_floats(value, depth) else value
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT else value


_EXACT: Final = 2.0**53


def _has_floats(value: list[Any], depth: int) -> bool:
    if depth > MAX_AXES:
        return False
    kinds = set(map(type, value))
    if float in kinds:
        return True
    return list in kinds and any(_has_floats(each, depth + 1) for each in value if isinstance(each, list))


# What is said of a table


async def _status(served: Served, call: Call) -> Answer:
    entry = served.registry.entry(call.table)
    address = _address(call)
    target = address.target()
    if target.label is not None:
        labels = await asyncio.to_thread(served.store.labels, call.table)
        if target.label not in labels:
            raise LabelNotFound(call.table, target.label)
        number = labels[target.label]
    else:
        number = version_of(call.table, call.names["version"])
        if number not in await asyncio.to_thread(served.store.versions, call.table):
            raise VersionNotFound(call.table, number)
    return json_answer(version_status(entry, number))


def _metadata(table: EmbeddingTable) -> dict[str, Any]:
    """GetModelMetadataResponse, with one signature."""
    signature = {
        "inputs": {"ids": _tensor("DT_INT64", "ids:0", [-1, -1])},
        "outputs": {"vectors": _tensor("DT_FLOAT", "vectors:0", [-1, -1, table.embedding_dim])},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {
            "name": table.identity.name,
            "signature_name": "",
            "version": str(table.identity.version),
        },
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


def _tensor(dtype: str, name: str, shape: list[int]) -> dict[str, Any]:
    dims = [{"size": str(axis), "name": ""} for axis in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}
