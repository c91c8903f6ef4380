"""The protocol's messages, out of `inference.proto` by protoc: made at run time, in a pool of descriptors of their own.

Client libraries bring generated code for messages of the same names, and the pool that all of a process share refuses
a second one; here both are in one process.
"""

from importlib.resources import files
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Message: TypeAlias = Any
"""An instance of one of these classes, which protobuf leaves without types."""
PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
_FILE: Final = "inference.binpb"


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    content = files("service.dialects.v2").joinpath(_FILE).read_bytes()
    for file in FileDescriptorSet.FromString(content).file:
        pool.Add(file)
    return pool


POOL: Final = _pool()


def message(name: str) -> type[Any]:
    """The class of a message of the package."""
    made: type[Message] = GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    return made


def methods() -> dict[str, tuple[type[Any], type[Any]]]:
    """Every method of the service with the classes of its request and of its response."""
    service = POOL.FindServiceByName(SERVICE)
    return {
        method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
        for method in service.methods
    }
