"""One question in the Open Inference Protocol, as every server that speaks it is asked."""

from typing import Any

import numpy as np
import orjson

from load_tests.bench import wire
from service.types import IdArray, RowArray


def binary(ids: IdArray, model: str) -> bytes:
    """The ids as bytes behind the JSON, and so the vectors."""
    octets = ids.astype("<i8").tobytes()
    head = _request(ids, {"parameters": {"binary_data_size": len(octets)}}, {"parameters": {"binary_data": True}})
    length = {"Inference-Header-Content-Length": str(len(head))}
    return wire.post(f"/v2/models/{model}/infer", "application/octet-stream", head + octets, **length)


def json(ids: IdArray, model: str) -> bytes:
    """All of it as JSON."""
    return wire.post(f"/v2/models/{model}/infer", "application/json", _request(ids, {"data": ids.tolist()}, {}))


def _request(ids: IdArray, sent: dict[str, Any], wanted: dict[str, Any]) -> bytes:
    tensor = {"name": "ids", "shape": [len(ids)], "datatype": "INT64", **sent}
    return orjson.dumps({"inputs": [tensor], "outputs": [{"name": "vectors", **wanted}]})


def ends_with_rows(body: bytes, rows: RowArray) -> bool:
    """Whether these rows are the bytes behind the JSON, whose length is in a header."""
    return body.endswith(rows.tobytes())


def is_tensor(body: bytes, rows: RowArray) -> bool:
    """Whether they are the numbers of the first output."""
    tensor = orjson.loads(body)["outputs"][0]
    return bool(np.array_equal(np.array(tensor["data"], np.float32).reshape(tensor["shape"]), rows))
