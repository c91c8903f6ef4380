"""Ids by the law of Zipf, drawn by the million: the smallest id is the most frequent, as in tables made of words."""

import numpy as np
import numpy.typing as npt

IdArray = npt.NDArray[np.int64]


def zipf_ids(draw: np.random.Generator, count: int, rows: int, exponent: float) -> IdArray:
    """So many ids below `rows`, id n with a weight of about 1 / (n + 1) ** exponent; 0 makes all alike.

    The integral of the law is inverted, so that no sum over all rows is needed: the time depends on `count` alone.
    """
    u = draw.random(count)
    top = rows + 1.0
    power = 1.0 - exponent
    ranks = top**u if power == 0 else (1.0 + u * (top**power - 1.0)) ** (1.0 / power)
    ids: IdArray = np.clip(ranks.astype(np.int64), 1, rows) - 1
    return ids
