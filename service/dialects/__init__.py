"""Other people's protocols over the same tables, one module or package each. Imported when they are switched on."""

import importlib
from collections.abc import Callable, Sequence
from typing import Final

from service.api.dialect import Dialect
from service.api.served import Served
from service.settings import Settings

MAKERS: Final[dict[str, str]] = {
    "v2": "service.dialects.v2.http:dialect",
    "openai": "service.dialects.openai:dialect",
    "tensorflow": "service.dialects.tensorflow:dialect",
    "tei": "service.dialects.tei:dialect",
}
"""The function that makes each, given what is served."""


def dialects_of(settings: Settings) -> Callable[[Served], Sequence[Dialect]]:
    """What makes those that the settings name."""
    return lambda served: [_made(MAKERS[name], served) for name in settings.spoken()]


def _made(where: str, served: Served) -> Dialect:
    module, _, function = where.partition(":")
    made: Dialect = getattr(importlib.import_module(module), function)(served)
    return made
