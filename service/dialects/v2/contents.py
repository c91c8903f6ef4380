"""Inference requests and responses as messages of gRPC: tensors as raw bytes, or in typed fields."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from service.api.limits import Limits
from service.api.turns import Turns
from service.api.vectors import Vectors, find, find_in_turns
from service.dialects.v2.answer import Work
from service.dialects.v2.inference import (
    VECTORS,
    Inference,
    Wanted,
    check_input,
    check_output,
    is_plain,
    read_inference,
)
from service.dialects.v2.messages import Message, message
from service.dialects.v2.tensors import BOOL, BYTES, DTYPES, FP16, FP32, Tensor, read_shape, text_of
from service.errors import InvalidRequest
from service.types import TableVersion

_FIELDS: Final = {
    BOOL: "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    FP32: "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The field of InferTensorContents for each datatype; FP16 comes as raw bytes only."""
_Response: Final = message("ModelInferResponse")
_Output: Final = message("ModelInferResponse.InferOutputTensor")


def inference_of(request: Message, limits: Limits) -> Inference:
    """What a ModelInferRequest asks for; raises InvalidRequest, RequestTooLarge."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        reason = (
            f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs: there is one for each, or none at all"
        )
        raise InvalidRequest(reason, field="raw_input_contents")
    inputs = [_tensor(given, raw[place] if raw else None, limits) for place, given in enumerate(request.inputs)]
    outputs = [_wanted(given) for given in request.outputs]
    parameters = _parameters(request.parameters)
    lookup, wanted = read_inference(inputs, outputs, parameters, limits, binary=True)
    return Inference(lookup, wanted, request.id or None, is_plain(inputs))


def _tensor(given: Message, raw: bytes | None, limits: Limits) -> Tensor:
    name, datatype = given.name, given.datatype
    if datatype not in _FIELDS and datatype != FP16:
        known = ", ".join(sorted((*_FIELDS, FP16)))
        raise InvalidRequest(f"the datatype of input {name!r} is not one of {known}", field=name)
    check_input(name, given.parameters)
    shape = read_shape(list(given.shape), name)
    data = raw if raw is not None else _contents(given, shape, limits)
    return Tensor(name, datatype, shape, data, list)


def _contents(given: Message, shape: tuple[int, ...], limits: Limits) -> Any:  # noqa: ANN401
    """What stands in the field of the datatype: strings as they are, numbers as bytes."""
    name, datatype = given.name, given.datatype
    field = _FIELDS.get(datatype)
    filled = [descriptor.name for descriptor, _ in given.contents.ListFields()]
    if field is None or any(other != field for other in filled):
        wanted = "raw_input_contents" if field is None else field
        raise InvalidRequest(f"input {name!r} is {datatype}, which stands in {wanted}", field=name)
    elements = getattr(given.contents, field)
    if len(elements) != math.prod(shape):
        raise InvalidRequest(
            f"input {name!r} has {len(elements)} elements, and its shape {list(shape)} needs {math.prod(shape)}",
            field=name,
        )
    limits.check_count(name, len(elements))
    if datatype == BYTES:
        return [text_of(element, name, index) for index, element in enumerate(elements)]
    numbers = np.array(elements)
    dtype = DTYPES[datatype]
    narrow = numbers.astype(dtype)
    if dtype.kind in "iu" and numbers.size and not np.array_equal(narrow, numbers):
        raise InvalidRequest(f"input {name!r} holds a number beyond {datatype}", field=name)
    return narrow.tobytes()


def _wanted(given: Message) -> Wanted:
    name = given.name
    check_output(name, _parameters(given.parameters))
    return Wanted(name, binary=True)


def _parameters(given: Mapping[str, Any]) -> dict[str, object]:
    return {name: _value(value) for name, value in given.items()}


def _value(given: Message) -> object:
    kind = given.WhichOneof("parameter_choice")
    return None if kind is None else getattr(given, kind)


async def answered(work: Work) -> bytes:
    """The ModelInferResponse, as it is sent; raises what `EmbeddingTable.lookup` raises, RequestTooLarge."""
    table, inference = work.table, work.inference
    if work.large:
        await Turns().begin()
        vectors = await find_in_turns(table, inference.request)
    else:
        vectors = find(table, inference.request)
    response = _said(table.identity, inference, vectors.shape, vectors.mask_shape, vectors.dtype)
    turns = Turns()
    for wanted in inference.wanted:
        pieces = []
        for piece in _octets(vectors, is_vectors=wanted.name == VECTORS):
            pieces.append(piece)
            await turns.end()
        response.raw_output_contents.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    answer = _serialized(response)
    work.limits.check_answer(len(answer))
    return answer


def head_of(
    identity: TableVersion, inference: Inference, shape: tuple[int, ...], mask_shape: tuple[int, ...], dtype: str
) -> bytes:
    """A ModelInferResponse up to its raw contents, which are its last field."""
    return _serialized(_said(identity, inference, shape, mask_shape, dtype))


def _said(
    identity: TableVersion, inference: Inference, shape: tuple[int, ...], mask_shape: tuple[int, ...], dtype: str
) -> Message:
    response = _Response(model_name=identity.name, model_version=str(identity.version), id=inference.id or "")
    for wanted in inference.wanted:
        is_vectors = wanted.name == VECTORS
        datatype = (FP32 if dtype == "float32" else FP16) if is_vectors else BOOL
        response.outputs.append(_Output(name=wanted.name, datatype=datatype, shape=shape if is_vectors else mask_shape))
    return response


def _serialized(message: Message) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _octets(vectors: Vectors, *, is_vectors: bool) -> Iterator[bytes]:
    if is_vectors:
        for piece in vectors.octets().pieces:
            yield bytes(piece)
        return
    mask = vectors.mask()
    assert mask is not None  # noqa: S101  (it is not asked for with pooling)
    yield mask.tobytes()
