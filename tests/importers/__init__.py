import pytest

pytest.register_assert_rewrite("tests.importers.contract", "tests.importers.text_contract")
