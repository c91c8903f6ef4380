"""Rows as the first answers of each version gave them: a later answer that differs is of two versions, or wrong."""

from typing import Final

import numpy as np

from load_tests.locust_users.batch import ZEROS
from load_tests.locust_users.told import RowArray, WrongAnswer
from load_tests.locust_users.zipf import IdArray

_MOST_BYTES: Final = 64 << 20  # for each version
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6  # of pooled values, against a sum in float64: what the contract promises


class KnownRows:
    """Of one table, per version: the rows of the smallest ids, as many as fit, NaN where no answer has told them.

    No table holds NaN, so that it can stand for what is not known. Rows beyond those that fit are not checked.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self._kept = min(num_embeddings, max(1, _MOST_BYTES // (4 * embedding_dim)))
        self._dim = embedding_dim
        self._versions: dict[int, RowArray] = {}

    def check_rows(self, version: int, cells: IdArray, vectors: RowArray) -> None:
        """Compares the vectors of cells, bit for bit, and learns those of new ones; raises WrongAnswer."""
        known = self._of(version)
        flat, given = cells.ravel(), vectors.reshape(-1, self._dim)
        if np.isnan(given).any():
            raise WrongAnswer("NaN in a vector")
        within = flat < self._kept
        if not within.all():
            flat, given = flat[within], given[within]
        expected = known[flat]
        new = np.isnan(expected[:, 0])
        if new.any():
            known[flat[new]] = given[new]
            expected = known[flat]  # an id that comes twice has one row
        if not np.array_equal(expected.view(np.uint32), np.ascontiguousarray(given, np.float32).view(np.uint32)):
            raise WrongAnswer("rows that differ from what the version in the answer had before")

    def check_means(self, version: int, cells: IdArray, mask: RowArray, means: RowArray) -> None:
        """Compares the means of each sequence's unmasked cells, where all of their rows are known."""
        known = self._of(version)
        inside = cells < self._kept
        rows = known[np.where(inside, cells, ZEROS)].astype(np.float64)
        counts = mask.sum(-1, keepdims=True)
        sums = np.where(mask[..., None] > 0, rows, 0.0).sum(-2)
        expected = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        judged = ~np.isnan(expected).any(-1) & (inside | (mask == 0)).all(-1)
        if not np.allclose(means[judged], expected[judged], rtol=_RELATIVE, atol=_ABSOLUTE):
            raise WrongAnswer("means that are not those of the rows that the version had before")

    def _of(self, version: int) -> RowArray:
        """The rows that are known, and behind them, where the index ZEROS points, one of zeros."""
        if version not in self._versions:
            rows = np.full((self._kept + 1, self._dim), np.nan, np.float32)
            rows[ZEROS] = 0.0
            self._versions[version] = rows
        return self._versions[version]
