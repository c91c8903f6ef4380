"""bfloat16, which numpy does not have: the upper half of a float32. A leaf of the importers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def widened(halves: NDArray[np.uint16] | NDArray[Any]) -> NDArray[np.float32]:
    """The numbers whose bits are these 16-bit integers; exact, every bfloat16 is a float32."""
    wide = halves.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
