"""How large an answer will be, and the errors for one that would be too large, before any of it is made."""

import math

from service.api.limits import Limits
from service.api.media import JSON
from service.api.options import Scalars
from service.table import EmbeddingTable
from service.types import DEFAULT_OPTIONS, LookupRequest


def numbers_of(table: EmbeddingTable, request: LookupRequest) -> int:
    """How many numbers the answer has; an axis of zero counts as one.

    Padding a batch of no rows to a length must not cost more than the limits allow either.
    """
    shape = request.batch.layout.shape
    if len(shape) == 1:
        if request.options is DEFAULT_OPTIONS:
            return (shape[0] or 1) * table.embedding_dim
        if request.options.pooling != "none":
            return table.embedding_dim
    return math.prod(max(1, axis) for axis in table.result_shape(request))


def check_size(
    table: EmbeddingTable, request: LookupRequest, media: str, scalars: Scalars, limits: Limits, taken: int = 0
) -> tuple[int, int]:
    """The numbers of an answer and how many bytes it has at least, with `taken` before it; raises RequestTooLarge.

    A JSON number has at least four ("0.0,"). What passes is checked again as it is written.
    """
    numbers = numbers_of(table, request)
    options = request.options
    if media != JSON:
        size = numbers * (2 if options.dtype == "float16" else 4)
    elif scalars.encoding == "float":
        size = numbers * 4
    else:
        size = -(-numbers * (2 if options.dtype == "float16" else 4) * 4 // 3)
    if taken + size > limits.max_response_bytes:
        limits.check_answer(taken + size)
    if options.pooling == "none" and numbers > limits.max_ids * table.embedding_dim:
        limits.check_positions(numbers // table.embedding_dim)
    return numbers, taken + size
