"""MLServer's custom runtime for a table: the tensor `ids` in, the tensor `vectors` out. Runs in `.venv-peers`."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Rows(MLModel):  # type: ignore[misc]  # MLServer is not installed where types are checked
    """The rows of the .npy file that the model's `uri` names."""

    async def load(self) -> bool:
        self._table = np.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        ids = NumpyCodec.decode_input(payload.inputs[0])
        rows = self._table[ids.ravel()]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("vectors", rows)])
