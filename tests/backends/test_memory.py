from pathlib import Path
from typing import ClassVar

import pytest

from service import npyfile
from service.backends import Backend, Fetching, open_rows
from service.backends.memory import MappedRows, ReducedRows
from service.types import RowDtype
from tests.backends.contract import ROWS, MappedContract, files_of, ids_of


class TestNumpy(MappedContract):
    fetching: ClassVar = Fetching()

    @pytest.mark.parametrize("dtype", ["float32"])
    def test_float32_rows_are_taken_as_they_are_stored(self, opened: Backend) -> None:
        assert isinstance(opened, MappedRows)
        assert not opened.rows.flags.writeable
        assert opened.gather(ids_of([5])).tobytes() == ROWS[5].tobytes()

    @pytest.mark.parametrize("dtype", ["float16", "int8"])
    def test_reduced_rows_stay_reduced_in_memory(self, opened: Backend, dtype: RowDtype) -> None:
        assert isinstance(opened, ReducedRows)
        assert opened.rows.dtype == npyfile.STORED[dtype]
        assert not opened.rows.flags.writeable
        assert (opened.scales is not None) is (dtype == "int8")


class TestNumpyInThreads(MappedContract):
    fetching: ClassVar = Fetching(threads=3)

    def test_what_is_small_is_not_shared(self, tmp_path: Path) -> None:
        backend = open_rows(files_of(tmp_path, "float32"), self.fetching)
        assert isinstance(backend, MappedRows)
        assert backend.many == (1 << 20) // 5
