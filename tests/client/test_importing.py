"""What the client pulls in when it is imported, and who imports it."""

import subprocess
import sys

PROGRAM = """
import sys, httpx, numpy
before = set(sys.modules)
import service.client
print(*sorted(set(sys.modules) - before))
"""
HEAVY = ("fastapi", "pydantic", "onnxruntime", "uvicorn", "starlette", "orjson", "prometheus_client", "keras", "torch")
OURS = ("service.client", "service.types", "service.layout")
"""The words of a lookup, and how positions are arranged: leaves that need numpy only."""


def test_the_client_needs_numpy_and_httpx_only() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in found if name.startswith("service.")]
    assert "service.client.clients" in ours
    assert [name for name in ours if not name.startswith(OURS)] == []
    others = {name.partition(".")[0] for name in found} - {"service"}
    # anyio is what httpx itself waits with, and sniffio what that looks at.
    assert others <= {*sys.stdlib_module_names, "numpy", "httpx", "anyio", "sniffio"}
    assert others.isdisjoint(HEAVY)


def test_the_layers_are_not_imported_unasked() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert "service.client.keras" not in found
    assert "service.client.torch" not in found
