"""The Open Inference Protocol, version 2: a table is a model whose inputs are ids or tokens, over HTTP and gRPC.

Source: https://github.com/kserve/open-inference-protocol and, for the binary tensor data, model repository,
statistics and model configuration extensions, the `docs/protocol` folder of triton-inference-server/server.
"""
