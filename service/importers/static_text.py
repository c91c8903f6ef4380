"""Static text models: folders of model2vec and of sentence-transformers' `StaticEmbedding`.

Row i of the table is what token i of the tokenizer weighs in with. Where the model has fewer rows than tokens
(model2vec's vocabulary quantisation), its `mapping` is applied: the table has a row for every token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from service.errors import ImportFormatError
from service.imported import ImportedTable, TextModel
from service.importers import safetensors
from service.importers.json_file import read_json, read_object
from service.importers.matrix import AnyArray, Matrix, table_of, whole
from service.importers.options import ImportOptions
from service.importers.tokenizer import Tokenizer, read_tokenizer, with_tokenizer
from service.manifest import TextSettings
from service.types import WeightArray

_MODULES: Final = "modules.json"
_WEIGHTS: Final = "model.safetensors"
_TOKENIZER: Final = "tokenizer.json"
_CONFIG: Final = "config_sentence_transformers.json"
_MODEL2VEC: Final = "embeddings"
_SENTENCE_TRANSFORMERS: Final = "embedding.weight"
_MAX_TOKENS: Final = 512
"""Where a text is cut by model2vec if the model does not say."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A model's folder: `base` has the rows and the tokenizer, `modules` are the classes that a text goes through."""

    root: Path
    base: Path
    modules: Sequence[str]

    def tensor(self, found: Mapping[str | None, Matrix], name: str) -> Matrix | None:
        """A tensor of the model, which must have one axis unless it is the rows."""
        matrix = found.get(name)
        if matrix is not None and len(matrix.shape) != 1:
            raise self.refusal(f"it has the shape {list(matrix.shape)}, not one axis", f"tensor {name!r}")
        if matrix is not None and matrix.stored_as is not None:  # what numpy has no numbers for
            raise self.refusal(f"it holds {matrix.dtype_name}", f"tensor {name!r}")
        return matrix

    def refusal(self, reason: str, place: str | None = None) -> ImportFormatError:
        """The error for a place in the file of the rows."""
        return ImportFormatError(str(self.base / _WEIGHTS), reason, place)


def fits(path: Path, _head: bytes) -> bool:
    """Whether a folder's model is static, by its modules or by its config.

    Raises ImportFormatError for a list of modules that cannot be read: no other format looks at it.
    """
    modules = _modules(path)
    static = _kind(modules[0]) == "StaticEmbedding" if modules else _is_model2vec(path)
    try:
        base = path / _inner(path, modules)
    except ImportFormatError:
        return static  # its path is refused when it is read
    return static and (base / _WEIGHTS).is_file() and (base / _TOKENIZER).is_file()


