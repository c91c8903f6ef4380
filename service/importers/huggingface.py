"""A Hugging Face model's folder: its input embedding, its tokenizer's tokens, and the ids of padding and unknown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers import IMPORTERS, importer, safetensors, sharded
from service.importers.candidates import choose
from service.importers.matrix import Matrix, table_of
from service.importers.options import ImportOptions
from service.importers.tokenizer import Tokenizer, read_tokenizer
from service.importers.vocabulary import joined

MODEL_FILES: Final[dict[str, Callable[[Path], list[Matrix]]]] = {
    "model.safetensors": safetensors.matrices,
    "model.safetensors.index.json": sharded.matrices,
}
PICKLED: Final = "pytorch_model.bin"
INPUT_EMBEDDINGS: Final = (
    "word_embeddings.weight",  # BERT, RoBERTa, BLOOM, Falcon
    "wte.weight",  # GPT-2
    "shared.weight",  # T5, BART: the one matrix of encoder and decoder
    "embed_tokens.weight",  # Llama, Mistral, Qwen, Gemma, OPT
    "tok_embeddings.weight",  # ModernBERT, Llama's own
    "embed_in.weight",  # GPT-NeoX
    "word_embedding.weight",  # XLNet
    "token_embedding.weight",  # CLIP
    "embeddings.weight",  # Mamba, XLM
    "embedding.weight",
)
"""What the input embedding is called at its end, the surest name first."""


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The input embedding of the model in a folder, or the tensor that `options.tensor` names."""
    if not path.is_dir():
        raise ImportFormatError(str(path), "it is not a folder" if path.exists() else "there is no such file")
    table = _table(path, options)
    table = replace(table, source={"folder": path.resolve().name, **table.source})
    return _with_tokenizer(table, read_tokenizer(path), named=options.vocabulary is None)


def _table(folder: Path, options: ImportOptions) -> ImportedTable:
    for name, matrices in MODEL_FILES.items():
        path = folder / name
        if path.is_file():
            return table_of(path, _input_embedding(path, matrices(path), options.tensor), options)
    if (folder / PICKLED).is_file():
        return _pickled(folder / PICKLED, options)
    raise ImportFormatError(str(folder), f"there is none of {', '.join((*MODEL_FILES, PICKLED))}")


def _input_embedding(path: Path, found: Sequence[Matrix], tensor: str | None) -> Matrix:
    if tensor is not None:
        return choose(path, found, tensor)
    tables = [matrix for matrix in found if len(matrix.shape) == 2]
    for name in INPUT_EMBEDDINGS:
        fitting = [matrix for matrix in tables if _ends(matrix.name, name)]
        if fitting:
            return choose(path, fitting, None)
    try:
        return choose(path, found, None)
    except ImportFormatError as error:
        reason = f"no tensor is called {', '.join(INPUT_EMBEDDINGS)} at its end; {error.reason}"
        raise ImportFormatError(str(path), reason, error.place) from None


def _ends(tensor: JsonValue, name: str) -> bool:
    """Whether the last parts of a tensor's name are these: `position_embeddings.weight` is no `embeddings.weight`."""
    return f".{tensor}".endswith(f".{name}")


def _pickled(path: Path, options: ImportOptions) -> ImportedTable:
    if "pytorch" not in IMPORTERS:
        reason = "pickled PyTorch models are not read; save the model again with safe_serialization=True"
        raise ImportFormatError(str(path), reason)
    read_pickled = importer("pytorch")
    for name in INPUT_EMBEDDINGS if options.tensor is None else ():
        try:
            table = read_pickled(path, replace(options, tensor=name))
        except ImportFormatError:  # not one tensor of this name; what else is wrong the last call below says too
            continue
        if _ends(table.source.get("tensor"), name):
            return table
    return read_pickled(path, options)


def _with_tokenizer(table: ImportedTable, tokenizer: Tokenizer, *, named: bool) -> ImportedTable:
    """`named` says that rows are to be called by the tokenizer's tokens, not by those of a file of the user's."""
    rows = table.num_embeddings
    table = replace(table, padding_id=_within(tokenizer.pad_id, rows), unk_id=_within(tokenizer.unk_id, rows))
    if not named or tokenizer.file is None:
        return table
    tokens = [tokenizer.tokens.get(row, f"<row {row}>") for row in range(rows)]
    if len(set(tokens)) != len(tokens):
        left_out = f"none: {tokenizer.file} has a token twice"
        return replace(table, source={**table.source, "vocabulary": left_out})
    source = {**table.source, **_origin(table.source, tokenizer, rows)}
    return replace(table, blocks=joined(table, tokens), source=source)


def _origin(source: Mapping[str, JsonValue], tokenizer: Tokenizer, rows: int) -> dict[str, JsonValue]:
    said: dict[str, JsonValue] = {"vocabulary": tokenizer.file}
    unnamed = rows - sum(row < rows for row in tokenizer.tokens)
    beyond = len(tokenizer.tokens) - (rows - unnamed)
    if unnamed:
        said["rows_without_token"] = f"{unnamed}, called <row i>"
    if beyond and "rows" not in source:  # where the first rows are taken, tokens are left over as a matter of course
        said["tokens_without_row"] = f"{beyond}, left out"
    return said


def _within(row: int | None, rows: int) -> int | None:
    return row if row is not None and row < rows else None
