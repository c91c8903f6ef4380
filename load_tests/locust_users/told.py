"""What an answer says, read from its headers and its body; every part that says it again must agree."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from load_tests.locust_users.batch import BoolArray
from load_tests.locust_users.question import Form

RowArray = npt.NDArray[np.float32]


class WrongAnswer(Exception):
    """Not what was promised. Its text names no ids, so that locust counts those of one sort together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """The table, its version, and the vectors, of the shape that the answer gives; the mask where there is one."""

    table: str
    version: int
    vectors: RowArray
    mask: BoolArray | None


def read(form: Form, answer: Answer) -> Told:
    """Reads an answer of 200; raises WrongAnswer."""
    try:
        return _READERS[form](answer)
    except (LookupError, TypeError, ValueError) as error:
        raise WrongAnswer(f"unreadable: {type(error).__name__}") from error


def _json(answer: Answer) -> Told:
    said = orjson.loads(answer.body)
    told = _shape_of(answer)
    if (said["table"], said["version"], said["shape"]) != (_table(answer), _version(answer), list(told)):
        raise WrongAnswer("body and headers differ")
    given = said["vectors"]
    vectors = np.frombuffer(b64decode(given), "<f4") if isinstance(given, str) else np.array(given, np.float32)
    mask = np.array(said["mask"], bool) if "mask" in said else None
    return Told(said["table"], said["version"], vectors.reshape(told), mask)


def _raw(answer: Answer) -> Told:
    shape = _shape_of(answer)
    return Told(_table(answer), _version(answer), np.frombuffer(answer.body, "<f4").reshape(shape), None)


def _v2_json(answer: Answer) -> Told:
    said = orjson.loads(answer.body)
    dtypes = {"FP32": np.float32, "BOOL": np.bool_}
    tensors = {
        output["name"]: np.array(output["data"], dtypes[output["datatype"]]).reshape(output["shape"])
        for output in said["outputs"]
    }
    return _v2(said, tensors)


def _v2_binary(answer: Answer) -> Told:
    start = int(answer.headers["inference-header-content-length"])
    said = orjson.loads(answer.body[:start])
    dtypes = {"FP32": "<f4", "BOOL": "?"}
    tensors = {}
    for output in said["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        array = np.frombuffer(answer.body[start:end], dtypes[output["datatype"]])
        tensors[output["name"]] = array.reshape(output["shape"])
        start = end
    if start != len(answer.body):
        raise WrongAnswer("bytes behind the last tensor")
    return _v2(said, tensors)


def _v2(said: Mapping[str, Any], tensors: Mapping[str, Any]) -> Told:
    return Told(said["model_name"], int(said["model_version"]), tensors["vectors"], tensors.get("mask"))


def _table(answer: Answer) -> str:
    return answer.headers["embedding-table"]


def _version(answer: Answer) -> int:
    return int(answer.headers["embedding-version"])


def _shape_of(answer: Answer) -> tuple[int, ...]:
    return tuple(map(int, answer.headers["embedding-shape"].split(",")))


_READERS: Final[Mapping[Form, Callable[[Answer], Told]]] = MappingProxyType(
    {"json": _json, "raw": _raw, "v2 json": _v2_json, "v2 binary": _v2_binary}
)
