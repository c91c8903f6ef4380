"""Vectors over their L2 norms: of rows, of what is pooled of them, and of texts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def over_norms(vectors: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Each of the vectors, shape (n, dim), over its norm, which is taken in float64; zeros stay zeros.

    Their dtype stays. The square of a float32 neither overflows nor vanishes in float64; a float64 has to be scaled.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))[:, np.newaxis]
    unit = np.zeros_like(vectors)
    np.divide(vectors, norms, out=unit, where=norms > 0, casting="same_kind")
    return unit
