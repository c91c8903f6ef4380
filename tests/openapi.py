"""The committed description of the HTTP API: `python -m tests.openapi` writes it anew."""

import json
import tempfile
from pathlib import Path

from tests.world import service_over

COMMITTED = Path(__file__).parent.parent / "openapi.json"


def generate() -> str:
    """The description that the code gives."""
    with tempfile.TemporaryDirectory() as folder:
        service, _ = service_over(Path(folder))
    return json.dumps(service.behind.openapi(), indent=2) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(generate())
