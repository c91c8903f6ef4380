"""What the tests of the files in `deploy/` ask of all of them: are these settings, is this address served?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.server.supervisor import _GRACE
from service.settings import PREFIX, Settings
from tests.world import service_over

ROOT: Final = Path(__file__).parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
GRACE: Final = _GRACE
"""Seconds that the supervisor gives its children beyond the drain."""
PATIENCE_OF_DOCKER: Final = 10
"""Seconds between SIGTERM and SIGKILL of `docker stop`."""


def settings_of(environment: Mapping[str, str]) -> Settings:
    """The settings in an environment; fails for a name that is none, and for a value that cannot be."""
    ours = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in ours.items()}
    assert set(fields) <= set(Settings.model_fields), set(fields) - set(Settings.model_fields)
    return Settings.model_validate(fields)


def served_paths(root: Path) -> set[str]:
    """All addresses of the service over a store, as its description names them."""
    service, _ = service_over(root)
    return set(service.behind.openapi()["paths"])
