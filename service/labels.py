"""Labels of a table: a JSON object from label to version, as text. No files."""

import json
from collections.abc import Mapping

from pydantic import PositiveInt, TypeAdapter, ValidationError

from service.manifest import describe

_LABELS: TypeAdapter[dict[str, PositiveInt]] = TypeAdapter(dict[str, PositiveInt])


def parse_labels(text: str) -> dict[str, int]:
    """Reads what `dump_labels` wrote; raises ValueError that says what is wrong."""
    try:
        return _LABELS.validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(describe(error)) from None


def dump_labels(labels: Mapping[str, int]) -> str:
    """Sorted by label, for people who look."""
    return json.dumps(labels, indent=2, sort_keys=True) + "\n"
