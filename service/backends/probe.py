"""`python -m service.backends.probe PROVIDER DEVICE_ID`: ends with 0 if a provider gathers rows here, or says why not.

First with the processor behind it, which tells a provider that is not there from one that takes no such graph.
"""

import sys

import numpy as np

from service import onnxgraph
from service.backends import Fetching
from service.backends.runtime import failures, new_session, onnxruntime


def main(name: str, device_id: int) -> str | None:
    """Why the provider cannot be used; None if it can."""
    ort = onnxruntime()
    fetching = Fetching("onnx", providers=(name,), device_id=device_id)
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    try:
        new_session(onnxgraph.probe_model(), ort.SessionOptions(), fetching)
        alone = ort.SessionOptions()
        alone.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = new_session(onnxgraph.probe_model(), alone, fetching)
        (found,) = session.run(None, {onnxgraph.ROWS: rows, onnxgraph.IDS: np.array([2, 0])})
    except failures() as error:
        return " ".join(str(error).split())
    return None if np.array_equal(found, rows[[2, 0]]) else "it gathers other rows than those that were asked for"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
