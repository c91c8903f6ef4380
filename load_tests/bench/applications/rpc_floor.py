"""The least that a gRPC server in Python costs: grpcio's asyncio server, on uvloop, with a constant answer."""

import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop


async def main(service: str, port: str, answer: bytes) -> None:
    """Serves one method until it is killed."""

    async def infer(_request: bytes, _context: Any) -> bytes:  # noqa: ANN401
        return answer

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(infer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
