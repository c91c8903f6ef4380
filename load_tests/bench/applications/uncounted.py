"""The service without counting on its hot path: `python -m load_tests.bench.applications.uncounted serve ...`."""

from collections.abc import Sequence

from service.api import batching
from service.cli import main
from service.metrics import Answered


def _nothing(*_: object) -> None:
    """What is not counted takes no time."""


def _uncounted(_: batching.Version, _parts: Sequence[object], found: list[object]) -> list[object]:
    return found


if __name__ == "__main__":
    for name in ("count", "took"):
        setattr(Answered, name, _nothing)
    setattr(batching.Version, "counted", _uncounted)  # noqa: B010
    setattr(batching, "_took", _nothing)  # noqa: B010
    main()
