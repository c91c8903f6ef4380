"""Triton's Python backend for a table: the tensor `ids` in, the tensor `vectors` out. Runs inside Triton."""

from __future__ import annotations  # Triton adds the names to its module after this one is imported

import json
from collections.abc import Mapping, Sequence

import numpy as np
import triton_python_backend_utils as utils


class TritonPythonModel:
    """The rows of the .npy file that the parameter `table` of the model's configuration names."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, when the model is loaded."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._table = np.load(parameters["table"]["string_value"])

    def execute(self, requests: Sequence[utils.InferenceRequest]) -> list[utils.InferenceResponse]:
        """Called with the requests that have come together; one response for each."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: utils.InferenceRequest) -> utils.InferenceResponse:
        ids = utils.get_input_tensor_by_name(request, "ids").as_numpy()
        return utils.InferenceResponse(output_tensors=[utils.Tensor("vectors", self._table[ids])])
