"""`python -m service.backends.probe PROVIDER DEVICE_ID`: ends with 0 if a provider gathers rows here, or says why not.

ONNX Runtime itself goes on without a provider that it cannot use.
"""

import sys

import numpy as np

from service import onnxgraph
from service.backends.runtime import failures, onnxruntime, provider_options


def main(name: str, device_id: int) -> str | None:
    """Why the provider cannot be used; None if it can."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    told = [provider_options(name, device_id, None)]
    try:
        session = ort.InferenceSession(onnxgraph.probe_model(), options, providers=[name], provider_options=told)
        if session.get_providers()[0] != name:
            return "it cannot be used here: its device or one of its libraries is missing"
        rows = np.arange(6, dtype=np.float32).reshape(3, 2)
        (found,) = session.run(None, {onnxgraph.ROWS: rows, onnxgraph.IDS: np.array([2, 0])})
    except failures() as error:
        return " ".join(str(error).split())
    return None if np.array_equal(found, rows[[2, 0]]) else "it gathers other rows than those that were asked for"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
