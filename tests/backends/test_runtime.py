"""ONNX Runtime as it is imported here: it keeps no records of its user, and its providers are looked at first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.backends.runtime import check_providers, usable
from service.errors import NoSuchProvider

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_LOOK_UP = """
import json, os, pathlib, sys
import numpy as np
from service import npyfile
from service.backends import Fetching, RowFiles, open_rows
path = pathlib.Path(sys.argv[1])
path.write_bytes(npyfile.dump(np.ones((5, 2), dtype=np.float32)))
rows = open_rows(RowFiles(path), Fetching("onnx"))
rows.gather(np.array([3]))
told = os.popen("echo $ORT_DISABLE_TELEMETRY").read()
print(json.dumps({"threads": len(os.listdir("/proc/self/task")), "told": told}))
"""


def test_nothing_is_recorded_and_no_thread_is_started(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _LOOK_UP, str(tmp_path / "rows")]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True, text=True)
    assert list(home.iterdir()) == []
    assert json.loads(ended.stdout) == {"threads": 1, "told": "1\n"}


@pytest.mark.parametrize("named", [[CPU], ["auto"]], ids=str)
def test_the_processor_is_always_there(named: list[str]) -> None:
    assert check_providers(named, 0)[-1] == CPU


def test_auto_prefers_a_device() -> None:
    assert check_providers(["auto"], 0) == ((CUDA, CPU) if usable(CUDA, 0) else (CPU,))


@pytest.mark.parametrize(
    ("named", "provider", "why"),
    [
        (["NoSuchExecutionProvider", CPU], "NoSuchExecutionProvider", "this build of ONNX Runtime does not have it"),
        ([CPU, "AzureExecutionProvider"], "AzureExecutionProvider", "assigned to the default CPU EP"),
    ],
)
def test_a_provider_that_cannot_be_used_is_named_with_those_that_can(named: list[str], provider: str, why: str) -> None:
    with pytest.raises(NoSuchProvider) as refused:
        check_providers(named, 0)
    assert refused.value.provider == provider
    assert CPU in refused.value.available
    assert provider not in refused.value.available
    assert why in str(refused.value)
    assert f"there are: {', '.join(refused.value.available)}" in str(refused.value)


def test_a_device_that_is_not_there_is_an_error() -> None:
    if usable(CUDA, 0):
        pytest.skip("there is a CUDA device")
    with pytest.raises(NoSuchProvider, match=CUDA):
        check_providers([CUDA, CPU], 0)


def test_two_installations_in_one_place_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        record = tmp_path / f"{name}-1.31.1.dist-info" / "METADATA"
        record.parent.mkdir()
        record.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NoSuchProvider, match="both onnxruntime and onnxruntime-gpu are installed"):
        check_providers([CPU], 0)