def _is_model2vec(path: Path) -> bool:
    try:
        return read_object(path / "config.json").get("model_type") == "model2vec"
    except ImportFormatError:
        return False


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The rows of the model in a folder, its tokens, and all that makes vectors of texts."""
    if options.transpose or options.tensor is not None:
        option = "--transpose" if options.transpose else "--tensor"
        raise ImportFormatError(str(path), f"{option} has no meaning for a static text model: its rows are its tokens")
    folder = _opened(path)
    tokenizer = read_tokenizer(folder.base)
    if tokenizer.file != _TOKENIZER:
        reason = "it is empty" if (folder.base / _TOKENIZER).is_file() else "there is no such file"
        raise ImportFormatError(str(folder.base / _TOKENIZER), reason)
    found = {matrix.name: matrix for matrix in safetensors.matrices(folder.base / _WEIGHTS)}
    rows = found.get(_MODEL2VEC) or found.get(_SENTENCE_TRANSFORMERS)
    if rows is None:
        reason = f"there is neither a tensor {_MODEL2VEC!r} nor {_SENTENCE_TRANSFORMERS!r}"
        raise folder.refusal(f"{reason}; it has {', '.join(map(repr, found)) or 'none'}")
    mapping = folder.tensor(found, "mapping")
    expanded = rows if mapping is None else _expanded(folder, rows, mapping, _last_id(tokenizer) + 1)
    _check_ids(folder, tokenizer, expanded)
    table = table_of(folder.base / _WEIGHTS, expanded, options)
    if mapping is not None:
        table = replace(
            table, source={**table.source, "mapping": f"{expanded.shape[0]} tokens to {rows.shape[0]} rows"}
        )
    table = replace(table, source={"folder": path.resolve().name, **table.source})
    weights = folder.tensor(found, "weights")
    table = _with_text(folder, table, tokenizer, None if weights is None else _weights(folder, weights, expanded))
    return with_tokenizer(table, tokenizer, named=options.vocabulary is None)


def _opened(path: Path) -> _Folder:
    if not path.is_dir():
        raise ImportFormatError(str(path), "it is not a folder" if path.exists() else "there is no such file")
    modules = _modules(path)
    return _Folder(path, path / _inner(path, modules), [_kind(module) for module in modules])


def _modules(path: Path) -> list[dict[str, Any]]:
    modules = read_json(path / _MODULES) if (path / _MODULES).is_file() else []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ImportFormatError(str(path / _MODULES), "it is not a list of objects")
    return modules


def _kind(module: Mapping[str, Any]) -> str:
    """The class of a module, without the package, which has had several names."""
    return str(module.get("type")).rpartition(".")[2]


def _inner(path: Path, modules: Sequence[Mapping[str, Any]]) -> str:
    """Where the first module lies in the folder; raises ImportFormatError for a path that leads out of it."""
    inner = modules[0].get("path", "") if modules else ""
    if not isinstance(inner, str) or not _is_within(path, inner):
        raise ImportFormatError(str(path / _MODULES), f"{inner!r} is no folder of the model", "entry 0, path")
    return inner


def _is_within(path: Path, inner: str) -> bool:
    try:
        return not Path(inner).is_absolute() and ".." not in Path(inner).parts and (path / inner).is_dir()
    except OSError:  # a name that is too long
        return False


# Rows


def _expanded(folder: _Folder, rows: Matrix, mapping: Matrix, tokens: int) -> Matrix:
    """A row for every token: the one that the mapping gives it."""
    if len(rows.shape) != 2:
        return rows  # which is refused for its shape
    to_row = _vector(mapping)
    if to_row.dtype.kind not in "iu" or len(to_row) < tokens:
        reason = f"{len(to_row)} {to_row.dtype.name} are no row for each of {tokens} tokens"
        raise folder.refusal(reason, "tensor 'mapping'")
    outside = np.flatnonzero((to_row < 0) | (to_row >= rows.shape[0]))
    if len(outside):
        reason = f"there is no row {to_row[outside[0]]}, there are {rows.shape[0]}"
        raise folder.refusal(reason, f"tensor 'mapping', number {outside[0]}")

    def slices(step: int) -> Iterator[AnyArray]:
        few = whole(folder.base / _WEIGHTS, rows)
        return (few[to_row[first : first + step]] for first in range(0, len(to_row), step))

    return Matrix((len(to_row), rows.shape[1]), rows.dtype, slices, rows.name, stored_as=rows.stored_as)


def _vector(matrix: Matrix) -> NDArray[Any]:
    return np.concatenate(list(matrix.slices(1 << 20))) if matrix.shape[0] else np.empty(0, matrix.dtype)


def _weights(folder: _Folder, weights: Matrix, rows: Matrix) -> WeightArray:
    numbers = _vector(weights)
    if numbers.dtype.kind not in "fiu" or len(numbers) != rows.shape[0]:
        reason = f"{len(numbers)} {weights.dtype_name} are no weight for each of {rows.shape[0]} tokens"
        raise folder.refusal(reason, "tensor 'weights'")
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise folder.refusal(f"{numbers[wrong[0]]} is no weight", f"tensor 'weights', number {wrong[0]}")
    exact: WeightArray = numbers.astype(np.float64)
    return exact


def _last_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.tokens, default=-1)


def _check_ids(folder: _Folder, tokenizer: Tokenizer, rows: Matrix) -> None:
    last = _last_id(tokenizer)
    if len(rows.shape) == 2 and last >= rows.shape[0]:
        reason = f"the tokenizer's {tokenizer.tokens[last]!r} has the id {last}, there are {rows.shape[0]} rows"
        raise folder.refusal(reason, f"tensor {rows.name!r}")


# Texts


def _with_text(
    folder: _Folder, table: ImportedTable, tokenizer: Tokenizer, weights: WeightArray | None
) -> ImportedTable:
    """`table` with what makes vectors of texts, or with the reason why it is left out."""
    content = read_object(folder.base / _TOKENIZER)
    model2vec = table.source["tensor"] == _MODEL2VEC
    reason = _why_no_text(folder, table) or (None if model2vec else _why_not_cut(folder, content))
    if reason is not None:
        return replace(table, source={**table.source, "text": f"left out: {reason}"}, no_text=reason)
    settings = _of_model2vec(folder, tokenizer, content) if model2vec else _of_modules(folder, content)
    return replace(table, text=TextModel((folder.base / _TOKENIZER).read_bytes(), settings, weights))


def _why_no_text(folder: _Folder, table: ImportedTable) -> str | None:
    more = [module for module in folder.modules[1:] if module != "Normalize"]
    if more:
        return f"{more[0]} follows the rows"
    return "not every token has a row" if "rows" in table.source else None


def _why_not_cut(folder: _Folder, content: Mapping[str, Any]) -> str | None:
    direction = _truncation(folder, content).get("direction", "Right")
    if direction not in ("Left", "Right"):
        reason = f"{direction!r} is neither 'Left' nor 'Right'"
        raise ImportFormatError(str(folder.base / _TOKENIZER), reason, "truncation.direction")
    return "texts are cut at their beginning" if direction == "Left" else None


def _truncation(folder: _Folder, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the tokenizer cuts, which model2vec overrules; empty for one that does not cut."""
    truncation = content.get("truncation")
    if truncation is None:
        return {}
    if not isinstance(truncation, dict) or truncation.get("max_length") is None:
        raise ImportFormatError(str(folder.base / _TOKENIZER), "there is no max_length", "truncation")
    return truncation


