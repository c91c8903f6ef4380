"""An inference request as a lookup, whichever way it came: its inputs, its parameters, and the outputs it wants."""

from collections.abc import Container, Mapping, Sequence
from typing import Final, NamedTuple

from service.api.binary_body import batch_of, ragged_layout
from service.api.limits import Limits
from service.api.options import SCALAR_FIELDS, read_scalars
from service.dialects.v2.tensors import INT64, Tensor, ids_of, mask_in, offsets_in, tokens_of, weights_in
from service.errors import InvalidRequest
from service.types import IdBatch, LookupRequest, TokenBatch

VECTORS: Final = "vectors"
MASK: Final = "mask"
INPUTS: Final = ("ids", "tokens", "mask", "weights", "offsets")
OPTIONS: Final = SCALAR_FIELDS - {"encoding"}
"""The contract's options, as parameters of the request."""
_WITHOUT_MEANING: Final = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "content_type", "headers"}
)
"""What clients send to any server; a lookup has no state, no queue and no codec of its own."""

_SHARED_MEMORY: Final = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")


class Wanted(NamedTuple):
    """An output that was asked for, and whether as bytes behind the JSON."""

    name: str
    binary: bool


class Inference(NamedTuple):
    """A lookup, what of its answer is wanted, in this order, and the `id` that the answer echoes.

    `is_plain` where the only input is ids of INT64, so that no bytes of the request can be anything else.
    """

    request: LookupRequest
    wanted: tuple[Wanted, ...]
    id: str | None
    is_plain: bool


def check_input(name: str, parameters: Container[str]) -> None:
    """Raises InvalidRequest for what a lookup cannot do with an input."""
    if any(key in parameters for key in _SHARED_MEMORY):
        raise InvalidRequest(f"input {name!r}: shared memory is not supported", field=name)


def check_output(name: str, parameters: Mapping[str, object]) -> None:
    """The same for an output that is asked for."""
    if any(key in parameters for key in _SHARED_MEMORY):
        raise InvalidRequest(f"output {name!r}: shared memory is not supported", field=name)
    if parameters.get("classification", 0) != 0:
        raise InvalidRequest(f"output {name!r}: there is no classification of vectors", field=name)


def is_plain(inputs: Sequence[Tensor]) -> bool:
    """Whether these are ids of INT64 and nothing else."""
    return len(inputs) == 1 and (inputs[0].name, inputs[0].datatype) == ("ids", INT64)


def read_inference(
    inputs: Sequence[Tensor],
    outputs: Sequence[Wanted],
    parameters: Mapping[str, object],
    limits: Limits,
    *,
    binary: bool,
) -> tuple[LookupRequest, tuple[Wanted, ...]]:
    """The lookup, and the outputs: without `outputs` all that there are, as bytes if `binary`.

    Raises InvalidRequest that names an input, output or parameter, and RequestTooLarge.
    """
    request = _request(_by_name(inputs), parameters, limits)
    names = (VECTORS, MASK) if request.options.pooling == "none" else (VECTORS,)
    if not outputs:
        return request, tuple(Wanted(name, binary) for name in names)
    for place, output in enumerate(outputs):
        if output.name not in names:
            raise InvalidRequest(_no_output(output.name, names), field=output.name)
        if any(other.name == output.name for other in outputs[:place]):
            raise InvalidRequest(f"output {output.name!r} is asked for twice", field=output.name)
    return request, tuple(outputs)


def _no_output(name: str, names: Sequence[str]) -> str:
    if name == MASK:
        return "there is no output 'mask' with pooling: a pooled axis is gone"
    return f"there is no output {name!r}; there are {', '.join(names)}"


def _by_name(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for tensor in inputs:
        if tensor.name not in INPUTS:
            raise InvalidRequest(f"there is no input {tensor.name!r}; there are {', '.join(INPUTS)}", field=tensor.name)
        if tensor.name in found:
            raise InvalidRequest(f"input {tensor.name!r} is given twice", field=tensor.name)
        found[tensor.name] = tensor
    if ("ids" in found) == ("tokens" in found):
        raise InvalidRequest("either the input 'ids' or the input 'tokens' must be given, and not both", field="ids")
    return found


def _request(inputs: Mapping[str, Tensor], parameters: Mapping[str, object], limits: Limits) -> LookupRequest:
    scalars = read_scalars(_options(parameters), weighted="weights" in inputs)
    what = inputs.get("ids") or inputs["tokens"]
    batch = _batch(what, inputs.get("offsets"), limits)
    limits.check_ids(batch.layout)
    mask, weights = inputs.get("mask"), inputs.get("weights")
    return LookupRequest(
        batch,
        None if mask is None else mask_in(mask, what.shape, batch.layout, limits),
        None if weights is None else weights_in(weights, what.shape, batch.layout, limits),
        scalars.options,
    )


def _options(parameters: Mapping[str, object]) -> dict[str, object]:
    if parameters.keys() <= OPTIONS:
        return dict(parameters)
    for name in parameters:
        if name not in OPTIONS and name not in _WITHOUT_MEANING:
            raise InvalidRequest(f"unknown parameter {name!r}; there are {', '.join(sorted(OPTIONS))}", field=name)
    return {name: value for name, value in parameters.items() if name in OPTIONS}


def _batch(what: Tensor, offsets: Tensor | None, limits: Limits) -> IdBatch | TokenBatch:
    starts = None if offsets is None else offsets_in(offsets, limits)
    found = ids_of(what, limits) if what.name == "ids" else tokens_of(what, limits)
    if not isinstance(found, IdBatch | TokenBatch):
        return batch_of(found, starts, limits)
    return found if starts is None else found._replace(layout=ragged_layout(what.shape, starts))
