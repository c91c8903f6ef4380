"""Lookups in every form that a client may send and ask for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import urlencode

from service.types import IdArray
from tests.api.wire import JSON, NPY, OCTETS, npy
from tests.server.raw import Request, request


@dataclass(frozen=True)
class Form:
    """What is sent for ids and wanted for it; `nested` is the shape of the ids, -1 for as many as there are."""

    name: str
    sent: str = JSON
    accept: str = JSON
    options: Mapping[str, str] = field(default_factory=dict)
    nested: tuple[int, ...] = (-1,)

    def request(self, table: str, ids: IdArray) -> Request:
        target, accept = f"/v1/tables/{table}/lookup", f"Accept: {self.accept}"
        if self.sent == JSON:
            body = {"ids": ids.reshape(self.nested).tolist(), **self.options}
            return request(json.dumps(body).encode(), target, accept)
        if self.sent == NPY:
            target += f"?{urlencode(self.options)}" if self.options else ""
            return request(npy(ids.reshape(self.nested)), target, accept, media=NPY)
        dtype = "<i4" if self.options.get("ids_dtype") == "int32" else "<i8"
        options = dict(self.options)
        if len(self.nested) > 1:
            options["shape"] = ",".join(map(str, ids.reshape(self.nested).shape))
        target += f"?{urlencode(options)}" if options else ""
        return request(ids.astype(dtype).tobytes(), target, accept, media=OCTETS)


raw = partial(Form, sent=OCTETS, accept=OCTETS)
BASE64: Final = {"encoding": "base64"}
KEPT: Final = [
    Form("text"),
    Form("text that says so", options={"encoding": "float"}),
    raw("bytes"),
    raw("bytes of a batch", nested=(-1, 5)),
    raw("bytes of many axes", nested=(2, -1, 1, 5)),
    raw("bytes with an option that says nothing", options={"padding": "post"}),
    Form("array", OCTETS, NPY),
    Form("array of a batch", OCTETS, NPY, nested=(-1, 10)),
]
AT_ONCE: Final = [
    Form("base64", options=BASE64),
    raw("flat bytes", nested=(-1, 5), options={"flatten": "true"}),
    raw("half bytes", options={"dtype": "float16"}),
    raw("pooled bytes", nested=(-1, 5), options={"pooling": "mean"}),
    raw("one pooled sequence", options={"pooling": "sqrtn"}),
    raw("padded bytes", nested=(-1, 5), options={"length": "7", "padding": "pre"}),
    raw("unit bytes", options={"normalize": "true"}),
    Form("pooled array", OCTETS, NPY, {"pooling": "max"}, (-1, 5)),
]
"""What is answered from its head only where that takes no turns."""
USUAL: Final = [
    Form("text of a batch", nested=(-1, 5)),
    Form("text of many axes", nested=(2, 1, -1, 5)),
    Form("base64 of a batch", options=BASE64, nested=(-1, 5)),
    Form("bytes for JSON", accept=OCTETS),
    Form("zeros for padding", options={"masked": "zero"}),
    raw("short integers", options={"ids_dtype": "int32"}),
    Form("text for bytes", sent=OCTETS),
    Form("array for an array", NPY, NPY),
    Form("bytes for an array of a batch", NPY, OCTETS, nested=(-1, 5)),
    Form("pooled array for an array", NPY, NPY, {"pooling": "sum"}, (-1, 5)),
]
