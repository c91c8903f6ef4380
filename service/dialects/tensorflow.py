"""TensorFlow Serving's REST API: `:predict` and the status of a model.

Source: "RESTful API" of TensorFlow Serving. A table answers as a Keras model of one `Embedding` layer does: ids in,
`W[ids]` out, with the names that the client's model had.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from service.api.answer import Answer, Stream
from service.api.dialect import Call, Dialect, Route
from service.api.json_body import JsonBody, as_object, read_ids, read_tokens
from service.api.json_text import JsonText
from service.api.limits import Limits
from service.api.lookup import Address, version_of
from service.api.media import JSON
from service.api.nested import flatten, json_type
from service.api.options import DEFAULT_SCALARS
from service.api.served import Served
from service.api.sizes import check_size
from service.api.turns import Turns
from service.api.vectors import find, find_in_turns, is_large
from service.dialects.models import model_routes, version_status
from service.dialects.problems import described, json_answer, status_of
from service.errors import InvalidRequest, LabelNotFound, RouteNotFound, ServiceError, VersionNotFound
from service.table import EmbeddingTable
from service.types import IdBatch, LookupRequest, TokenBatch

COUNTED: Final = "tensorflow_predict"
_FIELDS: Final = frozenset({"signature_name", "instances", "inputs"})
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
    others = [
        Route("POST", f"{_BASE}{place}:{{verb}}", _other, "Other verbs, which there are not", f"verb{name}", alias=True)
        for place, name in places.items()
    ]
    signatures = [
        Route("GET", f"{_BASE}{place}/metadata", metadata, "Signature of a table", f"metadata{name}")
        for place, name in places.items()
    ]
    routes = [*predictions, *others, *model_routes(served), *states, *signatures]
    return Dialect("tensorflow", "TensorFlow Serving", routes, problem)


async def _other(call: Call) -> Answer:
    raise RouteNotFound(f"a table has no verb {call.names['verb']!r}; it has predict")


def problem(error: ServiceError) -> Answer:
    """The answer to an error."""
    return json_answer({"error": described(error)}, status_of(error, _STATUS), error)


async def _table(served: Served, call: Call) -> EmbeddingTable:
    return await served.table(_address(call).target())


def _address(call: Call) -> Address:
    for kind, name in (("versions", "version"), ("labels", "label")):
        if name in call.names:
            return Address(call.table, kind, call.names[name])
    return Address(call.table)


# Predictions


class Question(NamedTuple):
    """What is asked, and how it is answered: by row (`instances`) or by column (`inputs`), perhaps for one id alone."""

    request: LookupRequest
    answered_as: str
    is_scalar: bool


async def _predict(served: Served, call: Call) -> Answer:
    served.registry.entry(call.table)
    body = JsonBody(await call.body(served.limits.max_body_bytes))
    table = await _table(served, call)
    asked = _read(body, served.limits)
    numbers, _ = check_size(table, asked.request, JSON, DEFAULT_SCALARS, served.limits)
    large = is_large(table, asked.request, numbers, text=True)
    text = JsonText(served.limits)
    text.write([b'{"%b":' % asked.answered_as.encode()])
    if large:
        await Turns().begin()
        vectors = await find_in_turns(table, asked.request)
        await text.write_in_turns(vectors.nested_text())
    else:
        vectors = find(table, asked.request)
        text.write([b"".join(vectors.nested_text())[1:-1]] if asked.is_scalar else vectors.nested_text())
    text.write([b"}"])
    call.looked_up = table.identity, asked.request.batch.layout.total
    return Answer(200, _HEADERS, Stream(text.size, iter(text.pieces)) if large else tuple(text.pieces))


_HEADERS: Final = ((b"content-type", JSON.encode()),)


def _read(body: JsonBody, limits: Limits) -> Question:
    fields = as_object(body.value, _FIELDS, "the body")
    if ("instances" in fields) == ("inputs" in fields):
        raise InvalidRequest("either instances or inputs must be given, and not both", field="instances")
    signature = fields.get("signature_name")
    if signature is not None and not isinstance(signature, str):
        raise InvalidRequest(f"signature_name must be a string, not {json_type(signature)}", field="signature_name")
    place = "instances" if "instances" in fields else "inputs"
    arrange = partial(_by_row if place == "instances" else _by_column, place=place, limits=limits)
    value = arrange(fields[place])
    is_scalar = place == "inputs" and not isinstance(value, list)
    elements = [value] if is_scalar else value
    batch: IdBatch | TokenBatch
    if _is_text(elements):
        batch = read_tokens(elements, limits, place)
    else:
        exact = (lambda: [arrange(body.exact[place])]) if is_scalar else lambda: arrange(body.exact[place])
        batch = _whole_ids(elements, exact, limits, place)
    return Question(LookupRequest(batch), "predictions" if place == "instances" else "outputs", is_scalar)


def _by_row(instances: object, place: str, limits: Limits) -> Any:  # noqa: ANN401  (JSON)
    """Values of the one input, or objects that have it by its name, as its values."""
    if not isinstance(instances, list):
        raise InvalidRequest(f"{place} must be an array, not {json_type(instances)}", field=place)
    limits.check_count(place, len(instances))
    if dict not in set(map(type, instances)):
        return instances
    first = instances[0]
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict) or not isinstance(first, dict) or instance.keys() != first.keys():
            where = f"{place}[{index}]"
            raise InvalidRequest(f"{where} does not have the inputs of {place}[0]", field=where)
    name = _name(first, place)
    return [instance[name] for instance in instances]


def _by_column(inputs: object, place: str, limits: Limits) -> Any:  # noqa: ANN401  (JSON)
    value = inputs[_name(inputs, place)] if isinstance(inputs, dict) else inputs
    if isinstance(value, list):
        limits.check_count(place, len(value))
    return value


def _name(inputs: Mapping[str, Any], place: str) -> str:
    """That of the one input, which may be any: it was the Keras model's."""
    if len(inputs) != 1:
        raise InvalidRequest(f"{place} must have one input, of any name, and has {len(inputs)}", field=place)
    (name,) = inputs
    if name == "b64":
        raise InvalidRequest(f"{place}: values in base64 are not taken", field=place)
    return name


def _is_text(value: object) -> bool:
    """Whether the first element is a string, and so all are tokens."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, str)


def _whole_ids(value: Any, exact: Callable[[], Any], limits: Limits, place: str) -> IdBatch:  # noqa: ANN401
    """Ids, which may be written as fractions (`3.0`): Keras' inputs are of floats by default.

    Whatever cannot be told of the numbers as float64 is read once more, as it is written.
    """
    flat, layout, kinds = flatten(value, place, limits)
    limits.check_ids(layout)
    if float in kinds and not kinds - {int, float}:
        numbers = np.array(flat, dtype=np.float64)
        if (np.abs(numbers) < _EXACT).all() and (numbers == np.floor(numbers)).all():
            return IdBatch(numbers.astype(np.int64), layout)
    return read_ids(value, exact, limits, place)


_EXACT: Final = 2.0**53


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
