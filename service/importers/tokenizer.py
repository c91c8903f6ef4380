"""What the tokenizer beside a Hugging Face model says: the token of an id, and the ids of padding and unknown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers.json_file import read_object
from service.importers.vocabulary import joined, read_tokens

_SETTINGS: Final = ("tokenizer_config.json", "special_tokens_map.json")
"""Where tokenizers name their special tokens; the first that does is believed."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`tokens` by id, with gaps where there are any; `file` is where they are from."""

    tokens: Mapping[int, str]
    file: str | None
    pad_id: int | None
    unk_id: int | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of any row."""
        return self.file is None and self.pad_id is None and self.unk_id is None


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder, without tokens where it has none that can be read.

    Raises ImportFormatError for a file that is not what its name says.
    """
    content = read_object(folder / "tokenizer.json")
    file, tokens = _tokens(folder, content)
    ids = {token: row for row, token in tokens.items()}
    pad = _special(folder, "pad_token", ids)
    unk = _special(folder, "unk_token", ids)
    return Tokenizer(
        tokens,
        file,
        _first(pad, _pad_id(content, ids), _row(read_object(folder / "config.json").get("pad_token_id"))),
        _first(unk, _unk_id(content, ids)),
    )


def tokens_in(path: Path) -> Mapping[int, str]:
    """The tokens of a `tokenizer.json` by their ids; raises ImportFormatError for what is none."""
    content = read_object(path)
    if not content:
        raise ImportFormatError(str(path), "it is empty" if path.is_file() else "there is no such file")
    return _of_tokenizer(path, content)


def with_tokenizer(table: ImportedTable, tokenizer: Tokenizer, *, named: bool) -> ImportedTable:
    """`table` with the special rows of a tokenizer and, if `named`, with its tokens as the names of the rows."""
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


def _tokens(folder: Path, content: Mapping[str, Any]) -> tuple[str | None, dict[int, str]]:
    if content:
        return "tokenizer.json", _of_tokenizer(folder / "tokenizer.json", content)
    if (folder / "vocab.txt").is_file():
        return "vocab.txt", dict(enumerate(read_tokens(folder / "vocab.txt"))) | _added(folder)
    if (folder / "vocab.json").is_file():
        tokens = _of_ids(folder / "vocab.json", read_object(folder / "vocab.json").items(), "vocab.json")
        return "vocab.json", tokens | _added(folder)
    return None, {}


def _added(folder: Path) -> dict[int, str]:
    """What tokenizers without a `tokenizer.json` have beside their vocabulary."""
    path = folder / "added_tokens.json"
    return _of_ids(path, read_object(path).items(), path.name)


def _of_tokenizer(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    model, added = content.get("model"), content.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):  # WordPiece, BPE, WordLevel
        tokens = _of_ids(path, vocabulary.items(), "model.vocab")
    elif isinstance(vocabulary, list):  # Unigram: pairs of a token and its score
        tokens = _of_pairs(path, vocabulary)
    else:
        raise ImportFormatError(str(path), "there is no model.vocab")
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ImportFormatError(str(path), "it is not a list of objects", "added_tokens")
    # An added token is looked for first, by the tokenizers library too.
    return tokens | _of_ids(path, ((token.get("content"), token.get("id")) for token in added), "added_tokens")


def _of_ids(path: Path, ids: Iterable[tuple[Any, Any]], place: str) -> dict[int, str]:
    tokens: dict[int, str] = {}
    for token, row in ids:
        if not isinstance(token, str) or type(row) is not int or row < 0:
            raise ImportFormatError(str(path), f"{token!r} has the id {row!r}", place)
        if row in tokens:
            raise ImportFormatError(str(path), f"{tokens[row]!r} and {token!r} both have the id {row}", place)
        tokens[row] = token
    return tokens


def _of_pairs(path: Path, pairs: list[Any]) -> dict[int, str]:
    for row, pair in enumerate(pairs):
        if not isinstance(pair, list) or not pair or not isinstance(pair[0], str):
            raise ImportFormatError(str(path), "it is not a token and its score", f"model.vocab, entry {row}")
    return {row: pair[0] for row, pair in enumerate(pairs)}


def _special(folder: Path, key: str, ids: Mapping[str, int]) -> int | None:
    for name in _SETTINGS:
        token = read_object(folder / name).get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in ids:
            return ids[token]
    return None


def _pad_id(content: Mapping[str, Any], ids: Mapping[str, int]) -> int | None:
    padding = content.get("padding")
    if not isinstance(padding, dict):
        return None
    token = padding.get("pad_token")
    return ids.get(token) if isinstance(token, str) else _row(padding.get("pad_id"))


def _unk_id(content: Mapping[str, Any], ids: Mapping[str, int]) -> int | None:
    model = content.get("model")
    if not isinstance(model, dict):
        return None
    token = model.get("unk_token")
    return ids.get(token) if isinstance(token, str) else _row(model.get("unk_id"))


def _row(number: object) -> int | None:
    """What could be the number of a row; some configurations say -1 for none."""
    return number if type(number) is int and number >= 0 else None


def _first(*rows: int | None) -> int | None:
    return next((row for row in rows if row is not None), None)
