"""Rows through ONNX Runtime: the graph of `service/onnxgraph.py` over the files of a version.

On the processor the graph gathers from this process's own mapping of the files, of which there is one, shared by all
graphs and workers. On a device the rows are put into its memory once, by ONNX Runtime out of the same files.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service import onnxgraph
from service.backends import CPU, Backend, Fetching, RowFiles, pages, runtime
from service.backends.combining import gathered_and_combined
from service.backends.device import SCRATCH, memory_of
from service.backends.runtime import failures, new_session, onnxruntime
from service.errors import Conflict
from service.npyfile import map_rows, map_vector, offset_of
from service.onnxgraph import Part, StoredTable
from service.types import Combination, IdArray, RowArray

_AT_ONCE: Final = 1 << 18
"""Numbers that a graph of several nodes makes in one run, so that what lies between its nodes stays in a cache."""
_LARGE: Final = 4 << 20
"""Bytes of a table whose graphs get threads, which each session has for itself: small tables may be many."""
_WIDE: Final = 1 << 15
"""Numbers of one sequence from which on a graph takes longer than numpy; six times as long for 128 x 4,096."""
_LONGEST_SUM: Final = 128
"""Rows up to which a graph adds in numpy's order, one after the other. Of more it adds up each 128 first (ONNX Runtime
sums by a matrix product, in blocks of that many), which may differ in the last of 53 bits."""
_DEVICE_AT_ONCE: Final = SCRATCH // 32
"""Numbers that a device gathers at once: what it needs for that is bounded."""

Run = Callable[[IdArray, NDArray[Any]], None]
"""Runs a graph: ids in, the output into an array."""


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """The files of a version, mapped: their arrays by the names of the graph's initializers."""

    table: StoredTable
    mappings: tuple[mmap, ...]
    arrays: Mapping[str, NDArray[Any]]

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class OnnxRows:
    """The rows of one version behind graphs. `run` gathers; `combining` has the graphs that also combine rows."""

    def __init__(
        self,
        table: StoredTable,
        run: Run,
        at_once: int,
        combining: Mapping[Combination, Run],
        release: Callable[[], None],
    ) -> None:
        """`at_once` is how many numbers may be gathered in one run; `release` is called once the graphs are gone."""
        self._table = table
        self._run = run
        self._rows_at_once = max(1, at_once // table.embedding_dim)
        self._combining = combining
        self._release = release
        self.num_embeddings = table.num_embeddings
        self.embedding_dim = table.embedding_dim

    @property
    def dtype(self) -> str:
        return self._table.dtype

    def gather(self, ids: IdArray) -> RowArray:
        ids = np.ascontiguousarray(ids)
        rows = np.empty((len(ids), self.embedding_dim), dtype=np.float32)
        step = self._rows_at_once
        if 0 < len(ids) <= step:
            self._run(ids, rows)
            return rows
        for first in range(0, len(ids), step):
            self._run(ids[first : first + step], rows[first : first + step])
        return rows

    def combine(self, ids: IdArray, count: int, combination: Combination) -> NDArray[np.float64]:
        run = self._combining.get(combination)
        if run is None or self._is_wide(count) or (combination == "sum" and not self._sums_alike(count)):
            return gathered_and_combined(self.gather, ids, count, combination, self.embedding_dim)
        sequences = np.ascontiguousarray(ids).reshape(-1, count)
        vectors = np.empty((len(sequences), self.embedding_dim), dtype=np.float64)
        step = max(1, _AT_ONCE // (count * self.embedding_dim))
        for first in range(0, len(sequences), step):
            run(sequences[first : first + step], vectors[first : first + step])
        vectors += 0.0  # as in `combining.combined`
        return vectors

    def _is_wide(self, count: int) -> bool:
        """Whether numpy combines these sooner than a graph, which writes down every number twice on its way."""
        return count * self.embedding_dim >= _WIDE

    def _sums_alike(self, count: int) -> bool:
        """Whether a graph adds in numpy's order, which takes rows of one number in pairs."""
        return count <= _LONGEST_SUM and self.embedding_dim > 1

    def release(self) -> None:
        self._run, self._combining = _released, {}
        self._release()


def _released(_ids: IdArray, _into: NDArray[Any]) -> None:
    raise AssertionError("the rows have been released")


def open_rows(files: RowFiles, fetching: Fetching, *, gently: bool = True) -> Backend:
    """Opens the rows with the first of the providers that takes them.

    Raises ValueError for files that are not what is said of them; DeviceFull; Conflict where ONNX Runtime refuses.
    """
    opened = _open_files(files)
    try:
        if runtime.has_own_memory(fetching.providers[0]):
            return _on_device(opened, fetching, files.vectors.parent)
        return _on_processor(opened, fetching, files.vectors.parent, gently=gently)
    except failures() as error:
        reason = " ".join(str(error).split())
        raise Conflict(f"ONNX Runtime cannot open it with {', '.join(fetching.providers)}: {reason}") from error


def _open_files(files: RowFiles) -> _Opened:
    mapping, rows = map_rows(files.vectors, files.dtype)
    num_embeddings, embedding_dim = rows.shape
    part = Part(files.vectors.name, offset_of(mapping, rows))
    if files.scales is None:
        table = StoredTable(num_embeddings, embedding_dim, files.dtype, part)
        return _Opened(table, (mapping,), {onnxgraph.ROWS: rows})
    mapping_of_scales, scales = map_vector(files.scales, "<f4", num_embeddings)
    part_of_scales = Part(files.scales.name, offset_of(mapping_of_scales, scales))
    table = StoredTable(num_embeddings, embedding_dim, files.dtype, part, part_of_scales)
    arrays = {onnxgraph.ROWS: rows, onnxgraph.SCALES: scales[:, np.newaxis]}
    return _Opened(table, (mapping, mapping_of_scales), arrays)


def _on_processor(opened: _Opened, fetching: Fetching, folder: Path, *, gently: bool) -> Backend:
    for mapping in opened.mappings:
        pages.populate(mapping, gently=gently)
    # They have to live as long as the sessions.
    values = {name: onnxruntime().OrtValue.ortvalue_from_numpy(array) for name, array in opened.arrays.items()}
    table, threads = opened.table, fetching.threads if opened.size >= _LARGE else 1

    def graph(model: bytes, output: str) -> Run:
        options = _session_options(folder, threads)
        for name, value in values.items():
            options.add_initializer(name, value)  # instead of a mapping of its own for each graph
        return _bound(new_session(model, options, fetching), output, is_device=False)

    def release() -> None:
        values.clear()
        for mapping in opened.mappings:
            pages.discard(mapping)

    combining: dict[Combination, Run] = {
        "sum": graph(onnxgraph.pooling_model(table, "sum"), onnxgraph.POOLED),
        "max": graph(onnxgraph.pooling_model(table, "max"), onnxgraph.POOLED),
    }
    # What a single node gathers goes straight to where it belongs, however much it is.
    at_once = _AT_ONCE if table.dtype != "float32" else sys.maxsize
    return OnnxRows(table, graph(onnxgraph.lookup_model(table), onnxgraph.VECTORS), at_once, combining, release)


def _on_device(opened: _Opened, fetching: Fetching, folder: Path) -> Backend:
    """Rows are only gathered there: a device adds in an order of its own, and another sum is not the same answer."""
    memory, size = memory_of(fetching), opened.size
    memory.take(size)
    try:
        options = _session_options(folder, threads=1)
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # without rounding up
        if CPU not in fetching.providers:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = new_session(onnxgraph.lookup_model(opened.table), options, fetching)
    except BaseException:  # cleaned up after, and raised on
        memory.give_back(size)
        raise
    run = _bound(session, onnxgraph.VECTORS, is_device=True)
    return OnnxRows(opened.table, run, _DEVICE_AT_ONCE, {}, lambda: memory.give_back(size))


def _session_options(folder: Path, threads: int) -> Any:  # noqa: ANN401  (the library has no types)
    options = onnxruntime().SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # no two runs are of one shape
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest run for ever
    # The graphs have nothing to optimise, and are to give what they say.
    options.graph_optimization_level = onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.absolute()))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # processors are there for others, too
    return options


def _bound(session: Any, output: str, *, is_device: bool) -> Run:  # noqa: ANN401
    """Runs a session on ids where they lie, and has it write where the caller wants: nothing is copied but the rows.

    Each thread keeps its binding: to make one takes as long as to gather 64 rows.
    """
    bindings = threading.local()
    of_numpy = onnxruntime().OrtValue.ortvalue_from_numpy

    def run(ids: IdArray, into: NDArray[Any]) -> None:
        binding = getattr(bindings, "own", None) or session.io_binding()
        bindings.own = None  # one whose run fails, and which keeps ids and vectors, is not used again
        binding.bind_cpu_input(onnxgraph.IDS, ids)
        binding.bind_ortvalue_output(output, of_numpy(into))
        session.run_with_iobinding(binding)
        if is_device:
            binding.synchronize_outputs()
        binding.clear_binding_inputs()  # or it would keep the memory of both until its next run
        binding.clear_binding_outputs()
        bindings.own = binding

    return run
