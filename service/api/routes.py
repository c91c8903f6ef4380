"""What the paths of one kind have in common, like `/v1/tables/{table}/lookup`: what a span is named by."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from service.api.answer import Scope

_PLACE: Final = re.compile(r"\{\w+\}")


class Routes:
    """The routes of an application by their paths, as its description has them."""

    def __init__(self, paths: Mapping[str, Iterable[str]]) -> None:
        """`paths` have the methods of each path, in lower case."""
        self._routes = [(_pattern(path), frozenset(map(str.upper, methods)), path) for path, methods in paths.items()]

    def __call__(self, scope: Scope) -> str | None:
        """The route of a request; None for one that has none, whose path may be anything."""
        for pattern, methods, path in self._routes:
            if scope["method"] in methods and pattern.fullmatch(scope["path"]):
                return path
        return None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("[^/:]+".join(map(re.escape, _PLACE.split(path))))
