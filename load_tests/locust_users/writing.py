"""Questions as HTTP has them: JSON, raw bytes, and the Open Inference Protocol as JSON and with bytes behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from load_tests.locust_users.batch import Batch
from load_tests.locust_users.kinds import Kind
from load_tests.locust_users.question import Form

_PLAIN: Final = {"Accept-Encoding": "identity"}  # locust would offer what it then has to inflate
_JSON: Final = {**_PLAIN, "Content-Type": "application/json", "Accept": "application/json"}
_OCTETS: Final = "application/octet-stream"
_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What is posted, and where."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def json_request(kind: Kind, table: str, batch: Batch) -> Request:
    """A lookup of the service's own, all of it JSON."""
    asked: dict[str, object] = {"ids": batch.nested(batch.ids), "on_oov": "error"}
    if kind.masked and batch.given is not None:
        asked |= {"mask": batch.nested(batch.given), "masked": "zero"}
    if kind.pooled:
        asked["pooling"] = "mean"
    if kind.base64:
        asked["encoding"] = "base64"
    return Request(f"/v1/tables/{table}/lookup", _JSON, orjson.dumps(asked))


def raw_request(kind: Kind, table: str, batch: Batch) -> Request:
    """The same as bytes both ways; its options stand in the query."""
    shape = "" if batch.lengths is None else f"&shape={','.join(map(str, batch.shape))}"
    pooling = "&pooling=mean" if kind.pooled else ""
    path = f"/v1/tables/{table}/lookup?on_oov=error{shape}{pooling}"
    return Request(path, {**_PLAIN, "Content-Type": _OCTETS, "Accept": _OCTETS}, batch.ids.astype("<i8").tobytes())


def v2_json_request(kind: Kind, table: str, batch: Batch) -> Request:
    """An inference whose tensors are JSON."""
    inputs = [{**_said(name, array), "data": array.ravel().tolist()} for name, array in _tensors(kind, batch).items()]
    return Request(_infer(table), _JSON, orjson.dumps(_inference(kind, inputs, binary=False)))


def v2_binary_request(kind: Kind, table: str, batch: Batch) -> Request:
    """An inference whose tensors are bytes behind the JSON, both ways."""
    octets = {name: np.ascontiguousarray(array).tobytes() for name, array in _tensors(kind, batch).items()}
    inputs = [
        {**_said(name, array), "parameters": {"binary_data_size": len(octets[name])}}
        for name, array in _tensors(kind, batch).items()
    ]
    head = orjson.dumps(_inference(kind, inputs, binary=True))
    headers = {**_PLAIN, "Content-Type": _OCTETS, "Inference-Header-Content-Length": str(len(head))}
    return Request(_infer(table), headers, b"".join((head, *octets.values())))


def _infer(table: str) -> str:
    return f"/v2/models/{table}/infer"


def _tensors(kind: Kind, batch: Batch) -> dict[str, _Array]:
    is_batch = kind.layout == "batch"
    found: dict[str, _Array] = {"ids": batch.ids.reshape(batch.shape) if is_batch else batch.ids}
    if kind.layout == "ragged":
        found["offsets"] = batch.offsets
    if kind.masked and batch.given is not None:
        found["mask"] = batch.given.reshape(batch.shape) if is_batch else batch.given
    return found


def _said(name: str, array: _Array) -> dict[str, object]:
    return {"name": name, "datatype": "BOOL" if array.dtype == bool else "INT64", "shape": list(array.shape)}


def _inference(kind: Kind, inputs: list[dict[str, object]], *, binary: bool) -> dict[str, object]:
    names = ["vectors"] if kind.pooled else ["vectors", "mask"]
    parameters = {"on_oov": "error", "pooling": "mean" if kind.pooled else "none"}
    if kind.masked:
        parameters["masked"] = "zero"
    outputs = [{"name": name, "parameters": {"binary_data": True}} if binary else {"name": name} for name in names]
    return {"inputs": inputs, "outputs": outputs, "parameters": parameters}


WRITERS: Final[Mapping[Form, Callable[[Kind, str, Batch], Request]]] = MappingProxyType(
    {"json": json_request, "raw": raw_request, "v2 json": v2_json_request, "v2 binary": v2_binary_request}
)