def _of_model2vec(folder: _Folder, tokenizer: Tokenizer, content: Mapping[str, Any]) -> TextSettings:
    """As `StaticModel.encode` does it: long texts are cut twice, by characters and by tokens."""
    path = folder.root / "config.json"
    config = read_object(path)
    most = _count(path, "max_length", config.get("max_length", _MAX_TOKENS), 0)
    normalize = config.get("normalize", False)
    if type(normalize) is not bool:
        raise ImportFormatError(str(path), f"{normalize!r} is neither true nor false", "normalize")
    typical = int(median(map(len, tokenizer.tokens.values()))) if tokenizer.tokens else 0
    return TextSettings(
        normalize=normalize,
        max_characters=None if most is None else most * typical,
        max_tokens=most,
        dropped_ids=_unknown(content, tokenizer),
    )


def _unknown(content: Mapping[str, Any], tokenizer: Tokenizer) -> list[int]:
    """The id that the tokenizer's model itself gives to what it does not know."""
    model = content["model"]
    token, row = model.get("unk_token"), model.get("unk_id")
    if isinstance(token, str):
        return [row for row, known in tokenizer.tokens.items() if known == token]
    return [row] if type(row) is int and row >= 0 else []


def _of_modules(folder: _Folder, content: Mapping[str, Any]) -> TextSettings:
    """As `SentenceTransformer.encode` does it: cut where the tokenizer says so, behind the default prompt."""
    tokenizer = folder.base / _TOKENIZER
    most = _truncation(folder, content).get("max_length")
    config = read_object(folder.root / _CONFIG)
    return TextSettings(
        normalize="Normalize" in folder.modules,
        prompt=_prompt(folder.root / _CONFIG, config),
        max_tokens=_count(tokenizer, "truncation.max_length", most, 0),
        dimensions=_count(folder.root / _CONFIG, "truncate_dim", config.get("truncate_dim"), 1),
    )


def _prompt(path: Path, config: Mapping[str, Any]) -> str:
    name, prompts = config.get("default_prompt_name"), config.get("prompts")
    if name is None:
        return ""
    prompt: JsonValue = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not isinstance(prompt, str):
        raise ImportFormatError(str(path), f"there is no text for the prompt {name!r}", "prompts")
    return prompt


def _count(path: Path, place: str, number: object, least: int) -> int | None:
    if number is None:
        return None
    if type(number) is not int or number < least:
        raise ImportFormatError(str(path), f"{number!r} is not an integer of at least {least}", place)
    return number
