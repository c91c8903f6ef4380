"""ONNX Runtime: imported here and nowhere else, without what it would tell its makers; its providers, and errors."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module, metadata
from typing import Any, Final

from service.backends import AUTO, CPU, Fetching
from service.errors import NoSuchProvider

CUDA: Final = "CUDAExecutionProvider"
_PREFERRED: Final = (CUDA, CPU)
"""What `auto` takes of it if it can be used here."""
_WITH_DEVICES: Final = ("MIGraphXExecutionProvider", "ROCMExecutionProvider", "TensorrtExecutionProvider")
"""Others whose option `device_id` is the number of a device."""
_DISTRIBUTIONS: Final = ("onnxruntime", "onnxruntime-gpu")
_NOT_BUILT_IN: Final = {
    "": "this build of ONNX Runtime does not have it",
    CUDA: "this build of ONNX Runtime does not have it; that of onnxruntime-gpu does, see the README",
}
_MISSING_LIBRARY: Final = re.compile(r"with error: (.*)")
"""How ONNX Runtime says which library of a provider it does not find."""
_PROBE_SECONDS: Final = 120.0  # a device that was not used for long may take several to wake up


@cache
def onnxruntime() -> Any:  # noqa: ANN401  (it has no types)
    """The module. It is safe to fork after this: there is no thread yet.

    1.31 would keep a database of events in the user's cache folder, and a thread for sending them to its makers.
    """
    os.putenv("ORT_DISABLE_TELEMETRY", "1")  # it is read by the library at the import, and by what it forks
    return import_module("onnxruntime")


def failures() -> tuple[type[Exception], ...]:
    """What it raises. They have no class in common but Exception."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    named = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "NoSuchFile", "NotImplemented")
    return (RuntimeError, *(getattr(state, name) for name in (*named, "InvalidProtobuf", "RuntimeException")))


def check_providers(named: Sequence[str], device_id: int) -> tuple[str, ...]:
    """The execution providers that are meant, in their order; raises NoSuchProvider where one cannot be used here.

    One with a device is tried out in a process of its own: what has used a CUDA device cannot be forked.
    """
    _check_installation()
    built_in: list[str] = onnxruntime().get_available_providers()
    if list(named) == [AUTO]:
        return tuple(name for name in _PREFERRED if usable(name, device_id))
    for name in named:
        trouble = _trouble(name, device_id) if name in built_in else _NOT_BUILT_IN.get(name, _NOT_BUILT_IN[""])
        if trouble is not None:
            raise NoSuchProvider(name, trouble, [other for other in built_in if usable(other, device_id)])
    return tuple(named)


def usable(name: str, device_id: int) -> bool:
    """Whether an execution provider gathers rows here."""
    return name in onnxruntime().get_available_providers() and _trouble(name, device_id) is None


@cache
def _trouble(name: str, device_id: int) -> str | None:
    """Why a provider of this build cannot be used; None where it can."""
    if name == CPU:
        return None
    command = [sys.executable, "-P", "-m", "service.backends.probe", name, str(device_id)]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"it does not answer within {_PROBE_SECONDS:g} s"
    if tried.returncode == 0:
        return None
    said = [line for line in tried.stderr.splitlines() if line.strip()]
    missing = _MISSING_LIBRARY.search(tried.stderr)
    reason = said[-1] if said else f"trying it out ended with {tried.returncode}"
    return f"{reason} ({missing[1]})" if missing else reason


def has_own_memory(provider: str) -> bool:
    """Whether a provider has memory of its own, into which rows are put, and does not read them where they lie."""
    return provider != CPU


def new_session(model: bytes, options: Any, fetching: Fetching) -> Any:  # noqa: ANN401
    """A session with the providers that are named, the first of them at work; raises one of `failures`."""
    ort = onnxruntime()
    if CUDA in fetching.providers:
        ort.preload_dlls()  # the libraries of CUDA that pip has installed, which are on no path
    told = [_provider_options(name, fetching.device_id, fetching.device_bytes) for name in fetching.providers]
    session = ort.InferenceSession(
        model, options, providers=list(fetching.providers), provider_options=told, enable_fallback=0
    )
    if fetching.providers[0] not in session.get_providers():  # it goes on without one that it cannot use
        raise RuntimeError("a device or a library is missing")
    return session


def _provider_options(name: str, device_id: int, device_bytes: int | None) -> dict[str, str]:
    """What a session is told of a provider, in the provider's own words."""
    if name != CUDA:
        return {"device_id": str(device_id)} if name in _WITH_DEVICES else {}
    limit = {} if device_bytes is None else {"gpu_mem_limit": str(device_bytes)}
    # Else every time that its memory runs out it would take twice as much as it has.
    return {"device_id": str(device_id), "arena_extend_strategy": "kSameAsRequested", **limit}


def _check_installation() -> None:
    """Two distributions that write the same files leave a mixture of both, which fails in ways that nobody can read."""
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        raise NoSuchProvider(
            CUDA,
            "both onnxruntime and onnxruntime-gpu are installed, whose files overwrite each other; "
            "uninstall both, and install onnxruntime-gpu again",
            [],
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
