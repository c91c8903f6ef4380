"""The body of an inference request over HTTP: JSON, or JSON with tensors as bytes behind it, perhaps compressed."""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from service.api.answer import Buffer
from service.api.json_body import JsonBody
from service.api.limits import Limits
from service.api.nested import json_type
from service.dialects.v2.inference import Inference, Wanted, check_input, check_output, is_plain, read_inference
from service.dialects.v2.tensors import BYTES, DTYPES, Tensor, read_shape
from service.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType

_DATATYPES: Final = {*DTYPES, BYTES}
_WINDOW: Final = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""What zlib is told to expect. The `deflate` of HTTP is in zlib's own format (RFC 9110 section 8.4.1.2)."""
_AT_ONCE: Final = 1 << 16  # bytes that are inflated on the event loop
_REQUEST_ONLY: Final = frozenset({"binary_data_output"})
_KINDS: Final[Mapping[type, str]] = {dict: "an object", list: "an array", str: "a string"}
_Object = Mapping[str, Any]


def coding_of(value: bytes | None) -> bytes | None:
    """The coding of a body by its Content-Encoding, None for none; raises UnsupportedMediaType."""
    coding = b"" if value is None else value.strip().lower()
    if coding in (b"", b"identity"):
        return None
    if coding not in _WINDOW:
        raise UnsupportedMediaType(f"Content-Encoding {coding.decode('latin-1')!r} is not one of gzip, deflate")
    return coding


async def inflated(body: bytes, coding: bytes, limits: Limits) -> bytes:
    """The body without its coding; raises InvalidRequest, and RequestTooLarge before more is inflated than allowed."""
    inflate = partial(_inflated, body, coding, limits.max_body_bytes)
    return inflate() if len(body) <= _AT_ONCE else await asyncio.to_thread(inflate)


def _inflated(body: bytes, coding: bytes, limit: int) -> bytes:
    machine = zlib.decompressobj(wbits=_WINDOW[coding])
    try:
        data = machine.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {coding.decode()}: {error}") from None
    if len(data) > limit:
        raise RequestTooLarge("the inflated request body in bytes", "EMBEDDING_MAX_BODY_BYTES", limit)
    if not machine.eof or machine.unused_data:
        raise InvalidRequest(f"the {coding.decode()} body {'goes on behind its end' if machine.eof else 'breaks off'}")
    return data


def read_infer(body: bytes, header_length: int | None, limits: Limits) -> Inference:
    """What a body asks for, whose first `header_length` bytes are JSON: None for all, 0 for raw ids.

    Raises InvalidJson, InvalidRequest, RequestTooLarge.
    """
    if header_length == 0:
        return _raw(body, limits)
    if header_length is not None and header_length > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {header_length}, and the body has {len(body)} bytes",
            field="Inference-Header-Content-Length",
        )
    json = JsonBody(body if header_length is None else body[:header_length])
    fields = _as(dict, json.value, "the request")
    parameters = _as(dict, fields.get("parameters", {}), "parameters")
    binary = flag(parameters, "binary_data_output") or False
    inputs = _inputs(json, fields, b"" if header_length is None else memoryview(body)[header_length:])
    outputs = [_wanted(output, binary) for output in _as(list, fields.get("outputs", []), "outputs")]
    options = {name: value for name, value in parameters.items() if name not in _REQUEST_ONLY}
    request, wanted = read_inference(inputs, outputs, options, limits, binary=binary)
    identity = fields.get("id")
    return Inference(request, wanted, None if identity is None else _as(str, identity, "id"), is_plain(inputs))


def _raw(body: bytes, limits: Limits) -> Inference:
    """A body without JSON is the one required input; its answer comes as bytes."""
    if len(body) % 8:
        raise InvalidRequest(f"{len(body)} bytes are not a whole number of INT64 ids", field="ids")
    ids = Tensor("ids", "INT64", (len(body) // 8,), body, list)
    request, wanted = read_inference([ids], [], {}, limits, binary=True)
    return Inference(request, wanted, None, is_plain=True)


def _inputs(json: JsonBody, fields: _Object, behind: Buffer) -> list[Tensor]:
    inputs: list[Tensor] = []
    at = 0
    for index, given in enumerate(_as(list, fields.get("inputs"), "inputs")):
        tensor, size = _input(json, given, index, behind[at:])
        inputs.append(tensor)
        at += size
    if at != len(behind):
        raise InvalidRequest(f"{len(behind)} bytes follow the JSON, and the inputs have {at}", field="inputs")
    return inputs


def _input(json: JsonBody, given: object, index: int, behind: Buffer) -> tuple[Tensor, int]:
    fields = _as(dict, given, f"inputs[{index}]")
    name = _as(str, fields.get("name"), f"inputs[{index}].name")
    datatype = fields.get("datatype")
    if not isinstance(datatype, str) or datatype not in _DATATYPES:
        raise InvalidRequest(
            f"the datatype of input {name!r} is not one of {', '.join(sorted(_DATATYPES))}", field=name
        )
    shape = read_shape(fields.get("shape"), name)
    size = _binary_size(fields, name)
    if size is None:
        data = _as(list, fields.get("data"), f"the data of input {name!r}")
        return Tensor(name, datatype, shape, data, _exact(json, index)), 0
    if "data" in fields:
        raise InvalidRequest(f"input {name!r} has both data and binary_data_size", field=name)
    if size > len(behind):
        raise InvalidRequest(f"input {name!r} should have {size} bytes behind the JSON, {len(behind)} are left", name)
    return Tensor(name, datatype, shape, behind[:size], list), size


def _exact(json: JsonBody, index: int) -> Callable[[], Any]:
    return lambda: json.exact["inputs"][index]["data"]


def _binary_size(fields: _Object, name: str) -> int | None:
    parameters = _as(dict, fields.get("parameters", {}), f"the parameters of input {name!r}")
    check_input(name, parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"binary_data_size of input {name!r} must be a number of bytes", field=name)
    return size


def _wanted(given: object, default: bool) -> Wanted:
    fields = _as(dict, given, "an output")
    name = _as(str, fields.get("name"), "the name of an output")
    parameters = _as(dict, fields.get("parameters", {}), f"the parameters of output {name!r}")
    check_output(name, parameters)
    binary = flag(parameters, "binary_data")
    return Wanted(name, default if binary is None else binary)


def flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    """A boolean that may be left out; raises InvalidRequest for anything else."""
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false, not {json_type(value)}", field=name)
    return value


def _as(kind: type, value: object, what: str) -> Any:  # noqa: ANN401  (JSON)
    if not isinstance(value, kind):
        raise InvalidRequest(f"{what} must be {_KINDS[kind]}, not {json_type(value)}", field=what)
    return value
